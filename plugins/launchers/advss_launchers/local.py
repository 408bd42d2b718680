"""Jobs as processes of this machine, several at once: cores are divided between them, and each has a GPU of its own."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss.threads import environment
from advss_launchers.jobs import Order, begin, let_go, stop

LOOK_S = 0.25  # between two questions of whether the user wants to stop


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
        order, running, share = Order(jobs), dict[str, subprocess.Popen[bytes]](), len(places)
        try:
            while order.waiting or running:
                for job in order.ready(len(places)):
                    running[job.name] = _begin(job, places.pop(0), share, ended)
                    board.began(job)
                job, place, code = _wait(ended, board)
                let_go(running.pop(job.name))
                places.append(place)
                order.ended(job, code)
                board.ended(job, code)
        finally:
            stop(running.values())


def _begin(job: Job, place: int, jobs: int, ended: queue.Queue[tuple[Job, int, int]]) -> subprocess.Popen[bytes]:
    """Start a job in a place; a thread waits for its end."""
    process = begin(job, _environment(place, jobs))
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
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [one for one in said.split(",") if one]
    import torch

    return [str(place) for place in range(torch.cuda.device_count())]


def _wait(ended: queue.Queue[tuple[Job, int, int]], board: Board) -> tuple[Job, int, int]:
    """The next job that ends."""
    while True:
        board.check()
        try:
            return ended.get(timeout=LOOK_S)
        except queue.Empty:
            continue
