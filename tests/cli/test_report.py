"""``advss report``: of a study and of runs, what is printed, errors, and MLflow's artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from advss.cli.main import main

STUDY = {
    "description": "Two rows.",
    "rows": {"A": {"pretext": "none"}, "B": {"pretext": "selfie"}},
    "published": {"source": "a paper", "rows": {"A": {"ra": 40.0}, "B": {"ra": 60.0}}},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_run(name: str, right: int) -> None:
    """A finished run of which ``right`` of 20 images are right under attack."""
    import hashlib

    folder = Path("runs", name)
    (folder / "evaluations").mkdir(parents=True)
    (folder / "finetune").mkdir()
    for ending in ("json", "safetensors"):
        (folder / "finetune" / f"best.{ending}").write_text("{}")
    (folder / "config.yaml").write_text(f"pretext: none\nfinetune-lr: {right}\n")
    ra = np.arange(20) < right
    data = save({"ra": ra, "index": np.arange(20), "label": np.zeros(20, np.int64)})
    file = "evaluations/pgd-0.json"
    (folder / file).with_suffix(".safetensors").write_bytes(data)
    content = {"evaluation": "pgd", "title": "PGD", "options": {}, "checkpoint": "c"}
    content |= {"images": {"data": "d", "count": 20}, "answers_sha256": hashlib.sha256(data).hexdigest()}
    content |= {"figures": {"ra": {"accuracy": float(ra.mean()), "interval": [0, 1], "images": 20}}}
    (folder / file).write_text(json.dumps(content))
    one = {**content, "file": file}
    result = {"name": name, "status": "finished", "command": "fit", "seed": 0, "evaluation": one}
    (folder / "result.json").write_text(json.dumps(result | {"evaluations": {"pgd": one}, "studied": {"m": [file]}}))


@pytest.fixture
def study() -> Path:
    """studies/s of two rows, of which A is done and B waits."""
    folder = Path("studies/s")
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    cells = [
        {"label": label, "values": {"row": label}, "seed": 0, "pretraining": None, "run": run, "measures": "m"}
        for label, run in (("A", "a"), ("B", "b"))
    ]
    cost = {"passes": 1500, "seconds": 3.0}
    stages: dict[str, Any] = {
        run: {"kind": "finetune", "label": run, "seed": 0, "after": [], "measures": {"m": {}}, "cost": cost}
        for run in ("a", "b")
    }
    content = {"study": "s", "runs_dir": "../../runs", "cells": cells, "stages": stages}
    (folder / "cells.json").write_text(json.dumps(content | {"ensembles": [], "transfers": []}))
    write_run("a", 5)
    return folder


def test_an_unfinished_study_has_a_report(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "s", "--tracking", "false"]) == 0
    assert "studies/s/report.html" in capsys.readouterr().out
    text = (study / "report.md").read_text()
    assert "Two rows." in text
    assert "| A | done | 1 of 1 | 25.00 | – |" in text
    assert "| B | waiting | 0 of 1 | – | – | – |" in text
    assert "1,500" in text
    assert "not compared: not measured" in text


def test_a_study_that_is_done_is_held_against_the_paper(study: Path) -> None:
    write_run("b", 15)
    assert main(["report", "s", "--tracking", "false"]) == 0
    text = (study / "report.md").read_text()
    assert "RA: of 1 pair of rows that the paper has in an order, ours agree in 1, disagree in 0" in text
    assert "| B | above | +50.00 |" in text


def test_runs_have_a_report_where_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write_run("a", 5)
    write_run("b", 15)
    assert main(["report", "a", "runs/b", "--out", "out", "--against", "b", "--tracking", "false"]) == 0
    assert "| a | below | −50.00 |" in Path("out/report.md").read_text()
    assert sorted(path.name for path in Path("out/figures").iterdir())[:2] == ["accuracies.pdf", "accuracies.svg"]


def test_mlflow_gets_the_files(study: Path) -> None:
    assert main(["report", "s"]) == 0
    assert main(["sync", "studies/s"]) == 0  # a new store takes longer than the report waits
    kept = {path.name for path in Path("mlartifacts").rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "report.csv", "report.tex", "accuracies.pdf"} <= kept


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["t"], "there is no study 't' in studies, and no run 't' in runs"),
        (["a", "x"], "there is no run 'x' in runs"),
        (["a", "runs/a"], "run runs/a is named twice"),
        (["s", "--against", "C"], "--against: there is no row 'C'"),
        (["s", "--within", "lr"], "--within: no row has a 'lr'"),
        ([], "`advss report` needs STUDY|RUN..."),
    ],
)
def test_bad_input_is_one_line_and_2(
    line: list[str], said: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *line]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]
    assert not (study / "report.html").exists()


def test_a_study_of_which_nothing_is_measured_has_none(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/a/result.json").unlink()
    assert main(["report", "s"]) == 2
    assert "nothing of s is measured yet (1 stopped, 1 waiting)" in capsys.readouterr().err
