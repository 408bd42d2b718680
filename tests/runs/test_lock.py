"""Two processes in one run's folder: another open file description with a lock stands for another process."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from advss.cli.main import main
from advss.config import Choice, RunConfig
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.runs import lock
from advss.runs.folder import RunFolder, make_folder
from advss.runs.lock import LOCK, check_free, held, in_use, locked, writing
from advss.stages.fit import fit, pretrain
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
SAID = "is in use by process 7 on elsewhere; wait until it has ended, or end it"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)


@contextmanager
def another_process(folder: Path) -> Iterator[None]:
    """Within, process 7 of another machine has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        file.write("process 7 on elsewhere")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free(folder: Path) -> bool:
    """Whether another process could take the folder's lock."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


# ---------------------------------------------------------------- the lock
def test_second_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with another_process(tmp_path), pytest.raises(UsageError, match=f"^run {tmp_path} {SAID}$"), locked(tmp_path):
        pass
    with locked(tmp_path):
        us = f"process {os.getpid()} on {socket.gethostname()}"
        assert us in in_use(tmp_path)
        with pytest.raises(UsageError, match=us), locked(tmp_path):
            pass
    assert in_use(tmp_path) == ""


def test_looking_leaves_no_trace_and_keeps_nobody_out(tmp_path: Path) -> None:
    assert not held(tmp_path)
    assert not (tmp_path / LOCK).exists()
    with another_process(tmp_path):
        assert held(tmp_path)
        assert held(tmp_path)
    assert not held(tmp_path)
    with locked(tmp_path):
        assert held(tmp_path)
    assert not held(tmp_path)


def test_reading_the_file_loses_nothing(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / LOCK).read_bytes()  # a lock of lockf would be gone now
        with writing(tmp_path):
            pass
        assert not free(tmp_path)
    assert free(tmp_path)


def test_death_releases_it_though_a_forked_child_lives(tmp_path: Path) -> None:
    program = f"""
import os, subprocess, sys, time
from pathlib import Path
from advss.runs.lock import locked
with locked(Path({str(tmp_path)!r})):
    executed = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    if forked := os.fork():
        print(executed.pid, forked, flush=True)
        os._exit(9)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    time.sleep(60)
"""
    died = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    children = [int(pid) for pid in died.stdout.split()]
    try:
        assert died.returncode == 9
        assert [os.path.exists(f"/proc/{pid}") for pid in children] == [True, True]  # noqa: PTH110
        with locked(tmp_path):
            pass
    finally:
        for pid in children:
            os.kill(pid, 9)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_there_is_one_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock._warn_once.cache_clear()
    with locked(tmp_path), writing(tmp_path):
        pass
    with locked(tmp_path):
        pass
    said = f"({os.strerror(number)}); let no two processes work in one run"
    assert capsys.readouterr().err == f"advss: warning: {tmp_path} cannot be locked {said}\n"


# ---------------------------------------------------------------- what is refused
def test_run_of_another_process_is_neither_resumed_nor_begun_nor_evaluated(
    settings: Settings, stopper: Callable[..., Silent], capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("none", "none", stage={"epochs": 2})
    run = config.runs_dir / "run"
    with pytest.raises(Interrupted):
        fit(config, reporter=stopper("finetune", "epoch", 1))
    before = content(run)
    capsys.readouterr()
    certify = f"certify {run} --sigma 0.1 --other-sigma"
    with another_process(run):
        for command in (f"fit --resume {run}", f"finetune --resume {run}", f"evaluate {run}", certify, f"sync {run}"):
            assert main(command.split()) == 2
            assert capsys.readouterr().err == f"advss: error: run {run} {SAID}\n"
        with pytest.raises(UsageError, match=rf"^--name: run {run} {SAID}, or choose another --name$"):
            fit(config, reporter=Silent())
    assert content(run) == before


def test_run_that_another_process_began_in_the_meantime_is_not_begun(tmp_path: Path) -> None:
    planned = RunFolder(tmp_path / "run")
    said = rf"^--name: run {planned.path} {SAID}, or choose another --name$"
    with another_process(planned.path), pytest.raises(UsageError, match=said):
        make_folder(planned, resume=False, named=True)


def test_run_is_locked_while_it_trains(settings: Settings) -> None:
    config = settings(stage={"epochs": 1})
    run, seen = config.runs_dir / "run", list[bool]()

    class Looking(Silent):
        def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
            seen.append(free(run))

    pretrain(config, reporter=Looking())
    assert seen == [False, False]
    check_free(run)


def test_evaluating_holds_no_lock_and_loses_nothing_that_is_written_meanwhile(settings: Settings) -> None:
    config = settings("none", "none")
    fit(config, reporter=Silent())
    run, seen = config.runs_dir / "run", list[bool]()

    class Looking(Silent):
        def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
            seen.append(free(run))

    again = replace(config.evaluation, restarts=2)
    assert evaluate(run, again, [Choice("pgd")], device="cpu", reporter=Looking())["status"] == "finished"
    assert seen == [True]


def test_measured_is_written_though_another_process_began_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with another_process(tmp_path), writing(tmp_path):
        pass
    end = "what was measured is written all the same"
    assert capsys.readouterr().err == f"advss: warning: run {tmp_path} {SAID}; {end}\n"
