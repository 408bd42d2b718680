"""Which of several measurements by one evaluation is the run's one of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from advss.config import Choice, EvalSettings
from advss.evaluations.measurement import Measurement
from advss.evaluations.planned import planned, usual
from advss.files import write_json
from advss.runs.folder import RunFolder

HEADLINE = {"norm": "linf", "eps": 0.03}


def one(
    run: Path, count: int = 100, *, checkpoint: str = "c", precision: str = "float32", **options: Any
) -> Measurement:
    known_by = {
        "options": {"version": "standard", **HEADLINE, **options},
        "images": {"count": count, "chunk": 10},
        "precision": precision,
        "checkpoint": checkpoint,
    }
    return Measurement(RunFolder(run), "autoattack", known_by)


def recorded(first: Measurement) -> Measurement:
    """It is measured, and in result.json."""
    write_json(first.path, {})
    write_json(first.folder.result, {"evaluations": {"autoattack": first.reference}})
    return first


@pytest.mark.parametrize(
    ("later", "takes_its_place"),
    [
        ({}, True),
        ({"count": 10}, True),
        ({"eps": 0.1}, False),
        ({"precision": "bf16"}, False),
        ({"version": "plus"}, False),
        ({"version": "plus", "count": 500}, True),
    ],
)
def test_what_is_measured_as_usual_takes_the_place_of_another_version(
    tmp_path: Path, later: Mapping[str, Any], takes_its_place: bool
) -> None:
    recorded(one(tmp_path, version="rand"))
    assert one(tmp_path, **later).heads(None, one(tmp_path, 7), "autoattack") is takes_its_place


@pytest.mark.parametrize(("count", "takes_its_place"), [(99, False), (100, False), (101, True)])
def test_of_the_usual_ones_that_of_most_images_is_the_runs_and_of_these_the_first(
    tmp_path: Path, count: int, takes_its_place: bool
) -> None:
    recorded(one(tmp_path))
    later = Measurement(RunFolder(tmp_path), "autoattack", {**one(tmp_path, count).known_by, "seed": 1})
    assert later.heads(None, one(tmp_path), "autoattack") is takes_its_place


def test_what_the_runs_own_settings_measure_stays_and_takes_any_place(tmp_path: Path) -> None:
    own, usually = one(tmp_path, 5, version="rand"), one(tmp_path, 500)
    recorded(usually)
    assert own.heads(own, usually, "autoattack")
    recorded(own)
    assert not usually.heads(own, usually, "autoattack")


def test_of_another_checkpoint_and_of_a_file_that_is_gone_nothing_counts(tmp_path: Path) -> None:
    first = recorded(one(tmp_path))
    assert one(tmp_path, 1, version="rand", checkpoint="d").heads(None, first, "autoattack")
    first.path.unlink()
    assert one(tmp_path, 1, version="rand").heads(None, first, "autoattack")


def test_usual_are_the_defaults_and_the_runs_settings_at_the_threat_of_the_headline() -> None:
    settings = EvalSettings(eps=0.5, steps=7)
    attack = planned(Choice("autoattack", {"version": "rand", "eps": 0.1}), settings)
    found = usual(attack, settings, {"norm": "l2", "eps": 1.5, "steps": 3})
    assert found is not None
    assert found.options == {"version": "standard", "attacks": [], "norm": "l2", "eps": 1.5}
    pgd = usual(planned(Choice("pgd", {"steps": 2}), settings), settings, HEADLINE)
    assert pgd is not None
    assert (pgd.options["eps"], pgd.options["steps"]) == (0.03, 7)


def test_nothing_is_usual_at_a_threat_that_the_evaluation_refuses() -> None:
    settings = EvalSettings()
    assert usual(planned(Choice("strength"), settings), settings, {"norm": "linf", "eps": 0}) is None
