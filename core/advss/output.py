"""What is printed stops nobody: a stream that is closed, full or of few letters costs its own text and nothing else."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

BROKEN_PIPE = 141  # as a shell calls a process whose reader has gone
LEGIBLE = "advss.legible"
LETTERS = {
    **{"ℓ": "L", "∞": "inf", "×": "x", "α": "alpha", "δ": "delta", "ε": "eps", "σ": "sigma", "Σ": "sum"},
    **{"✓": "ok", "✗": "FAILED", "–": "-", "−": "-", "─": "-", "…": "...", "≤": "<=", "≥": ">=", "±": "+-"},
}


def _legible(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that an encoding lacks: ℓ∞ is Linf, and what has no such name is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(LETTERS.get(x) or x.encode("ascii", "backslashreplace").decode() for x in lacking), error.end


codecs.register_error(LEGIBLE, _legible)


class Forgiving:
    """A text stream around another that never raises: what cannot be written is left out, and ``error`` says why."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or Path(os.devnull).open("w")  # noqa: SIM115 - closed from the start: nowhere
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write what can be written."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with self._forgiving():
            self.stream.write(text.encode(encoding, LEGIBLE).decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with self._forgiving():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a disk, a pipe, a notebook: each has errors of its own
            self.error = error


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Within, nothing that is printed on stdout or stderr raises, whoever prints it."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (s if isinstance(s, Forgiving) else cast(TextIO, Forgiving(s)) for s in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def tell(line: str) -> None:
    """Print a line on stderr, if that can be; from any thread."""
    stream = sys.stderr if isinstance(sys.stderr, Forgiving) else Forgiving(sys.stderr)
    stream.write(f"{line}\n")
    stream.flush()


@contextmanager
def process_output() -> Iterator[None]:
    """As :func:`forgiving_output`, for a whole process and to its end; where stdout fails for want of space, say so."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # one that was closed would be a run's next file
        pass
    os.close(descriptor)
    with forgiving_output():
        try:
            yield
        finally:
            error = failure()
            if error is not None and not isinstance(error, BrokenPipeError):
                tell(f"advss: warning: not all could be printed on stdout: {getattr(error, 'strerror', None) or error}")
            for stream in (sys.stdout, sys.stderr):
                _let_go(stream)


def failure() -> Exception | None:
    """Why something could not be printed on stdout since the process began; None where all was."""
    sys.stdout.flush()
    return sys.stdout.error if isinstance(sys.stdout, Forgiving) else None


def printed(code: int = 0) -> int:
    """The exit code of a command that does nothing but print: ``code`` where that succeeded."""
    error = failure()
    if error is None:
        return code
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else 1


def _let_go(stream: TextIO) -> None:
    """Drop what a stream still holds and cannot write: Python would try once more at the end, and fail by it."""
    inner = stream.stream if isinstance(stream, Forgiving) else stream
    try:
        inner.flush()
    except Exception:
        with suppress(Exception):
            os.dup2(os.open(os.devnull, os.O_WRONLY), inner.fileno())
