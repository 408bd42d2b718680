"""A run whose process was killed for good ends in MLflow by ``advss sync``, and goes on where it is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from advss.cli.main import main
from advss.runs.session import followed
from advss.tracking.journal import NAME, Journal, read_records, unfinished
from advss.tracking.sync import sync

Runs = Callable[[], dict[str, Any]]
Capture = pytest.CaptureFixture[str]

LIVING = """
import os, sys, time
from pathlib import Path
from advss.runs.attended import attended
from advss.tracking.tracker import Tracker
folder, what, stage, forks = sys.argv[1:]
with attended(Path(folder)):
    tracker = Tracker(Path(folder), name=Path(folder).name, what=what, enabled=False)
    tracker.start_stage(stage)
    tracker.metrics(stage, 1, {"loss": 1.0})
    if forks == "forks" and not os.fork():
        time.sleep(60)
        os._exit(0)
    print("begun", flush=True)
    input()
"""


@contextmanager
def living(folder: Path, what: str = "run", stage: str = "pretrain", *, forks: bool = False) -> Iterator[int]:
    """A process that writes a run's journal; killed in the end, and its child where it has one later."""
    command = [sys.executable, "-c", LIVING, str(folder), what, stage, "forks" if forks else ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def kill(folder: Path, what: str = "run", stage: str = "pretrain") -> None:
    folder.mkdir(exist_ok=True)
    with living(folder, what, stage):
        pass


def statuses(runs: Runs) -> dict[str, str]:
    return {name: run.info.status for name, run in runs().items()}


def test_a_killed_run_ends_with_its_stages_when_it_was_last_heard_of(folder: Path, runs: Runs, capsys: Capture) -> None:
    kill(folder)
    sync(folder)
    assert statuses(runs) == {"sample": "RUNNING", "pretrain": "RUNNING"}
    last = [record.time for record in read_records(folder / NAME)][-1]
    time.sleep(0.01)
    assert main(["sync", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 1 records sent to MLflow; it was killed, as MLflow now says, too\n"
    assert statuses(runs) == {"sample": "KILLED", "pretrain": "KILLED"}
    assert {run.info.end_time for run in runs().values()} == {round(last * 1000)}


def test_a_killed_run_that_goes_on_runs_again_and_ends_as_it_ends(folder: Path, runs: Runs) -> None:
    kill(folder)
    main(["sync", str(folder)])
    with followed(folder, tracking=False) as (tracker, _):
        tracker.start_stage("pretrain")
        sync(folder)
        assert statuses(runs) == {"sample": "RUNNING", "pretrain": "RUNNING"}
        tracker.end_stage("pretrain", status="FINISHED")
    sync(folder)
    assert statuses(runs) == {"sample": "FINISHED", "pretrain": "FINISHED"}


def test_what_was_killed_has_its_end_before_the_run_goes_on(folder: Path) -> None:
    kill(folder)
    with followed(folder, tracking=False):
        pass
    said = [record for record in read_records(folder / NAME) if record.kind in ("run", "finish")]
    assert [record.payload.get("status") for record in said] == [None, "KILLED", None, "FINISHED"]


def test_a_killed_measurement_of_a_finished_run_ends_alone(folder: Path, runs: Runs) -> None:
    with followed(folder, tracking=False):
        pass
    kill(folder, "measurement", "evaluate")
    assert main(["sync", str(folder)]) == 0
    assert statuses(runs) == {"sample": "FINISHED", "evaluate": "KILLED"}


def test_a_run_that_is_measured_is_not_killed(folder: Path, capsys: Capture) -> None:
    with living(folder, "measurement", "evaluate"):
        assert main(["sync", str(folder)]) == 2
        assert capsys.readouterr().err == (
            f"advss: error: run {folder} is being measured, and what is measured is sent; wait until that has ended\n"
        )
        with followed(folder, tracking=False, what="measurement"):  # several may
            pass
    assert [r.payload["status"] for r in read_records(folder / NAME) if r.kind == "finish"] == ["FINISHED"]


def test_a_forked_child_does_not_keep_its_parents_run_alive(folder: Path) -> None:
    with living(folder, forks=True) as parent:
        os.kill(parent, signal.SIGKILL)
        os.waitid(os.P_PID, parent, os.WEXITED | os.WNOWAIT)
        assert main(["sync", str(folder)]) == 0
    assert not unfinished(folder / NAME)


def test_all_runs_that_need_it_are_sent(folder: Path, runs: Runs, capsys: Capture) -> None:
    for name in ("first", "second", "untracked"):
        kill(folder.with_name(name), stage="pretrain")
    for name in ("first", "second"):
        sync(folder.with_name(name))
    assert main(["sync", "--runs-dir", str(folder.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(folder.with_name(name)) for name in ("first", "second")]
    assert main(["sync", "--runs-dir", str(folder.parent)]) == 0
    assert capsys.readouterr().out == f"MLflow has all of the runs in {folder.parent}\n"


def test_one_run_that_fails_holds_up_none_of_the_others(folder: Path, capsys: Capture) -> None:
    for name in ("broken", "whole"):
        Journal(folder.with_name(name) / NAME).run(name=name, experiment="advss")
    with (folder.with_name("broken") / NAME).open("a") as file:
        file.write("{}\n")
    names = [str(folder.with_name(name)) for name in ("broken", "whole")]
    assert main(["sync", *names]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{names[1]}: 2 records sent")
    assert len(err.splitlines()) == 1
    assert "is not a journal record" in err
