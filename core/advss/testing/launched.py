"""What a launcher is tried on: jobs of moments, which note in their folder when they began and how they ended."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from advss.errors import UsageError
from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, UncheckedError

BEGAN, ENDED = ".began", ".ended"
SCRIPT = f"""
import os, sys, time
name, code, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ended = [file for file in os.listdir() if file.endswith("{ENDED}")]
with open(name + "{BEGAN}", "a") as file:
    file.write(" ".join([str(os.getpid()), *ended]) + chr(10))
print("output of", name)
print("errors of", name, file=sys.stderr)
sys.stdout.flush()
time.sleep(seconds)
open(name + "{ENDED}", "w").close()
sys.exit(code)
"""
CODES = {"first": 0, "second": 0, "broken": 3, "needs-it": 0, "needs-both": 0, "other": 0}
NEEDS = {"second": ("first",), "needs-it": ("broken",), "needs-both": ("second", "needs-it")}
LOST = ("needs-it", "needs-both")  # they need what fails
HUNG_S = 120.0  # after which a launcher is told to stop


class Told(Board):
    """A board that keeps what it is told, and asks to stop where ``stops`` says so."""

    def __init__(self, stops: Callable[[], bool] = lambda: False) -> None:
        self.stops, self.until = stops, time.monotonic() + HUNG_S
        self.told: list[tuple[str, str, int]] = []

    def began(self, job: Job) -> None:
        """Note it."""
        self.told.append(("began", job.name, 0))

    def ended(self, job: Job, code: int) -> None:
        """Note it."""
        self.told.append(("ended", job.name, code))

    def say(self, line: str) -> None:
        """Leave it."""

    def check(self) -> None:
        """Ask to stop, or give up."""
        if self.stops():
            raise Stopped
        if time.monotonic() > self.until:
            raise BrokenError(f"jobs of moments have not ended after {HUNG_S:.0f} s")


class Stopped(BaseException):
    """What a user's Ctrl-C is here."""


class Place:
    """A folder in which jobs run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job(self, name: str, *, code: int = 0, needs: Sequence[str] = (), seconds: float = 0.0) -> Job:
        """A job that notes when it begins, and ends so."""
        command = (sys.executable, "-I", "-S", "-c", SCRIPT, name, str(code), str(seconds))
        return Job(name, command, tuple(needs), self.folder, self.folder / f"{name}.log")

    def jobs(self) -> list[Job]:
        """Six: two that need another, one that fails, two that need it, and one by itself."""
        return [self.job(name, code=code, needs=NEEDS.get(name, ())) for name, code in CODES.items()]

    def began(self, name: str) -> list[list[str]]:
        """For each time that a job has begun its process, and the files that ended jobs had left by then."""
        path = self.folder / f"{name}{BEGAN}"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def ended(self, name: str) -> bool:
        """Whether a job has come to its end."""
        return (self.folder / f"{name}{ENDED}").exists()


@contextmanager
def a_place() -> Iterator[Place]:
    """A folder for one check."""
    with tempfile.TemporaryDirectory(prefix="advss-jobs-", ignore_cleanup_errors=True) as folder:
        yield Place(Path(folder).resolve())


def launcher_of(subject: Subject) -> Launcher:
    """The launcher that is tried, made anew.

    Raises:
        UncheckedError: it cannot work here, or leaves jobs to others, who are not to be given any.
    """
    launcher = subject.new()
    assert isinstance(launcher, Launcher)
    if not launcher.waits:
        raise UncheckedError("it waits for no jobs, and the suite hands none to others")
    try:
        launcher.check()
    except UsageError as error:
        raise UncheckedError(f"it cannot work here: {error}") from error
    return launcher


@contextmanager
def launched(subject: Subject) -> Iterator[tuple[Place, Told]]:
    """The six jobs, launched."""
    launcher = launcher_of(subject)
    with a_place() as place:
        board = Told()
        launcher.launch(place.jobs(), board)
        yield place, board
