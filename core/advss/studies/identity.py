"""What a stage of training is: all that its weights hang on, in a digest that names the run's folder.

Two cells whose pretraining is alike in all of it share one run. What changes no weight is left out: names and places,
device, threads, tracking, and by what the classifier is measured on test images. Versions of plugins stand in a digest
of their own behind it, so that a stage that another version made is found, and asked about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from advss.config import RunConfig, paths_in
from advss.configuration.resolve import to_mapping
from advss.configuration.settings import OF_DATA
from advss.data.splits import Splits
from advss.plugins.provenance import choices_of, used_by
from advss.runs.reading import watched
from advss.runs.session import build_defense, open_data
from advss.training.reporting import Reporter

Training = Literal["pretrain", "finetune"]
OF_IMAGES = tuple(flag for flag in OF_DATA.values() if flag.startswith("data."))
SHARED = ("backbone", "seed", "precision", "memory-format", *OF_IMAGES)
OF_TASKS = ("pretext", "defense", "ensemble-loss")
VALIDATING = ("eval-norm", "eval-eps", "eval-step-size", "eval-top-share", "eval-batch-size")
LETTERS, LETTERS_OF_VERSIONS = 10, 4


@dataclass(frozen=True)
class Identity:
    """What a stage is."""

    known_by: Mapping[str, Any]  # all that its weights hang on, but versions
    versions: tuple[str, ...]  # "DISTRIBUTION VERSION", sorted

    @property
    def digest(self) -> str:
        """Of what it is known by."""
        return digest_of(self.known_by)[:LETTERS]

    @property
    def named(self) -> str:
        """What ends the name of its run: the digest, and one of the versions."""
        return f"{self.digest}-{digest_of(self.versions)[:LETTERS_OF_VERSIONS]}"


def digest_of(content: Any) -> str:
    """The sha256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Datasets:
    """The images of a study that may be trained on, each set read once, and divided in one way whatever the seed."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._read: dict[str, Splits] = {}

    def splits(self, config: RunConfig) -> Splits:
        """The images of ``--data`` to train on and to validate on."""
        said = to_mapping(config)
        key = json.dumps([said[flag] for flag in ("data", *OF_IMAGES)])
        if key not in self._read:
            with watched(self.reporter) as watch:
                self._read[key] = open_data(replace(config, split_seed=0), ("train", "valid"), watch)
        return self._read[key]

    def sha256(self, config: RunConfig) -> str:
        """The digest of these images and labels, before limits and division."""
        return self.splits(replace(config, limit=0)).fingerprint.sha256


def pretraining_config(config: RunConfig) -> RunConfig:
    """The run that pretrains for a cell: on ``--data``, whatever it was called."""
    unsaid: dict[str, Any] = {name: 0 for name in OF_DATA if name.startswith("pretrain_data")}
    return replace(config.chosen("pretrain-data"), pretrain_data=None, evaluate=(), **unsaid)


def pretraining(config: RunConfig, data: Datasets) -> Identity:
    """What the pretraining of a cell is."""
    own = pretraining_config(config)
    validating = ("eval-valid-limit",) if build_defense(own.defense).adversarial else ()
    said = _said(own, lambda flag: flag in (*OF_TASKS, *validating) or flag.startswith(("pretrain-", "diversity")))
    said = {flag: value for flag, value in said.items() if not flag.startswith("pretrain-data")}
    return Identity({"stage": "pretrain", **said, "images": data.sha256(own)}, _versions(own, "pretrain"))


def finetuning(config: RunConfig, data: Datasets, start: Identity | None) -> Identity:
    """What the fine-tuning of a cell is, of ``start`` or of random weights."""
    attacked = build_defense(config.finetune_defense).adversarial  # else no attack chooses the epoch
    said = _said(
        config,
        lambda flag: (
            flag.startswith("finetune") or (attacked and (flag.startswith("eval-valid-") or flag in VALIDATING))
        ),
    )
    if start is None:
        said.pop("finetune-tail")
    known_by = {"stage": "finetune", "start": start.known_by if start else None, **said, "images": data.sha256(config)}
    return Identity(known_by, tuple(sorted({*_versions(config, "finetune"), *(start.versions if start else ())})))


def _said(config: RunConfig, counts: Callable[[str], bool]) -> dict[str, Any]:
    """What is shared and what counts for a stage, in plain values, files by their content."""
    options = {name: _content(value) for name, value in config.backbone.options.items()}
    said = to_mapping(replace(config, backbone=replace(config.backbone, options=options)))
    kept = {flag: value for flag, value in said.items() if flag in SHARED or counts(flag)}
    return {**kept, "split-seed": config.dividing_seed}


def _content(value: Any) -> Any:
    paths = paths_in(value)
    if not paths or not all(path.is_file() for path in paths):
        return value
    return [_sha256(path) for path in paths]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions(config: RunConfig, stage: Training) -> tuple[str, ...]:
    records = used_by(choices_of(config, stage))
    named: Iterable[str] = (f"{record['distribution']} {record['version']}" for record in records)
    return tuple(sorted({f"advss {version('advss')}", *named}))
