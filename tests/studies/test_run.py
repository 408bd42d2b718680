"""A study run, its jobs in this process: sharing, extending, failing, stopping, moving."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import advss
from advss.errors import UsageError
from advss.runs.lock import held, locked
from advss.studies.folder import StudyFolder
from advss.studies.run import launch
from advss.studies.work import stage_config, work
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted


def states(folder: StudyFolder) -> list[str]:
    return [state for state, _ in StudyFolder(folder.path).states().values()]


def test_a_study_is_done_when_all_is_trained_measured_averaged_and_compared(finished: StudyFolder) -> None:
    assert states(finished) == ["done"] * 6
    results = [finished.run(cell["run"]).read_result() for cell in finished.content["cells"]]
    assert all(result["ra_images"] == 20 for result in results)
    (joint,) = finished.content["ensembles"]
    assert finished.run(joint["run"]).read_result()["ra_images"] == 20
    assert (finished.run(finished.content["transfers"][0]["run"]).path / "transfer.json").is_file()


def test_run_again_it_does_nothing_and_extended_what_is_added_alone(
    finished: StudyFolder, made: Any, written: Any, inline: Any, told_of: Any
) -> None:
    launcher = inline()
    launch(finished, launcher, view=told_of.of)
    assert launcher.done == []
    more = made({"evaluate": ["pgd", "clean"]}, seeds=2)
    folder = written(more)
    launch(folder, launcher, view=told_of.of)
    assert states(folder) == ["done"] * 8
    again = [run for run in finished.stages if run in launcher.done]
    assert [finished.stages[run]["kind"] for run in again] == ["finetune"] * 3  # of these the second evaluation
    for run in again:
        assert {*folder.run(run).read_result()["evaluations"]} >= {"pgd", "clean"}


def test_its_cells_are_what_fit_makes(finished: StudyFolder, tmp_path: Path) -> None:
    cell = finished.content["cells"][2]
    config = stage_config(finished, cell["run"])
    fit = advss.fit(config=str(finished.job(cell["run"]) / "config.yaml"), runs_dir=str(tmp_path / "fits"), name="fit")
    folder = finished.run(cell["run"])
    assert config.pretext[0].name == "rotation"
    assert (fit["ta"], fit["ra"]) == tuple(folder.read_result()[key] for key in ("ta", "ra"))
    ours, theirs = (
        load_checkpoint(path / "finetune" / "best.safetensors").tensors
        for path in (folder.path, tmp_path / "fits" / "fit")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_failed_stage_stops_nobody_but_those_that_need_it(made: Any, written: Any, inline: Any, told_of: Any) -> None:
    folder = written(made())
    launcher = inline(lambda job: job.name.startswith("rotation-pgd-s0"))
    launch(folder, launcher, view=told_of.of)
    (folder.job(launcher.done[1]) / "failed.txt").write_text("ValueError: broken\n")
    found = StudyFolder(folder.path).states()
    assert [state for state, _ in found.values()] == ["done", "failed", "not run", "not run"]
    assert found[launcher.done[1]] == ("failed", "ValueError: broken")
    assert len(launcher.done) == 2
    launch(folder, inline(), view=told_of.of)
    assert states(folder) == ["done"] * 4


def test_a_failed_stage_is_tried_again_as_often_as_asked(made: Any, written: Any, inline: Any, told_of: Any) -> None:
    folder, tries = written(made(rows={"a": {"pretext": "none"}})), list[str]()

    def breaks(job: Any) -> bool:
        tries.append(job.name)
        return len(tries) < 3

    launch(folder, inline(breaks), retry=2, view=told_of.of)
    assert states(folder) == ["done"]
    assert len(tries) == 3
    assert [line for line in told_of.lines if "trying again" in line] == ["1 failed; trying again"] * 2


def test_what_failed_before_is_forgotten_when_it_is_tried_again(
    made: Any, written: Any, inline: Any, told_of: Any
) -> None:
    folder = written(made(rows={"P1 F4": {"pretext": "none", "defense": {"pgd": {"steps": 1}}}}))
    (run,) = folder.stages
    (folder.job(run) / "failed.txt").write_text("of an earlier try\n")
    assert folder.failed
    launch(folder, inline(breaks=lambda job: True), view=told_of.of)  # killed: it leaves no line of its own
    assert states(folder) == ["waiting"]
    assert "of an earlier try" not in " ".join(told_of.lines)


def test_what_fails_in_a_job_leaves_its_line(made: Any, written: Any) -> None:
    folder = written(made(rows={"a": {"pretext": "none"}}))
    (run,) = folder.stages
    config = folder.job(run) / "config.yaml"
    config.write_text(config.read_text().replace("finetune-batch-size: 32", "finetune-batch-size: 3200"))
    with pytest.raises(UsageError, match="fewer than a batch of 3200"):
        work(folder, run, reporter=Silent())
    assert "fewer than a batch of 3200" in StudyFolder(folder.path).failure(run)
    assert StudyFolder(folder.path).states()[run][0] == "failed"


def test_a_stopped_stage_goes_on_in_mid_epoch_to_the_same_weights(made: Any, written: Any, stopper: Any) -> None:
    folder = written(made(rows={"a": {"pretext": "none"}}))
    (run,) = folder.stages
    with pytest.raises(Interrupted):
        work(folder, run, reporter=stopper("finetune", "step", 1))
    assert StudyFolder(folder.path).states()[run][0] == "stopped"
    assert StudyFolder(folder.path).failure(run) == ""
    work(folder, run, reporter=Silent())
    stopped = load_checkpoint(folder.run(run).best("finetune")).tensors
    shutil.rmtree(folder.run(run).path)
    work(folder, run, reporter=Silent())
    whole = load_checkpoint(folder.run(run).best("finetune")).tensors
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_what_was_measured_and_is_gone_is_measured_again(finished: StudyFolder, inline: Any, told_of: Any) -> None:
    run = finished.content["cells"][0]["run"]
    (file,) = (finished.run(run).path / "evaluations").glob("pgd-*.json")
    file.unlink()
    launcher = inline()
    launch(StudyFolder(finished.path), launcher, view=told_of.of)
    assert launcher.done == [run]
    assert file.is_file()
    assert states(finished) == ["done"] * 6


def test_a_folder_that_was_killed_before_it_held_anything_is_begun_again(made: Any, written: Any) -> None:
    folder = written(made(rows={"a": {"pretext": "none"}}))
    (run,) = folder.stages
    (folder.run(run).path / "finetune").mkdir(parents=True)
    work(folder, run, reporter=Silent())
    assert states(folder) == ["done"]


def test_a_study_survives_being_moved(finished: StudyFolder, tmp_path: Path, inline: Any, told_of: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("studies", "runs"):
        shutil.move(str(tmp_path / name), elsewhere / name)
    moved = StudyFolder(elsewhere / "studies" / "s")
    assert states(moved) == ["done"] * 6
    content = json.loads(moved.cells.read_text())
    (average,) = [run for run, stage in content["stages"].items() if stage["kind"] == "ensemble"]
    shutil.rmtree(moved.run(average).path)
    launch(StudyFolder(moved.path), inline(), view=told_of.of)
    assert states(moved) == ["done"] * 6


def test_a_stage_that_somebody_works_on_is_running(made: Any, written: Any) -> None:
    folder = written(made(rows={"a": {"pretext": "none"}}))
    (run,) = folder.stages
    with locked(folder.job(run)):
        assert StudyFolder(folder.path).states()[run][0] == "running"
    assert StudyFolder(folder.path).states()[run][0] == "waiting"


def test_a_study_that_somebody_runs_is_not_run_twice(
    finished: StudyFolder, inline: Any, told_of: Any, until: Callable[..., Any]
) -> None:
    holds = "import sys, time, pathlib, advss.runs.lock as l\nwith l.locked(pathlib.Path(sys.argv[1])): time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", holds, str(finished.path)])
    try:
        until(lambda: held(finished.path))
        with pytest.raises(UsageError, match=rf"study .*s is in use by process {other.pid} on .*; wait until it has"):
            launch(finished, inline(), view=told_of.of)
    finally:
        other.kill()
        other.wait()
    launch(finished, inline(), view=told_of.of)


def test_a_signal_ends_the_study_and_is_raised(made: Any, written: Any, inline: Any, told_of: Any) -> None:
    folder = written(made())

    def stops(job: Any) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    launcher = inline(stops)
    with pytest.raises(Interrupted):
        launch(folder, launcher, view=told_of.of)
    assert len(launcher.done) == 1


def test_what_the_plan_decides_stands_in_the_study_for_all_runs_to_come(made: Any, written: Any) -> None:
    folder = written(made({"precision": "auto", "memory-format": "auto"}, rows={"a": {"pretext": "none"}}))
    decided = folder.definition.read_text()
    (run,) = folder.stages
    config = stage_config(folder, run)
    assert config.precision == "float32"
    assert config.memory_format in ("contiguous", "channels_last")
    assert f"memory-format: {config.memory_format}" in decided
