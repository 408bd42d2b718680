"""Passes are counted, and checked against what the methods say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advss.studies.run import lay_out
from advss.training.reporting import Silent


def passes(study: Any) -> dict[str, float]:
    laid = lay_out(study, Path("runs"), Silent())
    return {
        stage.label: laid.costs[run]["passes"] for run, stage in laid.plan.stages.items() if stage.kind == "finetune"
    }


@pytest.mark.parametrize(("steps", "each"), [(1, 2), (3, 4)])
def test_pgd_costs_a_pass_a_step_and_one(made: Any, steps: int, each: int) -> None:
    """72 of 80 images train, 2 steps of 32; 8 validate, under a PGD-1 of one pass and a forward pass."""
    rows = {"a": {"pretext": "none", "defense": {"pgd": {"steps": steps}}}}
    found = passes(made(rows=rows))
    validated = 8 / 3 + 8 * (1 + 1 / 3)
    assert found["a"] == pytest.approx(64 * each + validated, abs=1)


def test_standard_training_costs_one_pass_and_validation_a_third(made: Any) -> None:
    found = passes(made({"finetune-epochs": 3}, rows={"a": {"pretext": "none", "defense": "none"}}))
    assert found["a"] == pytest.approx(3 * (64 + 8 / 3), abs=1)


def test_what_was_timed_is_not_timed_again(made: Any) -> None:
    study, lines = made(seeds=2), list[str]()

    class Told(Silent):
        def say(self, line: str) -> None:
            lines.append(line)

    laid = lay_out(study, Path("runs"), Told())
    assert [line for line in lines if "timing" in line] == ["timing a step of each of 4 kinds of stages"]
    lines.clear()
    assert lay_out(study, Path("runs"), Told(), laid.timed).costs == laid.costs
    assert not [line for line in lines if "timing" in line]
