"""Finished runs that are averaged or compared: opened, and checked to be of the same test images and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from advss.config import EvalSettings, RunConfig
from advss.data.fingerprint import Fingerprint
from advss.errors import UsageError
from advss.runs.classifier import restored
from advss.runs.folder import RunFolder, check_distinct, classifier_of, find_run, labelled
from advss.runs.stored import found_config
from advss.training.checkpoints import load_checkpoint


@dataclass(frozen=True)
class Finished:
    """A run with a fine-tuned classifier."""

    label: str  # its name; a second run of the same name is "name#2"
    folder: RunFolder
    config: RunConfig
    manifest: dict[str, Any]  # of its classifier's checkpoint
    model: nn.Module  # in eval mode, on the CPU


@dataclass(frozen=True)
class Asked:
    """How finished runs are looked at."""

    evaluation: EvalSettings
    runs_dir: Path  # where the folder of the outcome is made
    name: str | None = None  # of that folder; made from the date where there is none
    device: str = "auto"
    tracking: bool = True
    where: Mapping[str, str] | None = None  # by option of their source, where the data of the first run are now


def open_finished(runs: Sequence[str | Path], where: Mapping[str, str] | None = None) -> list[Finished]:
    """The runs in their order, models loaded; ``where`` is of the first one's data, as of :func:`found_config`.

    Raises:
        UsageError: fewer than two runs, one of them twice, without a fine-tuned model, or of other test images or
            classes than the first.
    """
    if len(runs) < 2:
        raise UsageError(f"at least 2 runs are needed, got {len(runs)}")
    folders = [find_run(run) for run in runs]
    check_distinct(folders)
    paths = [classifier_of(folder) for folder in folders]
    configs = [found_config(folder.path, None if place else where) for place, folder in enumerate(folders)]
    checkpoints = [load_checkpoint(path) for path in paths]
    manifests = [checkpoint.manifest for checkpoint in checkpoints]
    _check_same_data(folders, manifests)
    models = [restored(checkpoint, what=str(checkpoint.path)) for checkpoint in checkpoints]
    found = zip(labelled(folders), folders, configs, manifests, models, strict=True)
    return [Finished(*one) for one in found]


def _check_same_data(folders: Sequence[RunFolder], manifests: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError where a run is of other classes or test images than the first."""
    first, *others = [Fingerprint.from_json(manifest["data"]).of("test") for manifest in manifests]
    for folder, other in zip(folders[1:], others, strict=True):
        if differing := other.unlike(first):
            raise UsageError(
                f"run {folder.path} is of other data than run {folders[0].path}: {differing}; name runs of the same "
                "data and --data.limit"
            )
