"""While plugins' code runs: stdout stays clean, stdin is empty, and what they change of the process is undone.

A plugin is imported into every ``advss`` that is started. So what it prints there would be in the middle of JSON, what
it draws from torch's generator or sets as its default would change everybody's numbers, and a question that it asks
would hang.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STDOUT = 1
QUOTED = 40  # characters of what was printed that are named


@dataclass(frozen=True)
class Kept:
    """Something of the process that plugins leave alone: what it is called, how it is read and how it is put back."""

    what: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


class Isolation:
    """Open for as long as plugins are read."""

    def __init__(self) -> None:
        self._kept = _kept()
        self._printed: IO[bytes] | None = None

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Undo what the code within does to the process; the list then names it."""
        done: list[str] = []
        printed, before = self._length(), [kept.read() for kept in self._kept]
        try:
            yield done
        finally:
            done += self._said(printed)
            changed = [kept for kept, was in zip(self._kept, before, strict=True) if _put_back(kept, was)]
            done += [f"changed {' and '.join(kept.what for kept in changed)}, put back"] if changed else []

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within, stdout goes to a file, at the level of the operating system too, and stdin is empty."""
        with ExitStack() as stack:
            for name in ("stdin", "stdout", "stderr"):
                stack.callback(setattr, sys, name, getattr(sys, name))
            self._printed = stack.enter_context(_scratch())
            sys.stdin = io.StringIO()
            if _descriptor(sys.stdout) != STDOUT:  # a notebook's, a test's
                copy = os.fdopen(os.dup(self._printed.fileno()), "wb")
                sys.stdout = io.TextIOWrapper(copy, encoding="utf-8", errors="replace", write_through=True)
            stack.enter_context(_redirected(self._printed.fileno()))
            yield

    def _length(self) -> int:
        _flush()
        return os.fstat(self._printed.fileno()).st_size if self._printed else 0

    def _said(self, since: int) -> list[str]:
        length = self._length() - since
        if length <= 0 or self._printed is None:
            return []
        start = os.pread(self._printed.fileno(), QUOTED, since).decode("utf-8", "replace")
        dots = "..." if length > QUOTED else ""
        return [f"printed {length:,} bytes on stdout, left out: {' '.join(start.split())!r}{dots}"]


def _scratch() -> IO[bytes]:
    """A file for what is printed, or nowhere, where none can be made."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return Path(os.devnull).open("wb")


@contextmanager
def _redirected(target: int) -> Iterator[None]:
    """What is written to the descriptor of stdout goes to ``target``."""
    _flush()
    try:
        saved = os.dup(STDOUT)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    os.dup2(target, STDOUT)
    try:
        yield
    finally:
        _flush()
        os.dup2(saved, STDOUT)
        os.close(saved)


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        with suppress(Exception):  # closed or replaced by whatever a plugin put there
            if stream is not None:
                stream.flush()


def _descriptor(stream: Any) -> int | None:
    try:
        descriptor: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor


def _put_back(kept: Kept, was: Any) -> bool:
    """Whether it was changed."""
    if kept.read() == was:
        return False
    kept.write(was)
    return True


def _kept() -> Sequence[Kept]:
    import torch

    def generator() -> bytes:
        return bytes(torch.get_rng_state().numpy())

    def restore(was: bytes) -> None:
        torch.set_rng_state(torch.frombuffer(bytearray(was), dtype=torch.uint8))

    def device(was: torch.device) -> None:
        torch.set_default_device(None if was.type == "cpu" else was)

    return (
        Kept("torch's global generator", generator, restore),
        Kept("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Kept("torch's default device", torch.get_default_device, device),
        Kept("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        Kept("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Kept("the warnings' filters", _filters_of_everything, _remove_other_filters),
        Kept("the working directory", _here, _go_back),
    )


def _filters_of_everything() -> list[Any]:
    """Filters that hide every warning or raise it; narrower ones are a library's own affair."""
    return [f for f in warnings.filters if f[0] in ("ignore", "error") and f[1:] == (None, Warning, None, 0)]


def _remove_other_filters(was: list[Any]) -> None:
    added = [f for f in _filters_of_everything() if f not in was]
    warnings.filters[:] = [f for f in warnings.filters if f not in added]  # type: ignore[index]


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # removed
        return None


def _go_back(was: Path | None) -> None:
    if was is not None:
        with suppress(OSError):
            os.chdir(was)
