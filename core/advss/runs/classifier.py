"""A run's classifier: at its initialisation, and as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from advss.errors import UsageError
from advss.models.averaged import AveragedClassifier
from advss.models.classifier import ImageClassifier
from advss.models.spec import ModelSpec, build_encoder_from
from advss.models.weights import load_strict
from advss.plugins.provenance import saying_what_is_needed
from advss.randomness import global_stream
from advss.training.checkpoints import Checkpoint, load_checkpoint


def new_classifier(
    spec: ModelSpec,
    classes: int,
    *,
    seed: int,
    weights: Mapping[str, Tensor] | None = None,
    random_tail: bool = False,
) -> ImageClassifier:
    """A classifier at its initialisation, a function of the seed and of the weights that its backbone starts from.

    Args:
        spec: its encoder.
        classes: that it tells apart.
        seed: of what is random: all but the weights.
        weights: as :mod:`advss.models.pretrained` gives them; they count as loaded.
        random_tail: leave the last stage random.
    """
    with global_stream("cpu", seed, "init", "encoder"):
        encoder = build_encoder_from(spec, weights)
    with global_stream("cpu", seed, "init", "classifier"):
        classifier = ImageClassifier(encoder, encoder.random_tail() if random_tail else encoder.tail(), classes)
    if weights is not None:
        parts = {"encoder.net.": encoder.net, "tail.": classifier.tail}
        names = {prefix + name for prefix, part in parts.items() for name in part.state_dict()}
        fresh = tuple(f"encoder.net.{name}" for name in encoder.fresh) + (("tail.",) if random_tail else ())
        classifier.loaded = {name for name in names if not name.startswith(fresh)}
    return classifier


def load_classifier(path: Path) -> nn.Module:
    """The classifier of a checkpoint, in eval mode, on the CPU: images in [0, 1] -> logits.

    Raises:
        UsageError: the file is not whole, or neither of fine-tuning nor of an ensemble.
    """
    return restored(load_checkpoint(path), what=str(path))


def restored(checkpoint: Checkpoint, *, what: str) -> nn.Module:
    """The classifier that a checkpoint holds, in eval mode; ``what`` names the checkpoint in errors.

    Raises:
        UsageError: it is neither of fine-tuning nor of an ensemble, or its tensors are not those of its model.
    """
    model = _unfilled(checkpoint.manifest, what)
    own = ("scheme.", "optimizer.", "average.")
    state = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(own)}
    if "progress" in checkpoint.manifest and state.keys() != model.state_dict().keys():
        best = checkpoint.path.with_name("best.safetensors")
        raise UsageError(f"{what} holds the classifier in the form that trains; load what it leaves: {best}")
    load_strict(model, state, what=what)
    return model.eval()


def _unfilled(manifest: Mapping[str, Any], what: str) -> nn.Module:
    """The model that a manifest describes, its weights still to be loaded."""
    kind = manifest.get("kind")
    if kind == "ensemble":
        return AveragedClassifier([_unfilled(member, what) for member in manifest["members"]])
    if kind != "finetune":
        raise UsageError(f"{what} is a checkpoint of '{kind}'; a classifier comes from fine-tuning")
    with saying_what_is_needed(lambda: manifest.get("plugins"), run=what):
        return new_classifier(ModelSpec.from_json(manifest["model"]), len(manifest["classes"]), seed=0)
