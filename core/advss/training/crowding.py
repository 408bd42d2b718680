"""Other jobs that come to the cores while a run is going on: its threads then wait without spinning.

What OpenMP is told in the environment holds for good (:mod:`advss.threads`). But libgomp, which torch's wheels bring,
hardly spins where there are more OpenMP threads than cores (its manual, GOMP_SPINCOUNT). So a second team of threads,
which does nothing, is held for as long as others need the cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from advss.output import tell
from advss.threads import busy, crowded, own_cores, waiting_is_said

PERIOD_S = 5.0  # between two looks at the cores


class Team(threading.Thread):
    """A team of OpenMP threads that does nothing, from the start to the end of this thread."""

    def __init__(self) -> None:
        super().__init__(name="advss-team", daemon=True)
        self._made, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        """Make the team by a sum that is large enough for all its threads, and wait."""
        try:
            torch.ones(1 << 20).sum()
        finally:  # whoever holds it waits for no team that could not be made
            self._made.set()
        self._over.wait()

    def hold(self) -> Team:
        """Start, and return when the team is there."""
        self.start()
        self._made.wait()
        return self

    def end(self) -> None:
        """Let the team go."""
        self._over.set()
        self.join()


class Watch(threading.Thread):
    """Looks at the cores until closed, and holds a team while other jobs need them, which is told the first time."""

    def __init__(self, threads: int, *, period_s: float = PERIOD_S) -> None:
        super().__init__(name="advss-cores", daemon=True)
        self._threads, self._period_s, self._closing = threads, period_s, threading.Event()
        self._team: Team | None = None
        self._told = False

    def run(self) -> None:
        """The thread's work."""
        cores = own_cores()
        busy(cores, None)  # the first call has nothing to compare with
        own, began = time.process_time(), time.monotonic()
        while not self._closing.wait(self._period_s):
            now = time.process_time(), time.monotonic()
            others = busy(cores, None) - (now[0] - own) / (now[1] - began)
            own, began = now
            self._hold(crowded(self._threads, others, cores), f"{others:.1f} of {len(cores)}")
        self._hold(False, "")

    def _hold(self, wanted: bool, others: str) -> None:
        if wanted and self._team is None:
            self._team = Team().hold()
            if not self._told:
                tell(f"advss: other jobs keep {others} cores busy: threads no longer spin while they wait")
            self._told = True
        elif not wanted and self._team is not None:
            self._team.end()
            self._team = None

    def close(self) -> None:
        """Stop looking, and let a team go."""
        self._closing.set()
        self.join()


@contextmanager
def watched_cores() -> Iterator[None]:
    """Within, threads spin as long as each has a core, unless the user, or advss at the start, said how they wait."""
    threads = torch.get_num_threads()
    if threads < 2 or waiting_is_said(os.environ):
        yield
        return
    watch = Watch(threads)
    watch.start()
    try:
        yield
    finally:
        watch.close()
