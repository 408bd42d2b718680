"""Whether anybody writes a run's journal: by a shared lock on it, which the system releases when its holder dies.

Training has a run's folder for itself (:mod:`advss.runs.lock`), but several processes may measure a run at once. Each
of them holds this lock, so a journal that nobody holds and that has no end is of a process that was killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advss.errors import UsageError
from advss.runs.lock import NO_LINK
from advss.tracking.journal import NAME, end_killed

if sys.platform != "win32":
    import fcntl

_held: set[int] = set()  # descriptors, which a forked child must not keep


@contextmanager
def attended(folder: Path) -> Iterator[None]:
    """Within, this process may write the journal; what a killed one owed it is written before."""
    descriptor = _open(folder)
    try:
        _alone(descriptor, folder)
        _share(descriptor)
        _held.add(descriptor)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def ended_if_killed(folder: Path) -> bool:
    """Whether a journal had no end, because its writer was killed, and has one now.

    Raises:
        UsageError: somebody writes it.
    """
    descriptor = _open(folder)
    try:
        free, ended = _alone(descriptor, folder)
    finally:
        os.close(descriptor)
    if not free:
        raise UsageError(f"run {folder} is being measured, and what is measured is sent; wait until that has ended")
    return ended


def _alone(descriptor: int, folder: Path) -> tuple[bool, bool]:
    """Whether nobody else holds the journal; and whether it was given its end, as it then may be."""
    if sys.platform == "win32":
        return True, False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False, False
    except OSError:  # there are no locks here, so whether its writer lives is not known
        return True, False
    return True, end_killed(folder / NAME)


def _share(descriptor: int) -> None:
    """Hold the journal together with others; who has it alone lets go of it at once."""
    if sys.platform != "win32":
        with suppress(OSError):  # there are no locks here, which is said where the folder is locked
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def _open(folder: Path) -> int:
    path = folder / NAME
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
    except OSError as error:
        raise UsageError(f"cannot open {path}: {error.strerror}; runs are written where they lie") from error


def _let_go() -> None:
    """Close, in a child, what the parent holds."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
