"""What a run's measurements leave in result.json and in their files, however often and by whom they are made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advss.config import Choice, EvalSettings, RunConfig
from advss.errors import UsageError
from advss.evaluations.chunks import Kept
from advss.evaluations.evaluate import evaluate
from advss.runs.classifier import restored
from advss.runs.listing import row_of
from advss.runs.session import Session
from advss.stages.fit import fit
from advss.training.reporting import Silent
from advss_evaluations.autoattack import AutoAttack

Settings = Callable[..., RunConfig]


@pytest.fixture
def run(settings: Settings) -> Path:
    """A run of 20 test images in two chunks, measured by PGD."""
    config = settings(pretext="none", defense="none")
    fit(config, reporter=Silent())
    return config.runs_dir / "run"


def measured(run: Path, *choices: Choice, **more: Any) -> dict[str, Any]:
    settings = {"steps": 2, "limit": 20, "batch_size": 10, **more}
    return evaluate(run, EvalSettings(**settings), choices, device="cpu", reporter=Silent())


def result(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "result.json").read_text())
    return content


# ---------------------------------------------------------------- which is the run's
@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack that fells every second image at once."""

    def measure(*given: Any) -> dict[str, torch.Tensor]:
        label = given[5]
        stands = torch.arange(len(label)) % 2 == 0
        flags = torch.zeros(len(label), 4, dtype=torch.bool)
        return {"ta": stands | True, "ra": stands, "felled_by": stands.long() - 1, "flags": flags}

    monkeypatch.setattr(AutoAttack, "measure_part", measure)


@pytest.mark.usefixtures("short")
def test_autoattacks_standard_version_takes_the_place_of_another_and_is_what_runs_shows(run: Path) -> None:
    measured(run, Choice("autoattack", {"version": "rand"}))
    assert row_of(run).aa is None
    measured(run, Choice("autoattack"))
    assert result(run)["evaluations"]["autoattack"]["options"]["version"] == "standard"
    assert row_of(run).aa == 0.5
    measured(run, Choice("autoattack", {"eps": 0.1}))
    assert result(run)["evaluations"]["autoattack"]["options"]["eps"] == result(run)["ra_attack"]["eps"]


# ---------------------------------------------------------------- refused before training
@pytest.mark.parametrize("pretext", ["none", "rotation"])
def test_what_cannot_be_measured_of_the_classifier_to_be_is_told_before_training(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, pretext: str
) -> None:
    monkeypatch.setattr(Session, "train", lambda *given: pytest.fail("it trains"))
    config = settings(pretext, evaluate=(Choice("pgd"), Choice("certify")))
    with pytest.raises(UsageError, match="--evaluate certify: the model was fine-tuned without noise") as refused:
        fit(config, reporter=Silent())
    assert "\n" not in str(refused.value)
    assert not (config.runs_dir / "run").exists()


def test_a_classifier_to_be_that_trains_on_noise_can_be_certified(settings: Settings) -> None:
    options = {"n0": 2, "n": 10, "limit": 2}
    config = settings("none", "smoothing", evaluate=(Choice("certify", options),))
    assert fit(config, reporter=Silent())["evaluations"]["certify"]["figures"]["sigma"] > 0


def test_the_checkpoint_is_restored_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()

    def counted(checkpoint: Any, *, what: str) -> Any:
        calls.append(what)
        return restored(checkpoint, what=what)

    monkeypatch.setattr("advss.evaluations.evaluate.restored", counted)
    measured(run, Choice("clean"), Choice("pgd"))
    assert calls == [str(run / "finetune/best.safetensors")]


# ---------------------------------------------------------------- seconds
@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a chunk takes a second."""
    monkeypatch.setattr("advss.evaluations.chunks.time", SimpleNamespace(monotonic=itertools.count().__next__))


@pytest.mark.usefixtures("ticking")
def test_seconds_of_a_resumed_measurement_are_those_of_all_processes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Kept.write

    def once(self: Kept, *given: Any) -> None:
        write(self, *given)
        raise UsageError("it ends here")

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "write", once)
        with pytest.raises(UsageError, match="it ends here"):
            measured(run, Choice("pgd"))
    assert measured(run, Choice("pgd"))["measured"][0]["seconds"] == 2


def test_the_runs_seconds_are_the_headlines_whatever_is_measured_later(run: Path) -> None:
    before = result(run)
    assert before["seconds"]["evaluate"] == json.loads((run / before["evaluation"]["file"]).read_text())["seconds"]
    measured(run, Choice("clean"), Choice("pgd"))
    evaluate(run, RunConfig.evaluation, [Choice("pgd", {"steps": 1})], device="cpu", reporter=Silent())
    assert result(run)["seconds"] == before["seconds"]


def test_seconds_stand_with_the_parts_of_a_chunk(tmp_path: Path) -> None:
    answers, first = {"a": torch.ones(2)}, Kept(tmp_path, {})
    first.write(0, 1, answers, 2.0)
    first.write(0, 2, answers, 3.0)
    again = Kept(tmp_path, {})
    assert again.read(0, 3)[0] == 2
    again.write(0, 3, answers, 4.0)
    assert again.seconds == {0: 9.0}


def test_what_another_process_kept_of_a_chunk_goes_with_it(tmp_path: Path) -> None:
    mine, others = Kept(tmp_path / "x.part", {}), Kept(tmp_path / "x.part", {})
    mine.write(0, 1, {"a": torch.ones(2)}, 1.0)
    others.write(0, 1, {"a": torch.ones(2)}, 2.0)
    mine.remove([0])
    assert not (tmp_path / "x.part").exists()
