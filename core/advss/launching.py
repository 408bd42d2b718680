"""The sixth kind of plugin: who runs the jobs of a study, here, on a cluster, or by a script.

A part of the contract, which :mod:`advss.hookspecs` gives too as far as every launcher needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

USUAL = "local"  # the launcher that is taken where none is said
TIED = "--tied"  # put behind a job's command: it saves and ends when its standard input does


@dataclass(frozen=True)
class Job:
    """One process to run: it finds out itself what is left to do, so it may be run again after anything."""

    name: str  # of the run that it finishes, unique among the jobs
    command: tuple[str, ...]  # an argument list; it exits with 0 when the run is finished
    after: tuple[str, ...]  # names of jobs that must have ended well before it begins
    folder: Path  # where it runs, absolute; its name and those in its command are of this machine
    log: Path  # where its output belongs, absolute; its folder is there
    seconds: float | None = None  # what it is estimated to take with this machine to itself; None: not known


class Board(ABC):
    """Where a launcher tells what comes of jobs."""

    @abstractmethod
    def began(self, job: Job) -> None:
        """A job runs now, or is in a queue of others."""

    @abstractmethod
    def ended(self, job: Job, code: int) -> None:
        """A job has ended with this exit code; jobs that need it begin only where that is 0."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Tell the user a line."""

    @abstractmethod
    def check(self) -> None:
        """Raise advss.training.signals.Interrupted where the user wants to stop; ask it at least twice a second."""


class Launcher(ABC):
    """Runs jobs, or hands them to somebody who does. Options are those of ``__init__``, as of every plugin."""

    name: ClassVar[str]
    waits: ClassVar[bool] = True  # False: launch() leaves jobs to others, and folders tell how they stand

    def check(self) -> None:  # noqa: B027 - not every launcher has something to refuse
        """Before anything is launched: advss.errors.UsageError where it cannot work here."""

    @abstractmethod
    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        """Have every job run once, each after those it needs; one that fails keeps none back but those that need it.

        Args:
            jobs: each stands behind the jobs that it needs; what it needs and is not among them has ended well.
            board: told of each job as it begins and as it ends, where they are waited for.

        Raises:
            Interrupted: of ``board.check()``, after the jobs that run have been told to stop, and have.
        """
