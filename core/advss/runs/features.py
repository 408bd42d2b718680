"""A run's features: the encoder and the last stage that its checkpoint holds, restored without its plugins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from advss.errors import UsageError, did_you_mean
from advss.models.classifier import ImageClassifier
from advss.models.features import ImageFeatures
from advss.models.spec import build_encoder_from
from advss.models.weights import load_strict
from advss.output import tell
from advss.plugins.provenance import saying_what_is_needed
from advss.randomness import global_stream
from advss.runs.classifier import restored
from advss.runs.start import choose_start, start_of
from advss.training.checkpoints import Checkpoint, load_checkpoint


def load_features(path: Path, task: str | None) -> ImageFeatures:
    """Encoder and last stage of a checkpoint, in eval mode, on the CPU.

    Args:
        path: a checkpoint of pretraining, or of fine-tuning, whose classifier then is without its head.
        task: the pretext task whose BatchNorm branch and last stage it is; None: the one that is fine-tuned by default.

    Raises:
        UsageError: the file is not whole, is of several classifiers, or has no such task.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.manifest.get("kind") == "pretrain":
        return _of_task(checkpoint, task, what=str(path)).eval()
    if task is not None:
        raise UsageError(f"task '{task}': {path} is not of pretraining and has no pretext tasks; leave task out")
    classifier = restored(checkpoint, what=str(path))
    if not isinstance(classifier, ImageClassifier):
        raise UsageError(f"{path} is of several classifiers, each with features of its own; name the run of one")
    return ImageFeatures(classifier.encoder, classifier.tail).eval()


def _of_task(checkpoint: Checkpoint, task: str | None, *, what: str) -> ImageFeatures:
    starts = checkpoint.manifest["starts"]
    if task is not None and task not in starts:
        there = f"; pretraining was on {', '.join(starts)}{did_you_mean(task, starts)}"
        raise UsageError(f"task '{task}' is none of {what}{there}")
    start = start_of(checkpoint, choose_start(starts, "auto") if task is None else starts[task])
    spec = dataclasses.replace(start.spec, branches=("main",))
    with saying_what_is_needed(lambda: checkpoint.manifest.get("plugins"), run=what), global_stream("cpu", 0, "init"):
        encoder = build_encoder_from(spec)
        tail = None if start.tail is None else encoder.tail()
    load_strict(encoder, start.encoder, what=what)
    if tail is None or start.tail is None:
        none = f"task {task} has no last stage" if task else "no task has a last stage"
        tell(f"advss: {what}: {none}; the features are the mean of the encoder's map, {encoder.channels} numbers")
    else:
        load_strict(tail, start.tail, what=f"{what}, last stage")
    return ImageFeatures(encoder, tail)
