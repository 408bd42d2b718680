"""Jobs as processes of this machine, several at once: cores are divided between them, and each has a GPU of its own.

A job is tied to this process by a pipe: where this process dies, by whatever, the job hears it, saves and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import TIED, Board, Job
from advss.threads import environment

LOOK_S = 0.25  # between two questions of whether the user wants to stop
SAVE_S = 60.0  # for a job to save and end; one that has not is killed, and loses what came after its last checkpoint


class Local(Launcher):
    """Run jobs here.

    Args:
        jobs: how many run at once; with GPUs, at most as many as there are.
    """

    name = "local"

    def __init__(self, *, jobs: int = 1) -> None:
        self.jobs = jobs

    def check(self) -> None:
        """Refuse to run none."""
        if self.jobs < 1:
            raise UsageError(f"--jobs: expected at least 1, got {self.jobs}")

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        """Begin each job as soon as those it needs have ended well and a place is free."""
        places, ended = _places(self.jobs), queue.Queue[tuple[Job, int, int]]()
        waiting, running, lost, share = list(jobs), dict[str, subprocess.Popen[bytes]](), set[str](), len(places)
        try:
            while waiting or running:
                unfinished = {job.name for job in waiting} | running.keys()
                for job in [job for job in waiting if not unfinished & {*job.after}][: len(places)]:
                    waiting.remove(job)
                    running[job.name] = _begin(job, places.pop(0), share, ended)
                    board.began(job)
                job, place, code = _wait(ended, board)
                _let_go(running.pop(job.name))
                places.append(place)
                board.ended(job, code)
                if code:
                    lost.add(job.name)
                    waiting = _without(waiting, lost)
        finally:
            _stop(running)


def _without(waiting: Sequence[Job], lost: set[str]) -> list[Job]:
    """The jobs that need none of those that are lost; the others are lost, too."""
    left = []
    for job in waiting:
        if lost & {*job.after}:
            lost.add(job.name)
        else:
            left.append(job)
    return left


def _begin(job: Job, place: int, jobs: int, ended: queue.Queue[tuple[Job, int, int]]) -> subprocess.Popen[bytes]:
    """Start a job in a place; a thread waits for its end."""
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            (*job.command, TIED),
            cwd=job.folder,
            env=_environment(place, jobs),
            stdin=subprocess.PIPE,  # never written to: it ends when this process does
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is this process's, which tells its jobs
        )
    threading.Thread(target=lambda: ended.put((job, place, process.wait())), daemon=True).start()
    return process


def _environment(place: int, jobs: int) -> Mapping[str, str]:
    """A share of the cores, and a GPU."""
    gpus = _gpus()
    return environment(jobs) | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})


def _places(jobs: int) -> list[int]:
    return list(range(min(jobs, len(_gpus()) or jobs)))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [one for one in said.split(",") if one]
    return [str(place) for place in range(torch.cuda.device_count())]


def _wait(ended: queue.Queue[tuple[Job, int, int]], board: Board) -> tuple[Job, int, int]:
    """The next job that ends."""
    while True:
        board.check()
        try:
            return ended.get(timeout=LOOK_S)
        except queue.Empty:
            continue


def _stop(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Tell the jobs that run to save and end, and wait until they have."""
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + SAVE_S
    for process in running.values():
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _let_go(process)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close what tied a job that has ended."""
    if process.stdin:
        process.stdin.close()
