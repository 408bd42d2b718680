"""What two runs must be alike in to be one, and what may differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advss.config import Choice, RunConfig
from advss.studies import identity
from advss.studies.identity import Datasets, finetuning, pretraining
from advss.training.reporting import Silent

Settings = Any


@pytest.fixture(scope="module")
def data() -> Datasets:
    return Datasets(Silent())


def stages(config: RunConfig, data: Datasets) -> tuple[str, str]:
    """The names' ends of a run's pretraining and fine-tuning."""
    start = pretraining(config, data)
    return start.named, finetuning(config, data, start).named


HARMLESS: list[dict[str, Any]] = [
    {"name": "other"},
    {"runs_dir": Path("elsewhere")},
    {"device": "auto"},
    {"tracking": True},
    {"log_every": 3},
    {"checkpoint_minutes": 1.0},
    {"evaluate": ()},
    {"split_seed": 0},  # as it is without
]


@pytest.mark.parametrize("change", HARMLESS, ids=[next(iter(one)) for one in HARMLESS])
def test_what_changes_no_weight_is_left_out(settings: Settings, data: Datasets, change: dict[str, Any]) -> None:
    assert stages(replace(settings(), **change), data) == stages(settings(), data)


def test_nor_does_the_attack_on_test_images_count(settings: Settings, data: Datasets) -> None:
    config = settings()
    other = replace(config, evaluation=replace(config.evaluation, steps=7, restarts=2, limit=3, loss="margin"))
    assert stages(other, data) == stages(config, data)


OF_BOTH: list[dict[str, Any]] = [
    {"seed": 1},
    {"split_seed": 3},
    {"limit": 70},
    {"size": 20},
    {"resize": 20},
    {"precision": "bf16"},
    {"memory_format": "channels_last"},
    {"backbone": Choice("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]})},
    {"defense": Choice("pgd", {"steps": 2})},
    {"pretext": (Choice("jigsaw", {"permutations": 5}, "jigsaw"),)},
]


@pytest.mark.parametrize("change", OF_BOTH, ids=[next(iter(one)) for one in OF_BOTH])
def test_what_pretraining_hangs_on_counts_for_both_stages(
    settings: Settings, data: Datasets, change: dict[str, Any]
) -> None:
    both = zip(stages(replace(settings(), **change), data), stages(settings(), data), strict=True)
    assert all(now != was for now, was in both)


def of_finetuning(config: RunConfig) -> list[RunConfig]:
    return [
        replace(config, finetuning=replace(config.finetuning, lr=0.3)),
        replace(config, finetune=Choice("partial")),
        replace(config, finetune_defense=Choice("none")),
        replace(config, finetune_tail="fresh"),
        replace(config, evaluation=replace(config.evaluation, valid_steps=3)),
        replace(config, evaluation=replace(config.evaluation, eps=0.1)),
    ]


@pytest.mark.parametrize("place", range(6))
def test_what_fine_tuning_alone_hangs_on_leaves_pretraining_shared(
    settings: Settings, data: Datasets, place: int
) -> None:
    was, now = stages(settings(), data), stages(of_finetuning(settings())[place], data)
    assert now[0] == was[0]
    assert now[1] != was[1]


def test_standard_fine_tuning_hangs_on_no_attack(settings: Settings, data: Datasets) -> None:
    config = settings(finetune_defense="none")
    other = replace(config, evaluation=replace(config.evaluation, valid_steps=3, eps=0.1))
    assert stages(other, data) == stages(config, data)


def test_without_pretraining_nothing_of_it_counts(settings: Settings, data: Datasets) -> None:
    config = settings("none")
    other = replace(config, defense=Choice("none"), pretraining=replace(config.pretraining, lr=0.7), diversity=0.0)
    assert finetuning(other, data, None).named == finetuning(config, data, None).named


def test_pretraining_on_images_of_its_own_is_that_on_the_same_images(settings: Settings, data: Datasets) -> None:
    apart = settings(pretrain_data=Choice("digits"), pretrain_data_limit=60, pretrain_data_size=16, limit=40)
    alone = settings(limit=60)
    assert pretraining(apart, data).named == pretraining(alone, data).named


def test_a_version_changes_the_end_of_the_name_alone(
    settings: Settings, data: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pretraining(settings(), data)
    monkeypatch.setattr(identity, "version", lambda name: "9.9")
    after = pretraining(settings(), data)
    assert after.digest == before.digest
    assert after.named != before.named


def test_files_of_a_backbone_count_by_what_they_hold(settings: Settings, data: Datasets, tmp_path: Path) -> None:
    def of(path: Path) -> str:
        return pretraining(settings(backbone=Choice("resnet18", {"weights": path})), data).digest

    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    assert of(tmp_path / "a") == of(tmp_path / "b") != of(tmp_path / "c")
