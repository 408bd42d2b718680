"""Jobs as processes of this machine: their order, and their end where the user does not wait or they do not save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from advss.launching import Job
from advss.testing.launched import Stopped, Told
from advss_launchers import jobs
from advss_launchers.jobs import Order
from advss_launchers.local import Local

DEAF = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('began').touch()\n"
SAVES = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("new").write_text(str(os.getpid()))
os.rename("new", "began")
sys.stdin.read()
pathlib.Path("saved").touch()
"""
STUDY = """
import sys
from pathlib import Path
from advss.launching import Job
from advss.testing.launched import Told
from advss.training.signals import StopRequest
from advss_launchers.local import Local

class Board(Told):
    def check(self):
        stop.check()

place = Path(sys.argv[1])
with StopRequest() as stop:
    Local().launch([Job("job", (sys.executable, "-c", sys.argv[2]), (), place, place / "log")], Board())
"""


def job(name: str, *after: str) -> Job:
    return Job(name, (), after, Path(), Path("log"))


def test_a_job_may_begin_when_all_that_it_needs_have_ended_well() -> None:
    first, second, both, other = (
        job("first"),
        job("second"),
        job("both", "first", "second", "done before"),
        job("other"),
    )
    order = Order([first, second, both, other])
    assert order.ready(1) == [first]
    assert order.ready() == [second, other]
    order.ended(first, 0)
    assert order.ready() == []
    order.ended(second, 0)
    assert order.ready() == [both]
    assert order.waiting == []


def test_what_fails_takes_those_with_it_that_need_it_by_whatever_way() -> None:
    first, second, third, other = job("first"), job("second", "first"), job("third", "second"), job("other", "else")
    order = Order([first, second, third, other])
    assert order.ready() == [first, other]
    order.ended(first, 3)
    assert order.waiting == []


def test_one_that_does_not_save_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SAVE_S", 0.3)
    deaf = Job("deaf", (sys.executable, "-c", DEAF + "time.sleep(60)"), (), tmp_path, tmp_path / "log")
    began = time.monotonic()
    with pytest.raises(Stopped):
        Local().launch([deaf], Told(stops=(tmp_path / "began").exists))
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize(("numbers", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGKILL,), -9)])
def test_who_does_not_wait_leaves_jobs_that_save(
    numbers: tuple[int, ...], code: int, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """The first Ctrl-C waits for the job, which heeds nothing but its standard input; the second leaves at once."""
    study = subprocess.Popen(
        (sys.executable, "-c", STUDY, tmp_path, SAVES), env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    until((tmp_path / "began").exists)
    running = psutil.Process(int((tmp_path / "began").read_text()))
    for number in numbers:
        study.send_signal(number)
        time.sleep(0.5)
    assert study.wait(30) == code
    until((tmp_path / "saved").exists)
    running.wait(30)
