"""Where the pictures of a measurement lie, and where they are tracked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advss.config import Choice, EvalSettings, RunConfig
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.evaluations.planned import Planned
from advss.figures import new_figure
from advss.measuring import Measured
from advss.stages.fit import fit
from advss.training.reporting import Silent
from advss_evaluations.clean import Clean
from advss_evaluations.pgd import PGD

Settings = Callable[..., RunConfig]
OWN = EvalSettings(steps=2, limit=20)  # as the run's


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that PGD measures, every evaluation of which draws one empty picture."""
    monkeypatch.setattr(Planned, "drawn", lambda plan, measured: {"empty": new_figure(width=1, height=1)})
    config = settings(pretext="none", evaluate=(Choice("pgd"),))
    fit(config, reporter=Silent())
    return config.runs_dir / "run"


def drawn(run: Path) -> list[str]:
    """The pictures of measurements; the others are of a stage."""
    return sorted(path.name for path in (run / "figures").iterdir() if not path.name.startswith("finetune"))


def tracked(run: Path) -> dict[str, str]:
    """Of each picture of a measurement, the stage that has it."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    pictures = [line for line in lines if line["kind"] == "artifact" and "-empty" in line["path"]]
    return {line["path"]: line["stage"] for line in pictures}


def test_pictures_of_the_runs_own_measurement_have_plain_names_and_are_the_runs(run: Path) -> None:
    assert drawn(run) == ["pgd-empty.png", "pgd-empty.svg"]
    assert tracked(run) == {"figures/pgd-empty.png": "", "figures/pgd-empty.svg": ""}


def test_those_of_another_measurement_have_its_name_and_are_its_own(run: Path) -> None:
    result = evaluate(run, RunConfig.evaluation, [Choice("pgd", {"steps": 1})], reporter=Silent())
    key = Path(result["evaluation"]["file"]).stem
    new = [f"{key}-empty.png", f"{key}-empty.svg"]
    assert drawn(run) == sorted([*new, "pgd-empty.png", "pgd-empty.svg"])
    assert {name: tracked(run)[f"figures/{name}"] for name in new} == dict.fromkeys(new, f"evaluate/{key}")


def test_what_was_not_drawn_is_not_kept_as_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(figure: object, path: Path) -> None:
        raise UsageError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("advss.evaluations.measurer.save_figure", full)
        with pytest.raises(UsageError, match="no space left"):
            evaluate(run, RunConfig.evaluation, [Choice("clean")], reporter=Silent())
    monkeypatch.setattr(Clean, "measure", lambda *arguments: pytest.fail("what was measured is measured again"))
    evaluate(run, RunConfig.evaluation, [Choice("clean")], reporter=Silent())
    assert len(drawn(run)) == 4


@pytest.mark.parametrize("gone", ["pgd-empty.png", "pgd-empty.svg"])
def test_pictures_that_are_gone_are_drawn_from_what_was_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    (run / "figures" / gone).unlink()
    monkeypatch.setattr(PGD, "measure", lambda *arguments: pytest.fail("what was measured is measured again"))
    (found,) = evaluate(run, OWN, [Choice("pgd")], device="cpu", reporter=Silent())["measured"]
    assert found["measured_before"]
    assert drawn(run) == ["pgd-empty.png", "pgd-empty.svg"]


def test_what_is_drawn_stays_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planned, "drawn", lambda *arguments: pytest.fail("it is drawn again"))
    evaluate(run, OWN, [Choice("pgd")], device="cpu", reporter=Silent())


def test_what_was_never_drawn_is_drawn_from_the_same_answers_in_their_order(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (run / "evaluations").glob("pgd-*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pictures": None}))
    given = list[Measured]()

    def noted(plan: Planned, measured: Measured) -> dict[str, Any]:
        given.append(measured)
        return {}

    monkeypatch.setattr(Planned, "drawn", noted)
    for _ in range(2):
        evaluate(run, OWN, [Choice("pgd")], device="cpu", reporter=Silent())
    (measured,) = given
    assert [*measured.answers] == ["ta", "ra", "answer", "confidence", "attacked", "attacked_confidence"]
    assert measured.label.shape == measured.index.shape == (20,)
    assert len(measured.classes) == 10
    assert json.loads(file.read_text())["pictures"] == []
