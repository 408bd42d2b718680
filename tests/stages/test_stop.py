"""A run that is asked to stop, a process of its own too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from advss.cli.main import main
from advss.config import RunConfig
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Loss
from advss.stages.fit import fit
from advss.training.checkpoints import has_checkpoint, load_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted
from advss.training.work import Work

Settings = Callable[..., RunConfig]
LAST = Path("runs/run/finetune/last.safetensors")
COMMAND = (
    "fit --pretext none --defense none --data.limit 80 --finetune-epochs 400 --name run --tracking false --device cpu "
    "--memory-format contiguous --checkpoint-minutes 1e-9 "
    "--backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8]"
)
STEPS = 400 * 2


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_to_the_command_line_leaves_a_checkpoint(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    objective, calls = Work.objective, count()

    def asked(*args: Any, **more: Any) -> TaskObjective:
        if next(calls) == 5:
            os.kill(os.getpid(), number)
        return objective(*args, **more)

    monkeypatch.setattr(Work, "objective", asked)
    monkeypatch.chdir(tmp_path)
    assert main(COMMAND.split()) == code
    assert f"stopped by {number.name}" in capsys.readouterr().err
    assert 0 < load_checkpoint(tmp_path / LAST).manifest["step"] < STEPS


@pytest.mark.parametrize("step", [0, 5])
def test_a_signal_that_a_plugin_makes_an_error_of_its_own_stops_all_the_same(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    call, calls = TaskObjective.__call__, count()

    def asked(*args: Any, **more: Any) -> Loss:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("what went on was broken off")
        return call(*args, **more)

    monkeypatch.setattr(TaskObjective, "__call__", asked)
    monkeypatch.chdir(tmp_path)
    assert main(COMMAND.split()) == 143
    said = told()
    assert said[-1] == "advss: stopped by SIGTERM; go on with: advss fit --resume runs/run"
    assert not [line for line in said if "broken off" in line or ("--resume" in line and line != said[-1])]
    assert has_checkpoint(tmp_path / LAST) == (step > 0)  # the first is a trial


@pytest.mark.usefixtures("heard")
def test_a_process_is_heard_from_outside_by_the_signal_that_ends_others_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "advss.cli.main", *COMMAND.split()],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for((tmp_path / LAST).with_suffix(".json"), process)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 129
    assert "stopped by SIGHUP" in errors
    assert 0 < load_checkpoint(tmp_path / LAST).manifest["step"] < STEPS


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until ``path`` exists or the process ends."""
    while not path.is_file():
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(process.stderr.read() if process.stderr else "")


def test_run_that_was_stopped_is_not_called_finished(settings: Settings, stopper: Callable[..., Silent]) -> None:
    config = settings("none", "none")
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        fit(config, reporter=stopper("finetune", "step", 1))
    assert '"status": "running"' in (config.runs_dir / "run/result.json").read_text()
