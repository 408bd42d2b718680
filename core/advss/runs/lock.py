"""One process at a time in the folder of a run or a study, by a lock that the system releases when its holder dies.

The lock is on the file ``.lock``, which stays and names its last holder. flock, and not lockf: a lockf lock is lost as
soon as anything in the process opens and closes the file. A flock lock is shared with forked children and would outlive
its holder in them, so they close it as they begin; a program that is executed never inherits it.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from advss.errors import UsageError
from advss.output import tell

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
PATIENCE_S = 5.0  # within which whoever only writes a result has written it
LOOK_S = 0.02
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # whoever made the folder would choose what is emptied and written
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: dict[Path, int] = {}  # files that this process has locked, and their descriptors


@contextmanager
def locked(folder: Path, patience_s: float = PATIENCE_S, *, what: str = "run") -> Iterator[None]:
    """Within, this process alone works in the folder of a run, or of what it is called.

    Raises:
        UsageError: another does, for longer than ``patience_s``; its process and host are named.
    """
    path = _place(folder)
    if not _take(path, patience_s):
        raise UsageError(_in_use(folder, what))
    try:
        yield
    finally:
        _release(path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, a result in a run's folder is read, changed and written by this process alone, one that trains apart.

    Where another process has begun to train there meanwhile, what was measured is written all the same.
    """
    path = _place(folder)
    ours = path in _held  # for longer
    if not ours and not _take(path, PATIENCE_S):
        tell(f"advss: warning: {_in_use(folder)}; what was measured is written all the same")
        ours = True
    try:
        yield
    finally:
        if not ours:
            _release(path)


def check_free(folder: Path) -> None:
    """Raise UsageError where another process trains in a run's folder."""
    with locked(folder):
        pass


def in_use(folder: Path) -> str:
    """Who works in a folder, in a line; empty where nobody does."""
    path = _place(folder)
    if path in _held or (path.is_file() and not _take(path, 0)):
        return _in_use(folder)
    _release(path)
    return ""


def held(folder: Path) -> bool:
    """Whether a process works in a folder; nothing is made or written there to find out."""
    path = _place(folder)
    if path in _held:
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_LINK)
    except OSError:  # nobody ever has
        return False
    try:
        return not _flock(descriptor, shared=True)
    except OSError:  # there are no locks here
        return False
    finally:
        os.close(descriptor)


def _place(folder: Path) -> Path:
    return folder.resolve() / LOCK


def _take(path: Path, patience_s: float) -> bool:
    """Whether this process has the lock now, or there are none here, which is said; ``patience_s`` are waited for."""
    if path in _held:
        return False
    descriptor, deadline = -1, time.monotonic() + patience_s
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        while not _flock(descriptor):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(LOOK_S)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        if error.errno not in UNLOCKABLE:
            raise UsageError(f"cannot lock {path}: {error.strerror}; runs are written where they lie") from error
        _warn_once(f"{path.parent} cannot be locked ({error.strerror}); let no two processes work in one run")
        return True
    _held[path] = descriptor
    with suppress(OSError):  # a full disk: it is locked without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return True


def _flock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether it is locked now; ``shared`` with others who only look."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "Windows")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(path: Path) -> None:
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        os.close(descriptor)


def _let_go() -> None:
    """Close, in a child, what the parent has locked."""
    for path in list(_held):
        _release(path)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _in_use(folder: Path, what: str = "run") -> str:
    holder = ""
    with suppress(OSError, ValueError):
        holder = _place(folder).read_text("utf-8")
    return f"{what} {folder} is in use by {holder or 'another process'}; wait until it has ended, or end it"


@cache
def _warn_once(line: str) -> None:
    tell(f"advss: warning: {line}")
