"""What launchers that wait for their jobs share: the order of jobs, and processes that do not outlive who began them.

A job is tied to the process that began it by a pipe: where that dies, by whatever, the job hears it, saves and ends.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence

from advss.launching import TIED, Job

SAVE_S = 60.0  # for a job to save and end; one that has not is killed, and loses what came after its last checkpoint


class Order:
    """Jobs that have not begun, and what they still wait for."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = list(jobs)
        self.unfinished = {job.name for job in jobs}

    def ready(self, places: int | None = None) -> list[Job]:
        """Take those that may begin, at most as many as there are places."""
        found = [job for job in self.waiting if self.unfinished.isdisjoint(job.after)][:places]
        self.waiting = [job for job in self.waiting if job not in found]
        return found

    def ended(self, job: Job, code: int) -> None:
        """A job has ended: well, or those that need it, by whatever way, never begin."""
        if not code:
            self.unfinished.remove(job.name)
            return
        lost = {job.name}
        for other in self.waiting:
            if not lost.isdisjoint(other.after):
                lost.add(other.name)
        self.waiting = [other for other in self.waiting if other.name not in lost]


def begin(job: Job, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a job's process, tied to this one."""
    with job.log.open("ab") as log:
        return subprocess.Popen(
            (*job.command, TIED),
            cwd=job.folder,
            env=environ,
            stdin=subprocess.PIPE,  # never written to: it ends when this process does
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is this process's, which tells its jobs
        )


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Close what tied a job that has ended."""
    if process.stdin:
        process.stdin.close()


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Tell jobs that run to save and end, and wait until they have."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    until = time.monotonic() + SAVE_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        let_go(process)
