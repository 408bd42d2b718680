"""SIGKILLs of the command and of its jobs: run again, a study has what it would have had, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from advss.studies.folder import StudyFolder
from advss.studies.run import launch
from advss.training.checkpoints import load_checkpoint

PATIENCE_S = 240.0
ROWS = {"a": {"pretext": "none", "defense": {"pgd": {"steps": 1}}}, "b": {"pretext": "none", "defense": "none"}}


class Killed:
    """``advss study run`` in a process of its own."""

    def __init__(self, place: Path) -> None:
        self.folder = StudyFolder(place / "studies" / "s")
        command = (sys.executable, "-m", "advss.cli.main", "study", "run", "s.yaml", "--jobs", "2", "--quiet")
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ADVSS_")}
        self.process = psutil.Popen(
            command, cwd=place, env=environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
        )

    def jobs(self, *, but: psutil.Process | None = None) -> list[psutil.Process]:
        """Those of its jobs that train: they have begun a run that is not done."""
        if not self.folder.cells.is_file():
            return []
        return [
            job for job in self.process.children() if job != but and (name := self._run(job)) and self._trains(name)
        ]

    def _run(self, job: psutil.Process) -> str:
        try:
            return next((word for word in job.cmdline() if word in self.folder.stages), "")
        except psutil.Error:
            return ""

    def _trains(self, run: str) -> bool:
        return self.folder.run(run).config.is_file() and not self.folder.finished(run)


@pytest.mark.timeout(900)  # 120 CPU seconds, most of them imports of a dozen processes
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_kills_of_the_command_a_job_and_both_change_nothing(
    made: Any, written: Any, inline: Any, told_of: Any, tmp_path: Path, until: Callable[..., Any]
) -> None:
    study = made(rows=ROWS, seeds=2)
    whole = written(study)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        launch(whole, inline(), view=told_of.of)
    finally:
        torch.set_num_threads(threads)
    place = tmp_path / "killed"
    place.mkdir()
    (place / "s.yaml").write_text(study.to_yaml())
    for kills_a_job_first in (True, False):
        one = Killed(place)
        (victim, *others) = until(one.jobs)
        if kills_a_job_first:
            victim.kill()
            others = until(partial(one.jobs, but=victim))
        one.process.kill()
        if not kills_a_job_first:
            victim.kill()
        one.process.wait(PATIENCE_S)
        assert not psutil.wait_procs([victim, *others], timeout=PATIENCE_S)[1]
    last = Killed(place)
    assert last.process.wait(PATIENCE_S) == 0
    assert [state for state, _ in last.folder.states().values()] == ["done"] * 4
    for run in whole.stages:
        assert outcome(last.folder, run) == outcome(whole, run)
        ours, theirs = (load_checkpoint(f.run(run).best("finetune")).tensors for f in (last.folder, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def outcome(folder: StudyFolder, run: str) -> dict[str, Any]:
    """The figures of a run's result."""
    result = folder.run(run).read_result()
    figures = {name: one["figures"] for name, one in result["evaluations"].items()}
    return {"ta": result["ta"], "ra": result["ra"], "figures": figures}
