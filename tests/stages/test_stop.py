"""A real process that is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.config import RunConfig
from advss.stages.fit import fit
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
COMMAND = (
    "fit --pretext none --defense none --data.limit 80 --finetune-epochs 400 --name run --tracking false --device cpu"
)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_to_the_command_line_leaves_a_checkpoint(number: signal.Signals, code: int, tmp_path: Path) -> None:
    last = tmp_path / "runs/run/finetune/last.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "advss.cli.main", *COMMAND.split(), "--checkpoint-minutes", "1e-9"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(last.with_suffix(".json"), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert f"stopped by {number.name}" in errors
    assert 0 < load_checkpoint(last).manifest["step"] < 400 * 2


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
