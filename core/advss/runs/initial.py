"""The weights that a run's backbone starts from, kept in its folder: resuming and going on from it fetch nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from advss.config import BackboneStart, RunConfig
from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.encoder import backbone_of
from advss.models.pretrained import Weights, read_weights
from advss.runs.folder import RunFolder
from advss.runs.stored import stored_config
from advss.training.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint

KIND = "initial"


def first_weights(
    config: RunConfig, data: DataFacts, source: Path | None, say: Callable[[str], None]
) -> Weights | None:
    """What a new run starts from; None is random weights.

    Args:
        config: the run.
        data: its images.
        source: the pretraining checkpoint that it starts from, whose run has kept the weights.
        say: told before anything is fetched, since that may take minutes.

    Raises:
        UsageError: they cannot be had, or do not fit.
    """
    run = RunFolder(source.resolve().parent.parent) if source else None
    if run is None or not run.config.is_file():
        start, said = config.start, config.architecture.options
        if start and start.pretrained:
            say(f"fetching timm's weights of {config.backbone.name}")
        return read_weights(start, config.backbone.name, said, data) if start else None
    was = stored_config(run.path).start
    if config.start != was:
        raise UsageError(
            f"--from: run {run.path} started from {_said(was)}, not from {_said(config.start)}; leave "
            "--backbone.pretrained and --backbone.weights out"
        )
    return kept_weights(config, run)


def kept_weights(config: RunConfig, folder: RunFolder) -> Weights | None:
    """What a run that has begun started from, as its folder keeps it.

    Raises:
        UsageError: it is gone.
    """
    if config.start is None:
        return None
    if not has_checkpoint(folder.initial):
        gone = f"{folder.initial}, which it starts from, is missing"
        raise UsageError(f"run {folder.path}: {gone}; put it back, or start a new run")
    kept = load_checkpoint(folder.initial)
    return Weights.of(kept.tensors, kept.manifest[KIND])


def keep_weights(weights: Weights, folder: RunFolder) -> None:
    """Write them into a run's folder."""
    save_checkpoint(folder.initial, weights.tensors, {"kind": KIND, KIND: weights.described()})


def told(weights: Weights, config: RunConfig, data: DataFacts) -> str:
    """One line on where they come from, and on what of the network they leave random."""
    backbone = backbone_of(config.architecture.name, config.architecture.options | dict(weights.options), data)
    stem = f"; a fresh stem, for images of {data.side} pixels" if backbone.fresh else ""
    normalised = "" if weights.mean else "; normalised by these images, since timm knows no others"
    return f"starts from {weights.origin}, sha256 {weights.sha256[:8]}, the last stage too{stem}{normalised}"


def _said(start: BackboneStart | None) -> str:
    if start is None:
        return "random weights"
    return str(start.weights) if start.weights else "timm's weights"
