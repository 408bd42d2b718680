"""MLflow out of reach: training goes on, one warning is printed, sync leaves nothing missing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.tracking import sender
from advss.tracking.sync import sync
from advss.tracking.tracker import Tracker

Stored = Callable[[], dict[tuple[str, int, str], str]]
Server = Callable[[int], contextlib.AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "PERIOD_S", 0.05)
    monkeypatch.setattr(sender, "RETRY_S", 0.05)


def say(tracker: Tracker, steps: range) -> float:
    """Metrics of some steps; returns the seconds it took."""
    began = time.perf_counter()
    for step in steps:
        tracker.metrics("pretrain", step, {"loss": 1 / (step + 1)})
    return time.perf_counter() - began


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_dead_from_the_start(
    folder: Path, uri: str, closed_port: int, stored: Stored, journaled: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(folder, name="sample", uri=f"http://127.0.0.1:{closed_port}")
    assert say(tracker, range(500)) < 1
    assert not tracker.finish("FINISHED", wait_s=30)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert f"advss sync {folder}" in warnings[0]
    sync(folder, uri=uri)
    assert stored() == journaled()
    assert len(journaled()) == 500


def test_no_sync_is_advised_of_a_folder_that_will_go(
    folder: Path, closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(folder, name="sample", uri=f"http://127.0.0.1:{closed_port}", lasts=lambda: False)
    tracker.begin()
    assert not tracker.finish("FAILED", wait_s=30)
    assert capsys.readouterr().err == ""


def test_dying_and_never_back(
    folder: Path, server: Server, uri: str, stored: Stored, journaled: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(0) as address:
        tracker = Tracker(folder, name="sample", uri=address)
        say(tracker, range(50))
        until(lambda: (folder / "mlflow.json").exists() and '"offset": 0' not in (folder / "mlflow.json").read_text())
    assert say(tracker, range(50, 100)) < 1
    assert not tracker.finish("FINISHED", wait_s=30)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with server(int(address.rpartition(":")[2])):
        sync(folder)
    assert stored() == journaled()
    assert len(journaled()) == 100


def test_dying_and_back_before_the_end(folder: Path, server: Server, stored: Stored, journaled: Stored) -> None:
    with server(0) as address:
        tracker = Tracker(folder, name="sample", uri=address)
        say(tracker, range(50))
    say(tracker, range(50, 100))
    with server(int(address.rpartition(":")[2])):
        assert tracker.finish("FINISHED", wait_s=30)
    assert stored() == journaled()
    assert len(journaled()) == 100


def test_the_page_of_a_run_on_a_server(folder: Path, server: Server, uri: str) -> None:
    with server(0) as address:
        tracker = Tracker(folder, name="sample", uri=address)
        assert tracker.finish("FINISHED", wait_s=30)
        url = tracker.url()
    assert url is not None
    assert url.startswith(f"{address}/#/experiments/1/runs/")


def test_sync_to_a_dead_server_says_so_in_one_line(folder: Path, closed_port: int) -> None:
    Tracker(folder, name="sample", enabled=False).finish("FINISHED")
    with pytest.raises(UsageError, match=r"is out of reach \(\[Errno \d+\] Connection refused\)") as caught:
        sync(folder, uri=f"http://127.0.0.1:{closed_port}")
    assert "\n" not in str(caught.value)


def test_without_mlflow_there_is_one_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracker = Tracker(folder, name="sample")
    say(tracker, range(3))
    assert not tracker.finish("FINISHED", wait_s=30)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_interpreter_ends_while_a_server_hangs(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from advss.tracking.tracker import Tracker;"
        "tracker = Tracker(Path(sys.argv[1]), name='x', uri=sys.argv[2]); input();"
        "assert not tracker.finish('FINISHED', wait_s=0.2); print(time.time())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", code, str(folder), f"http://127.0.0.1:{listener.getsockname()[1]}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as child:
            connection, _ = listener.accept()  # the request that is never answered
            said, complained = child.communicate("\n")
        connection.close()
    assert time.time() - float(said) < 30  # a request waits for 60 s
    assert len(complained.splitlines()) == 1
