"""Jobs handed to a queue: a sbatch that is pretended, and submitit's own queue of this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.testing.launched import CODES, NEEDS, Place, Told
from advss_launchers.slurm import Command, Slurm

SBATCH = """#!/usr/bin/env bash
cat "${@: -1}" > "$CALLS/$(ls "$CALLS" | wc -l)"
echo "Submitted batch job $((100 + $(ls "$CALLS" | wc -l)))"
"""
SAVES = (
    "import signal, sys, time, pathlib; place = pathlib.Path('saved')\n"
    "signal.signal(signal.SIGTERM, lambda *_: (place.touch(), sys.exit(143)))\n"
    "pathlib.Path('began').touch()\n"
    "time.sleep(0 if place.exists() else 60)"
)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that keeps what it is handed, and numbers from 101 on."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for program in ("sbatch", "srun"):
        (tmp_path / "bin" / program).write_text(SBATCH)
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls"


def test_each_is_queued_behind_those_it_needs(calls: Path, tmp_path: Path) -> None:
    launcher, board = Slurm(partition="long", hours=2, gpus=0, options="--account=lab"), Told()
    launcher.check()
    launcher.launch(Place(tmp_path).jobs(), board)
    assert board.told == [("began", name, 0) for name in CODES]
    number = {name: str(101 + n) for n, name in enumerate(CODES)}
    for place, name in enumerate(CODES):
        said = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", (calls / str(place)).read_text(), re.M))
        after = ":".join(["afterok", *(number[before] for before in NEEDS.get(name, ()))])
        assert said.get("dependency") == (after if name in NEEDS else None)
        wanted = {"job-name": name, "partition": "long", "time": "120", "account": "lab"}
        assert wanted.items() <= said.items()
        assert "gpus-per-node" not in said


def test_a_job_fails_as_its_command_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    Command((sys.executable, "-c", "print('well')"), str(tmp_path), str(log))()
    assert log.read_text() == "well\n"
    with pytest.raises(RuntimeError, match="ended with 3; see "):
        Command((sys.executable, "-c", "raise SystemExit(3)"), str(tmp_path), str(log))()


@pytest.mark.parametrize("name", ["checkpoint", "__submitit_checkpoint__"])
def test_one_whose_machine_is_taken_saves_and_is_queued_again(name: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    command = Command((sys.executable, "-c", SAVES), str(tmp_path), str(tmp_path / "log"))
    queued: list[Any] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: queued.append(getattr(command, name)()))

    def take() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=take, daemon=True).start()
    try:
        with pytest.raises(RuntimeError, match="ended with 143"):
            command()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / "saved").exists()
    queued[0].function()


def test_submitits_own_queue_runs_it(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    log = tmp_path / "log"
    executor = submitit.LocalExecutor(folder=tmp_path / "queue")
    job = executor.submit(Command((sys.executable, "-c", "print('well')"), str(tmp_path), str(log)))
    assert job.result() is None
    assert log.read_text() == "well\n"


def test_without_slurm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no sbatch on this machine; launch on a login node"):
        Slurm().check()


def test_without_submitit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advss_launchers.slurm.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs submitit; pip install 'advss\[slurm\]'"):
        Slurm().check()


@pytest.mark.parametrize("options", ["account=lab", "--exclusive", "'"])
def test_options_that_sbatch_does_not_take_so_are_refused(options: str) -> None:
    with pytest.raises(UsageError, match=r"--launcher.options: "):
        Slurm(options=options)._more()
