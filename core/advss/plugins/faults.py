"""What is wrong with a plugin, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Literal

LONGEST = 300  # characters of an error that are shown
MACHINERY = {"importlib", "pluggy"}  # folders of code that only passes an exception on
Status = Literal["broken", "untidy", "slow"]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a distribution, or a part of it.

    Attributes:
        entry_point: its name
        distribution: its name
        version: of the distribution
        error: one line
        status: broken, a part is not there; untidy, it is, but did what no plugin should; slow to import
        place: file:line where an exception was raised, or empty
    """

    entry_point: str
    distribution: str
    version: str
    error: str
    status: Status = "broken"
    place: str = ""

    def __str__(self) -> str:
        return f"plugin {self.distribution} {self.version} ({self.entry_point}): {self.error}"


def said_by(error: BaseException) -> str:
    """An exception's name and text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own text raises
        return type(error).__name__


def place_of(error: BaseException) -> str:
    """The line of the plugin's, or of what it calls, that raised an exception."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [(Path(frame.f_code.co_filename), number) for frame, number in walk_tb(error.__traceback__)]
    theirs = [(path, number) for path, number in lines if path.suffix == ".py" and not MACHINERY & set(path.parts)]
    outside = [(path, number) for path, number in theirs if path.parent != Path(__file__).parent]
    return "{}:{}".format(*outside[-1]) if outside else ""


def one_line(text: str) -> str:
    """Text without line breaks and control characters, cut where it goes on and on."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 10 * LONGEST]).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
