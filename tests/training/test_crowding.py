"""Threads of a run do not spin while other jobs need the cores, and spin again when these are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count

import pytest
import torch

from advss.threads import WAITING
from advss.training import crowding
from advss.training.crowding import Team, Watch, watched_cores

IDLE = """
import time, torch
from advss.training.crowding import Team
torch.set_num_threads(2)
x = torch.zeros(1 << 17)
def seconds():
    began = time.process_time()
    for _ in range(20):
        x.add_(1)
        time.sleep(0.01)
    return time.process_time() - began
free, team = seconds(), Team().hold()
held = seconds()
team.end()
print(free, held, seconds())
"""


def test_a_second_team_stops_the_spinning_until_it_ends() -> None:
    environ = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", IDLE], env=environ, capture_output=True, text=True, check=True)
    free, held, after = map(float, done.stdout.split())
    assert held < free / 2
    assert held < after / 2


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_team_is_held_while_others_need_the_cores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [2.0]
    monkeypatch.setattr(crowding, "own_cores", lambda: [0, 1])
    monkeypatch.setattr(crowding, "busy", lambda cores, look_s: others[0])
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    watch = Watch(2, period_s=0.01)
    watch.start()
    for _ in range(2):
        others[0] = 2.0
        until(lambda: watch._team is not None)
        others[0] = 0.0
        until(lambda: watch._team is None)
    watch.close()
    line = "advss: other jobs keep 2.0 of 2 cores busy: threads no longer spin while they wait\n"
    assert capsys.readouterr().err == line


def test_its_own_time_is_not_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowding, "own_cores", lambda: [0, 1])
    looks = count()
    monkeypatch.setattr(crowding, "busy", lambda cores, look_s: 2.0 + 0 * next(looks))
    began = time.monotonic()
    monkeypatch.setattr(time, "process_time", lambda: 2 * (time.monotonic() - began))
    watch = Watch(2, period_s=0.01)
    watch.start()
    until(lambda: next(looks) > 5)
    assert watch._team is None
    watch.close()


@pytest.mark.parametrize(
    ("threads", "said", "watched"), [(2, {}, True), (1, {}, False), (2, {"OMP_WAIT_POLICY": "ACTIVE"}, False)]
)
def test_who_says_how_threads_wait_is_not_watched(
    threads: int, said: dict[str, str], watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", said)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    started: list[object] = []
    monkeypatch.setattr(Watch, "start", lambda self: started.append(self))
    monkeypatch.setattr(Watch, "close", lambda self: None)
    with watched_cores():
        assert bool(started) == watched


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_team_that_cannot_be_made_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(size: int) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(torch, "ones", no_memory)
    Team().hold().end()
