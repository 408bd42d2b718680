"""``advss evaluate RUN...``: what is refused before anything is measured, and what is shown of several runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from advss.cli.main import main
from advss.cli.measured import columns_of, print_runs

Capture = pytest.CaptureFixture[str]


def evaluations(runs: Path) -> list[str]:
    return sorted(str(path.relative_to(runs)) for path in runs.glob("*/evaluations/*"))


def evaluate(runs: Path, *words: str) -> int:
    return main(["evaluate", *words, "--runs-dir", str(runs), "--device", "cpu"])


# ---------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a", "d"], "there is no run 'd'"),
        (["a", "pretrained"], "run {runs}/pretrained has no fine-tuned model"),
        (["a", "b", "a"], "run {runs}/a is named twice; name each run once"),
        (["a", "{runs}/a"], "run {runs}/a is named twice"),
        (["a", "b", "--evaluate", "pdg"], "unknown evaluation 'pdg'; did you mean 'pgd'?"),
        (["a", "b", "--evaluate", "none"], "--evaluate is none, so nothing is to be measured; choose from"),
        (["a", "--pgd.stepz", "3"], "unknown option --pgd.stepz of pgd; did you mean 'steps'?"),
        (["a", "b", "--evaluate", "clean", "--pgd.steps", "3"], "--pgd.steps: --evaluate does not choose it"),
        (["a", "b", "--eval-eps", "8"], "--eval-eps: must be at most 1 for linf, got 8.0: pixels are in [0, 1]"),
        (["a", "b", "--pgd.eps", "8"], "--pgd.eps must be at most 1 for linf, got 8.0: pixels are in [0, 1]"),
        (["a", "b", "--limit", "-1"], "--limit: must be at least 0, got -1"),
        (["a", "b", "--json", "--csv"], "--json and --csv are two forms of one table"),
        (["a", "--eval-valid-steps", "3"], "unknown flag --eval-valid-steps"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_measured(
    runs: Path, capsys: Capture, words: list[str], error: str
) -> None:
    shutil.copytree(runs / "a", runs / "pretrained")
    shutil.rmtree(runs / "pretrained" / "finetune")
    before = evaluations(runs)
    assert evaluate(runs, *(word.format(runs=runs) for word in words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("advss: error: ")
    assert error.format(runs=runs) in line
    assert evaluations(runs) == before


def test_a_variable_that_names_no_evaluation_is_refused(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVSS_EVALUATE", "clene")
    assert evaluate(runs, "a") == 2
    assert "unknown evaluation 'clene'; did you mean 'clean'?" in capsys.readouterr().err


def test_a_run_whose_own_evaluation_is_gone_says_so(runs: Path, capsys: Capture) -> None:
    config = runs / "a" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"evaluate": "gone"}))
    assert evaluate(runs, "a") == 2
    assert "unknown evaluation 'gone'" in capsys.readouterr().err
    assert evaluate(runs, "a", "--evaluate", "clean", "--quiet") == 0


# ---------------------------------------------------------------- shown
def test_several_runs_are_one_table_and_what_was_measured_before_a_failure_is_kept_and_shown(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    broken = runs / "c" / "config.yaml"
    broken.write_text(broken.read_text().replace("data.limit: 100", "data.limit: 90"))  # its data are others now
    assert evaluate(runs, "a", "b", "c", "--evaluate", "clean", "--limit", "30") == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[3:5]] == ["a", "b"]
    assert f"numbers     {runs}/b/evaluations/clean-" in out
    assert err.splitlines()[0] == "a: evaluate clean"
    assert err.splitlines()[-1].startswith("advss: error: ")
    assert len(list(runs.glob("[ab]/evaluations/clean-*.json"))) == 2


def test_json_and_csv_are_all_that_is_on_stdout(runs: Path, capsys: Capture) -> None:
    words = ["a", "b", "--evaluate", "pgd,clean", "--limit", "30", "--quiet"]
    assert evaluate(runs, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["run"], [m["evaluation"] for m in one["measured"]]) for one in told] == [
        ("a", ["pgd", "clean"]),
        ("b", ["pgd", "clean"]),
    ]
    assert evaluate(runs, *words, "--csv") == 0
    out, err = capsys.readouterr()
    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["low"]]  # accuracies
    assert err == ""
    assert [(row["run"], row["figure"]) for row in rows] == [(run, f) for run in "ab" for f in ("ta", "ra", "ta")]
    ra = told[0]["measured"][0]["figures"]["ra"]
    assert (float(rows[1]["value"]), float(rows[1]["low"]), rows[1]["images"]) == (
        ra["accuracy"],
        ra["interval"][0],
        "30",
    )
    assert all(row["before"] == "True" and Path(row["file"]).is_file() for row in rows)


def figure(accuracy: float, images: int = 100) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [accuracy - 0.05, accuracy + 0.04], "images": images}


def result(run: str, ra: float, **more: Any) -> tuple[str, dict[str, Any]]:
    measured = [
        {"title": "PGD-20", "figures": {"ta": figure(0.9), "ra": figure(ra), "notes": ["flat"]}, "file": "p.json"},
        {"title": "clean", "figures": {"ta": figure(0.9)}, "file": "c.json", "measured_before": True},
        *({"title": name, "figures": {"ra": figure(one)}, "file": f"{name}.json"} for name, one in more.items()),
    ]
    return run, {"folder": f"runs/{run}", "measured": measured}


def shown(*found: tuple[str, dict[str, Any]], width: int = 80) -> list[str]:
    target = io.StringIO()
    print_runs(found, Console(file=target, width=width))
    return target.getvalue().splitlines()


def test_a_row_a_run_and_a_column_an_accuracy() -> None:
    lines = shown(result("one", 0.5), result("two", 0.25))
    assert [line.split() for line in lines[:3]] == [
        ["RA"],
        ["run", "TA", "PGD-20"],
        ["(95", "%", "interval)", "100", "images", "100", "images"],
    ]
    rows = [line.split() for line in lines if line.lstrip().startswith(("one", "two"))]
    assert rows[1] == ["two", "90.00", "%", "(85.0", "to", "94.0)", "25.00", "%", "(20.0", "to", "29.0)"]


def test_ta_of_the_same_images_is_one_column_and_of_others_two() -> None:
    assert [column.name for column in columns_of([result("one", 0.5)])] == ["ta", "ra"]
    run, other = result("one", 0.5)
    other["measured"][1]["figures"]["ta"] = figure(0.8, images=300)
    assert [column.name for column in columns_of([(run, other)])] == ["ta", "ra", "ta"]


def test_notes_are_named_by_run_and_what_was_measured_before_is_said_once() -> None:
    lines = shown(result("one", 0.5), result("two", 0.25))
    assert [line for line in lines if "note" in line] == ["note: one: PGD-20: flat", "note: two: PGD-20: flat"]
    assert [line for line in lines if "before" in line] == ["measured before: clean of one, two"]


def test_intervals_stand_below_where_80_columns_have_no_room_and_no_line_is_longer() -> None:
    many = {f"attack-{n}": 0.1 for n in range(12)}
    lines = shown(result("one", 0.5, **many), result("two", 0.25, **many))
    table = [line for line in lines if not line.startswith("numbers")]
    assert max(map(len, table)) <= 80
    assert "(" not in "".join(table)
    assert sum(line.count("10.00 %") for line in table) == 24
    assert sum(line.count("5.0–14.0") for line in table) == 24


def test_four_accuracies_with_their_intervals_are_one_table_80_columns_wide() -> None:
    run, more = "selfie-pgd-full-2026", {"PGD-50 ×5 ℓ∞ 8/255": 0.1, "AutoAttack standard ℓ∞ 8/255": 0.95}
    lines = shown(result(run, 0.5, **more))
    assert [line.split() for line in lines if "%" in line][-1] == [
        run,
        "90.00",
        "%",
        "50.00",
        "%",
        "10.00",
        "%",
        "95.00",
        "%",
    ]
    assert ["85.0–94.0", "45.0–54.0", "5.0–14.0", "90.0–99.0"] in [line.split() for line in lines]


def test_measurements_of_one_title_are_two_columns_that_say_in_what_they_differ() -> None:
    run, found = result("one", 0.5)
    other = found["measured"][0] | {"options": {"step_size": 0.1}}
    found["measured"][0] |= {"options": {"step_size": 2 / 255}}
    found["measured"].append(other)
    assert [(column.title, column.words) for column in columns_of([(run, found)])] == [
        ("PGD-20, step_size 2/255", "TA"),
        ("PGD-20, step_size 2/255", "RA"),
        ("PGD-20, step_size 0.1", "RA"),
    ]


def test_figures_are_called_by_their_titles() -> None:
    run, found = result("one", 0.5)
    found["measured"][0] |= {"figures": {"eps_0.01569": figure(0.4)}, "titles": {"eps_0.01569": "RA at 4/255"}}
    assert "RA at 4/255" in [column.words for column in columns_of([(run, found)])]


def test_a_run_that_was_not_measured_so_has_a_dash() -> None:
    lines = shown(result("one", 0.5, more=0.1), result("two", 0.25), width=120)
    assert [line.split()[-1] for line in lines if line.lstrip().startswith("two")] == ["-"]
