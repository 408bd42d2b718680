"""Finished runs that are averaged or compared: opened, and checked to be of the same test images and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from advss.config import Choice, EvalSettings, RunConfig
from advss.data.splits import open_test
from advss.data.statistics import digest
from advss.errors import UsageError
from advss.runs.classifier import restored
from advss.runs.folder import RunFolder, classifier_of, find_run
from advss.runs.stored import stored_config
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


def open_finished(runs: Sequence[str | Path]) -> list[Finished]:
    """The runs in their order, models loaded.

    Raises:
        UsageError: fewer than two runs, one of them twice, without a fine-tuned model, or of other test images or
            classes than the first.
    """
    if len(runs) < 2:
        raise UsageError(f"at least 2 runs are needed, got {len(runs)}")
    folders = [find_run(run) for run in runs]
    _check_distinct(folders)
    paths = [classifier_of(folder) for folder in folders]
    configs = [stored_config(folder.path) for folder in folders]
    _check_same_images(folders, configs)
    checkpoints = [load_checkpoint(path) for path in paths]
    _check_same_classes(folders, [checkpoint.manifest["classes"] for checkpoint in checkpoints])
    models = [restored(checkpoint, what=str(checkpoint.path)) for checkpoint in checkpoints]
    manifests = [checkpoint.manifest for checkpoint in checkpoints]
    found = zip(_labels(folders), folders, configs, manifests, models, strict=True)
    return [Finished(*one) for one in found]


def _labels(folders: Sequence[RunFolder]) -> list[str]:
    names = [folder.path.resolve().name for folder in folders]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name}#{count}" for name, count in zip(names, counts, strict=True)]


def _check_distinct(folders: Sequence[RunFolder]) -> None:
    places = [folder.path.resolve() for folder in folders]
    for place, folder in enumerate(folders):
        if places[place] in places[:place]:
            raise UsageError(f"run {folder.path} is named twice; name each run once")


def _check_same_images(folders: Sequence[RunFolder], configs: Sequence[RunConfig]) -> None:
    """Runs of the same data by configuration, or else, say from another root, by the images themselves."""
    first = configs[0]
    fingerprint = ""
    for folder, config in zip(folders, configs, strict=True):
        if _described(config) == _described(first):
            continue
        fingerprint = fingerprint or _fingerprint(first)
        if _fingerprint(config) != fingerprint:
            raise UsageError(
                f"run {folder.path} is of {_described(config)}, run {folders[0].path} of {_described(first)}: "
                "their test images differ; name runs of the same data and --data.limit"
            )


def _fingerprint(config: RunConfig) -> str:
    test = open_test(config.data.name, config.data.options, limit=config.limit)
    return digest(test.images, test.labels)


def _described(config: RunConfig) -> str:
    data: Choice = config.data
    options = "".join(f" {name}={value}" for name, value in sorted(data.options.items()))
    return f"{data.name}{options}{f' limit={config.limit}' if config.limit else ''}"


def _check_same_classes(folders: Sequence[RunFolder], classes: Sequence[list[str]]) -> None:
    for folder, own in zip(folders, classes, strict=True):
        if own != classes[0]:
            raise UsageError(
                f"run {folder.path} tells {len(own)} classes apart ({_some(own)}), run {folders[0].path} "
                f"{len(classes[0])} ({_some(classes[0])}); name runs of the same classes"
            )


def _some(classes: list[str]) -> str:
    return ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
