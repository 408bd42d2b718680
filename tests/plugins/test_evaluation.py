"""An evaluation of another distribution: beside the built-in ones, when it raises, and when it is gone."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advss.cli.main import main
from advss.plugins import forget

Install = Callable[..., str]
Told = Callable[[], list[str]]
Capture = pytest.CaptureFixture[str]
GREY = """
    import torch

    from advss.hookspecs import Evaluation, hookimpl

    class Grey(Evaluation):
        "Accuracy without colour."

        name = "grey"

        def __init__(self, *, share: float = 1.0):
            self.share = share

        def title(self):
            {title}
            return "grey"

        def measure(self, model, x, label, generator):
            {measure}
            grey = x + self.share * (x.mean(1, keepdim=True) - x)
            with torch.no_grad():
                return {{"grey": model(grey).argmax(1) == label}}

        def figures(self, measured):
            {figures}
            return {{"share": self.share, "notes": ["it is grey"]}}

        def draw(self, measured):
            {draw}
            return {{}}

    @hookimpl
    def advss_evaluations():
        return [Grey]
"""
RAISES = 'raise RuntimeError("out of grey")'
TINY = shlex.split(
    "--pretext none --defense none --data.limit 60 --data.size 16 --finetune-epochs 1 --finetune-batch-size 18 "
    "--eval-steps 1 --eval-valid-steps 1 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8] "
    "--device cpu --memory-format contiguous --tracking false --quiet --name it"
)


@pytest.fixture
def fit(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Install it and train a tiny run that it measures, too; what raises is said by ``measure="..."`` and its like."""
    monkeypatch.chdir(tmp_path)

    def fit_one(*words: str, **raises: str) -> int:
        install("their-greys", GREY.format(**{"title": "", "measure": "", "figures": "", "draw": ""} | raises))
        forget()
        return main(["fit", "--evaluate", "pgd,grey", *words, *TINY])

    return fit_one


def result(folder: str = "it") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs", folder, "result.json").read_text())
    return found


def test_it_measures_beside_the_others_by_its_own_options(fit: Callable[..., int], capsys: Capture) -> None:
    assert fit("--grey.share", "0.5") == 0
    found = result()
    assert {name: one["options"] for name, one in found["evaluations"].items() if name != "pgd"} == {
        "grey": {"share": 0.5}
    }
    assert found["evaluations"]["grey"]["plugin"] == "their-greys 2.5"
    assert set(found["evaluations"]["grey"]["figures"]) == {"grey", "share", "notes"}
    assert (found["evaluation"]["evaluation"], found["status"]) == ("pgd", "finished")
    assert {"kind": "evaluation", "name": "grey", "distribution": "their-greys", "version": "2.5"} in found["plugins"]
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert "note: grey: it is grey" in shown


@pytest.mark.parametrize("method", ["measure", "figures", "draw"])
def test_what_it_raises_is_one_line_and_what_was_measured_before_stands(
    method: str, fit: Callable[..., int], told: Told, drawing: None
) -> None:
    assert fit(**{method: RAISES}) == 2
    (line,) = [line for line in told() if line.startswith("advss: error")]
    start = (
        "advss: error: --evaluate grey: the evaluation grey (their-greys 2.5) raised RuntimeError: out of grey (fake_"
    )
    assert line.startswith(start)
    assert line.endswith("; `advss plugins check grey` says whether it keeps the contract")
    found = result()
    assert found["evaluations"]["pgd"]["figures"]["ra"]["accuracy"] == found["ra"]
    assert found["status"] != "finished"


def test_one_that_cannot_say_what_it_measures_is_told_before_any_training(fit: Callable[..., int], told: Told) -> None:
    assert fit(title=RAISES) == 2
    assert not Path("runs").exists()
    assert "the evaluation grey (their-greys 2.5) raised RuntimeError: out of grey (fake_plugin_" in told()[-1]


def test_a_run_that_it_broke_is_finished_without_it(fit: Callable[..., int], told: Told) -> None:
    assert fit(measure=RAISES) == 2
    before = result()
    assert main(["fit", "--resume", "it", "--evaluate", "clean,pgd", "--quiet"]) == 0
    found = result()
    assert (found["status"], found["ra"], found["best_metrics"]) == ("finished", before["ra"], before["best_metrics"])
    assert set(found["evaluations"]) == {"clean", "pgd"}
    assert [next(iter(one)) for one in yaml.safe_load(Path("runs/it/config.yaml").read_text())["evaluate"]] == [
        "clean",
        "pgd",
    ]
    told()
    assert main(["fit", "--resume", "it", "--evaluate", "pgd"]) == 2
    assert told() == ["advss: error: --evaluate: run it is finished; `advss evaluate it` measures it"]


def test_where_it_is_gone_the_others_measure_and_its_distribution_is_named(
    fit: Callable[..., int], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit() == 0
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "fake_plugin" not in place])
    forget()
    told()
    needs = "needs the evaluation 'grey' of their-greys 2.5, which is not installed; pip install their-greys==2.5"
    for words in (["evaluate", "it"], ["evaluate", "it", "--evaluate", "pgd,grey"], ["finetune", "--from", "it"]):
        assert main(words) == 2
        assert told() == [f"advss: error: run runs/it {needs}"]
    assert main(["evaluate", "it", "--evaluate", "clean", "--quiet"]) == 0
    assert set(result()["evaluations"]) == {"pgd", "grey", "clean"}
