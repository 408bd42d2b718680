"""``advss runs`` and what stands below it: what is printed, in which form, and what is asked before anything goes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from advss.cli.main import main
from advss.cli.run_rows import in_bytes
from advss.cli.runs import print_table
from advss.runs.listing import listed
from advss.runs.lock import locked

Stored = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADVSS_RUNS_DIR", raising=False)
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def three(stored: Stored) -> Path:
    """Runs of RA .4, .5 and none, the last one interrupted."""
    stored("low")
    threat = {"norm": "linf", "eps": 0.03}
    autoattack = {"options": {"version": "standard", **threat}, "figures": {"ra": {"accuracy": 0.3, "images": 20}}}
    attack = {"evaluation": "pgd", "title": "PGD", **threat}
    stored("high", ra=0.5, ra_images=360, ra_attack=attack, evaluations={"autoattack": autoattack})
    return stored("broken-off", status="running", ra=None, ta=None, defense="none").parent


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Types an answer at a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text))


# ---------------------------------------------------------------- the list
@pytest.mark.usefixtures("three")
def test_a_line_a_run_where_nothing_folds(capsys: Capture) -> None:
    assert main(["runs", "--sort", "ra"]) == 0
    heading, high, low, broken = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "name"
    choices = ["high", "rotation", "pgd", "full", "digits"]
    assert high.split()[:11] == [*choices, "90.00", "50.00", "30.00", "of", "20", "finished"]
    assert low.split()[:9] == ["low", "rotation", "pgd", "full", "digits", "90.00", "40.00", "-", "finished"]
    assert broken.split()[:9] == ["broken-off", "rotation", "none/pgd", "full", "digits", *"---", "interrupted"]


@pytest.mark.usefixtures("three")
def test_filters_and_limit(capsys: Capture) -> None:
    line = ["--pretext", "rotation", "--defense", "pgd", "--data", "digits", "--state", "finished", "--name", "*o*"]
    assert main(["runs", *line, "--finetune", "full"]) == 0
    assert [one.split()[0] for one in capsys.readouterr().out.splitlines()] == ["name", "low"]
    assert main(["runs", "--limit", "1", "--sort=-name"]) == 0
    assert [one.split()[0] for one in capsys.readouterr().out.splitlines()] == ["name", "low"]


@pytest.mark.usefixtures("three")
def test_json_has_numbers(capsys: Capture) -> None:
    assert main(["runs", "--json", "--sort", "name"]) == 0
    broken, high, _ = json.loads(capsys.readouterr().out)
    assert (high["ta"], high["aa"], high["tasks"], high["date"]) == (
        0.9,
        0.3,
        ["rotation"],
        "2023-11-14T22:13:20+00:00",
    )
    assert (broken["ra"], broken["defense"], broken["state"]) == (None, ["none", "pgd"], "interrupted")


@pytest.mark.usefixtures("three")
def test_csv_has_a_column_each(capsys: Capture) -> None:
    assert main(["runs", "--csv", "--sort", "name"]) == 0
    broken, high, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (high["ra"], high["aa"], high["folder"]) == ("0.5", "0.3", "runs/high")
    assert (high["ra_images"], high["aa_images"]) == ("360", "20")
    assert (broken["ra"], broken["defense"]) == ("", "none+pgd")


def test_a_narrow_terminal_has_two_lines_a_run_and_loses_nothing(stored: Stored, tmp_path: Path) -> None:
    name = "a-name-" * 8
    stored(name)
    outs = {}
    for width in (80, 160):
        target = io.StringIO()
        console = Console(file=target, width=width, force_terminal=True, color_system=None, markup=False)
        print_table(listed(tmp_path / "runs"), console)
        outs[width] = target.getvalue().splitlines()
    assert len(outs[160]) == 2
    assert len(outs[80]) == 4
    assert max(map(len, outs[80])) <= 80
    for word in (name, "rotation", "pgd", "full", "digits", "90.00", "40.00", "finished", "2023-11-14"):
        assert word in " ".join(outs[80])
        assert word in outs[160][1]


def test_a_folder_without_runs_is_told(capsys: Capture, stored: Stored) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "there are no runs in the folder runs\n"
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    stored("one")
    assert main(["runs", "--data", "cifar10"]) == 0
    assert capsys.readouterr().out == "none of the 1 runs in runs has --data cifar10\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--sort", "rs"], "--sort: there is no 'rs'"),
        (["--state", "finishd"], "--state: there is no 'finishd'; did you mean 'finished'?"),
        (["--limit", "none"], "--limit: expected a number of runs above 0, got 'none'"),
        (["--runs-dir", "nowhere"], "--runs-dir: there is no folder nowhere"),
        (["--json", "--csv"], "--json and --csv are two forms of one list; choose one"),
        (["shwo"], "unknown command 'runs shwo'; did you mean 'show'?"),
        (["show"], "`advss runs show` needs RUN"),
        (["remove"], "`advss runs remove` needs RUN..."),
        (["show", "nothing"], "there is no run 'nothing' in runs"),
    ],
)
def test_bad_input_is_one_line(line: list[str], said: str, capsys: Capture) -> None:
    assert main(["runs", *line]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_neither_torch_nor_a_plugin_is_loaded(stored: Stored, tmp_path: Path) -> None:
    stored("one")
    (tmp_path / "guard/torch").mkdir(parents=True)
    (tmp_path / "guard/torch/__init__.py").write_text("raise SystemExit('torch is imported')")
    path = os.pathsep.join([str(tmp_path / "guard"), os.environ.get("PYTHONPATH", "")])
    for line in (["runs"], ["runs", "show", "one"], ["runs", "remove", "one", "--yes"]):
        program = [sys.executable, "-m", "advss.cli.main", *line]
        done = subprocess.run(
            program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (2100, "2.1 kB"), (123_400_000, "123 MB")])
def test_sizes(size: int, text: str) -> None:
    assert in_bytes(size) == text


# ---------------------------------------------------------------- one run
def test_all_that_is_known_of_a_run_is_shown(stored: Stored, capsys: Capture) -> None:
    attack = {"evaluation": "pgd", "title": "PGD-20 ℓ∞ 8/255"}
    folder = stored("one", ra_attack=attack, ra_images=40)
    (folder / "evaluations").mkdir()
    figures = {"ta": {"accuracy": 0.8}, "ra": {"accuracy": 0.25, "interval": [0.2, 0.31]}, "curve": [1, 2]}
    (folder / "evaluations/square-1.json").write_text(json.dumps({"title": "Square ℓ∞", "figures": figures}))
    (folder / "evaluations/torn-1.json").write_text("{")
    assert main(["runs", "show", "one"]) == 0
    out = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "run one",
        "state finished, begun 2023-11-14 22:13 by `advss fit`",
        "pretrain 5 2 7",
        "finetune 4 3 6",
        "TA 90.00 %, RA 40.00 % (PGD-20 ℓ∞ 8/255, 40 images)",
        "Square ℓ∞",
        "TA 80.00 %, RA 25.00 % (20.0 to 31.0)",
        "evaluations/square-1.json",
        "no figures can be read",
        "evaluations/torn-1.json",
        "next advss evaluate runs/one",
    ):
        assert line in out
    assert any(line.startswith("data digits: 40 to train on, 40 to test; 2 classes; sha256 ") for line in out)
    assert any(line.startswith("finetune/best.safetensors") for line in out)


def test_measurements_say_how_many_images_what_tells_them_apart_and_their_pictures(
    stored: Stored, capsys: Capture
) -> None:
    folder = stored("one")
    (folder / "evaluations").mkdir()
    (folder / "figures").mkdir()
    (folder / "figures/gallery-examples.png").write_bytes(b"")
    known = {"title": "PGD-20 ℓ∞ 8/255", "images": {"count": 40, "chunk": 64}, "seed": 0}
    share = {"accuracy": 0.8, "interval": [0.7, 0.9], "images": 40}
    summed = {"ta": share, "eps_0.1": share, "summary": "TA 80.00 %, RA at 0.1 20.00 %", "notes": ["RA is still high"]}
    for name, content in (
        ("a-1", {"options": {"eps": 8 / 255, "step_size": 2 / 255}, "figures": {"ta": share}}),
        ("a-2", {"options": {"eps": 8 / 255, "step_size": 0.1}, "figures": {"ta": share}}),
        ("b-1", {"title": "curve", "figures": summed}),
        ("g-1", {"title": "gallery", "figures": {}, "pictures": ["figures/gallery-examples.png", "figures/gone.png"]}),
    ):
        (folder / f"evaluations/{name}.json").write_text(json.dumps(known | content))
    assert main(["runs", "show", "one"]) == 0
    out = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert out[out.index("measured") + 1 : out.index("files") - 1] == [
        "PGD-20 ℓ∞ 8/255, 40 images, step_size 2/255",
        "TA 80.00 % (70.0 to 90.0)",
        "evaluations/a-1.json",
        "PGD-20 ℓ∞ 8/255, 40 images, step_size 0.1",
        "TA 80.00 % (70.0 to 90.0)",
        "evaluations/a-2.json",
        "curve, 40 images",
        "TA 80.00 %, RA at 0.1 20.00 %",
        "note: RA is still high",
        "evaluations/b-1.json",
        "gallery, 40 images",
        "evaluations/g-1.json, figures/gallery-examples.png",
    ]


def test_what_goes_on_with_a_run_is_named(stored: Stored, capsys: Capture) -> None:
    for name, said, wanted in (
        ("a", {"status": "running"}, "advss fit --resume runs/a"),
        ("b", {"command": "pretrain"}, "advss finetune --from runs/b"),
        ("c", {"status": "running", "diverged": "gone"}, ""),
    ):
        stored(name, **said)
        assert main(["runs", "show", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["next"] == wanted


def test_an_unfinished_stage_is_as_far_as_its_last_checkpoint(stored: Stored, capsys: Capture) -> None:
    folder = stored("one", status="running", epochs={}, best_epochs={}, seconds={})
    (folder / "pretrain/last.json").write_text('{"progress": {"epoch": 6, "best_epoch": 1, "seconds": 15.6}}')
    assert main(["runs", "show", "one", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["stages"]
    assert found == {"pretrain": {"epochs": 6, "best_epoch": 1, "seconds": 15.6}}


@pytest.mark.parametrize("content", ["{", "[]", '{"ta": []}'])
def test_a_damaged_run_is_shown(content: str, stored: Stored, capsys: Capture) -> None:
    (stored("one") / "result.json").write_text(content)
    assert main(["runs", "show", "one"]) == 0
    out = capsys.readouterr().out
    assert "damaged" in out
    assert "problem     runs/one/result.json is " in out


# ---------------------------------------------------------------- removing and pruning
@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(("command", "gone"), [("remove", "low"), ("prune", "low/finetune/last.safetensors")])
def test_nothing_goes_unless_it_is_agreed(
    command: str, gone: str, capsys: Capture, answer: Callable[[str], None]
) -> None:
    path = Path("runs") / gone
    assert main(["runs", command, "low"]) == 2
    said = capsys.readouterr()
    assert "nothing is removed: there is no terminal to ask at; --yes does without asking" in said.err
    assert said.out.startswith("runs/low")
    for text in ("n\n", "\n", ""):
        answer(text)
        assert main(["runs", command, "low"]) == 1
        assert "[y/N] nothing is removed" in capsys.readouterr().out
        assert path.exists()
    answer("y\n")
    assert main(["runs", command, "low"]) == 0
    assert not path.exists()


def test_several_runs_go_and_who_has_them_is_told(stored: Stored, three: Path, capsys: Capture) -> None:
    stored("tuned", source=str(three / "low/pretrain/best.safetensors"))
    sent = {"uri": "sqlite:///mlflow.db", "experiment_id": "1", "runs": {}, "offset": 0}
    (three / "high/mlflow.json").write_text(json.dumps(sent))
    assert main(["runs", "remove", "low", "runs/high", "low", "--yes"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "note: low: tuned starts from it" in out
    assert "note: high: MLflow keeps what it was sent, in sqlite:///mlflow.db" in out
    assert out[-2:] == ["removed runs/low", "removed runs/high"]
    assert sorted(path.name for path in three.iterdir()) == ["broken-off", "tuned"]


def test_pruning_all_leaves_those_in_use_and_says_so(three: Path, capsys: Capture) -> None:
    with locked(three / "low"):
        assert main(["runs", "prune", "--yes"]) == 0
        assert main(["runs", "prune", "low", "--yes"]) == 2
    said = capsys.readouterr()
    assert "run runs/low is in use by process" in said.err
    assert [line.split(",")[0] for line in said.out.splitlines() if "pruned" in line] == ["pruned runs/high"]
    assert (three / "low/finetune/last.safetensors").exists()
    assert (three / "broken-off/finetune/last.safetensors").exists()


def test_damaged_runs_and_comparisons_are_removed(three: Path) -> None:
    (three / "low/result.json").write_text("{")
    (three / "compared").mkdir()
    (three / "compared/transfer.json").write_text('{"models": ["high"], "images": {"data": "digits"}}')
    assert main(["runs", "remove", "low", "compared", "--yes"]) == 0
    assert sorted(path.name for path in three.iterdir()) == ["broken-off", "high"]


def test_a_removal_that_was_broken_off_is_finished(three: Path, capsys: Capture) -> None:
    (three / "low").rename(three / ".low.7.removed")
    assert main(["runs", "prune", "--yes"]) == 0
    assert "runs/.low.7.removed, what is left of a run whose removal was broken off" in capsys.readouterr().out
    assert sorted(path.name for path in three.iterdir()) == ["broken-off", "high"]
    assert main(["runs", "prune"]) == 0
    assert capsys.readouterr().out == "there is nothing that could be removed\n"
