"""``advss study``: what a line asks for, what is printed, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from advss.cli.main import main
from advss.cli.study_shown import Left
from advss.studies.folder import StudyFolder
from advss.training.signals import Interrupted

TINY: list[str] = [
    *["--config", "digits", "--data", "digits", "--data.limit", "80", "--backbone", "resnet18"],
    *["--backbone.layers", "[1,1,1,1]", "--backbone.channels", "[8,8,8,8]", "--finetune-epochs", "1"],
    *["--finetune-batch-size", "32", "--pretext", "none", "--eval-limit", "20", "--eval-valid-steps", "1"],
    *["--eval-steps", "1", "--evaluate", "pgd", "--tracking", "false", "--device", "cpu"],
    *["--memory-format", "contiguous"],
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_grid_of_the_line_runs_and_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = ["study", "run", *TINY, "--name", "s", "--vary", "defense=none,pgd", "--set", "defense.steps=1", "--quiet"]
    line[line.index("--set") + 1] = "finetune-lr=0.01"
    assert main([*line, "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "none" in out
    assert out.count("1 of 1") == 2
    folder = StudyFolder(Path("studies/s"))
    assert [state for state, _ in folder.states().values()] == ["done", "done"]
    assert all((folder.job(run) / "log.txt").stat().st_size for run in folder.stages)
    assert yaml.safe_load(folder.definition.read_text())["fixed"]["finetune-lr"] == 0.01
    assert main(["study", "status", "s"]) == 0
    assert capsys.readouterr().out.count("done") == 2
    assert main(["study", "run", "s", "--quiet"]) == 0


def test_a_plan_runs_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", *TINY, "--name", "s", "--vary", "defense=none,pgd", "--seeds", "2", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "2 settings, 4 cells; 4 trainings in place of 4 by separate fits" in out
    assert "passes, about" in out
    assert not Path("studies").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "a study is needed: a file, a name, or what varies"),
        (["paper-table33"], "there is no study 'paper-table33'; did you mean 'paper-table3'"),
        (["--vary", "defense"], "--vary: expected KEY=A,B"),
        (["--vary", "defense=pgd", "--vary", "defense=none"], "--vary: defense stands twice; write all its values in"),
        (["--vary", "defense=pgdd"], "unknown defense 'pgdd'"),
        (["--vary", "defense=pgd", "--seeds", "0"], "--seeds: expected how many"),
        (["--vary", "defense=pgd", "--launcher", "locall"], "unknown launcher 'locall'; did you mean 'local'"),
        (["--vary", "defense=pgd", "--launcher.job", "2"], "--launcher.job"),
        (["--vary", "defense=pgd", "--jobs", "0"], "--jobs: expected at least 1, got 0"),
        (["--vary", "defense=pgd", "--retry", "x"], "--retry: expected how often"),
        (["--vary", "defense=pgd", "--name", "../s"], "'../s' is no run name"),
        (["--vary", "defense=pgd", "--versions", "old"], "--versions: expected keep or new"),
    ],
)
def test_bad_input_is_one_line_and_2(line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", *TINY, *line] if line else ["study", "run"]) == 2
    errors = [one for one in capsys.readouterr().err.splitlines() if one.startswith("advss: error")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not Path("studies").exists()


def test_a_study_that_is_not_there_has_no_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "status", "s"]) == 2
    assert "there is no study 's' in studies" in capsys.readouterr().err


def test_a_study_that_is_not_done_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a job was killed, which is no failure of its own."""
    monkeypatch.setattr("advss.studies.run.launch", lambda *args, **said: None)
    assert main(["study", "run", *TINY, "--name", "s", "--vary", "defense=none", "--quiet"]) == 1


def test_a_job_that_is_stopped_says_how_the_study_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **said: object) -> None:
        raise Interrupted(15)

    assert main(["study", "run", *TINY, "--name", "s", "--vary", "defense=none", "--launcher", "print", "--quiet"]) == 0
    (run,) = StudyFolder(Path("studies/s")).stages
    monkeypatch.setattr("advss.studies.work.work", stopped)
    assert main(["study", "job", "s", run]) == 143
    assert capsys.readouterr().err.endswith("; the same command goes on, or: advss study run studies/s\n")


def test_what_other_versions_made_is_asked_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["study", "run", *TINY, "--name", "s", "--vary", "defense=none", "--quiet"]
    assert main(line) == 0
    (run,) = StudyFolder(Path("studies/s")).stages
    Path("runs", run).rename(Path("runs", f"{run[:-4]}0000"))
    assert main(line) == 2
    assert "1 stages were made by other versions of plugins" in capsys.readouterr().err
    assert main([*line, "--versions", "keep"]) == 0
    assert [*json.loads(Path("studies/s/cells.json").read_text())["stages"]] == [f"{run[:-4]}0000"]
    assert main(line) == 0
    assert [path.name for path in Path("runs").iterdir()] == [f"{run[:-4]}0000"]


def test_python_runs_a_study_and_gets_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import advss

    fixed: dict[str, Any] = {
        "config": "digits",
        "data_limit": 80,
        "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        "finetune_epochs": 1,
        "finetune_batch_size": 32,
        "pretext": "none",
        "eval_limit": 20,
        "eval_steps": 1,
        "evaluate": "pgd",
        "tracking": False,
        "device": "cpu",
        "memory_format": "contiguous",
    }
    found = advss.study(fixed=fixed, vary={"defense": ["none"]}, seeds=[3], name="s")
    assert found.columns[:3].tolist() == ["cell", "defense", "seed"]
    assert found.loc[0, ["cell", "seed", "state", "ra_images"]].tolist() == ["none", 3, "done", 20]


def test_the_time_left_follows_how_fast_stages_have_been_done() -> None:
    now = [100.0]
    left = Left({"a": 10.0, "b": 30.0, "c": 20.0}, clock=lambda: now[0])
    assert left.seconds(["b", "c"]) == 50  # a was done before: as the plan has it
    now[0] += 60  # b took twice its 30 seconds
    assert left.seconds(["c"]) == 40
    assert left.seconds([]) == 0
