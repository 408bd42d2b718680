"""What a user sees while the images of a run are read: what there is, and how far it is where that takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from advss.data.summary import summary
from advss.data.watch import Found, Watch
from advss.training.reporting import Reporter

PATIENCE_S = 2.0  # before which no progress is shown


@contextmanager
def watched(reporter: Reporter, *, told: str = "") -> Iterator[Watch]:
    """Who watches reading within the context; ``told``, a flag, has the counts of its images told, too."""
    reading = _Reading(reporter, told)
    try:
        yield reading
    finally:
        if reading.shown:
            reporter.finish()


class _Reading(Watch):
    def __init__(self, reporter: Reporter, told: str) -> None:
        self.reporter, self.told, self.shown = reporter, told, 0
        self.began = time.monotonic()

    def found(self, found: Found) -> None:
        for line in summary(found, self.told) if self.told else ():
            self.reporter.say(line)
        self.began = time.monotonic()

    def read(self, *, done: int, of: int) -> None:
        if not self.shown:
            if time.monotonic() - self.began < PATIENCE_S:
                return
            self.reporter.start("reading images", steps=of, done=0, epochs=1)
        self.reporter.step(step=done, images=done - self.shown, metrics={})
        self.shown = done
