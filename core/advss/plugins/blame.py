"""Which plugin an exception came from, where in it, and the line that says so."""

from __future__ import annotations

import errno
import inspect
import linecache
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

from advss.memory import NO_MEMORY
from advss.plugins.discovery import Plugin
from advss.plugins.faults import one_line, said_by
from advss.plugins.installed import GROUP

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Suspect:
    """A plugin of a run, that may be the cause of what went wrong.

    Attributes:
        label: its kind in words, such as "pretext task".
        called: the name that finds it.
        distribution: its name.
        version: of the distribution.
        home: the folder of its package, or the file of its only module.
        offered: its class; None of a backbone, which has none.
    """

    label: str
    called: str
    distribution: str
    version: str
    home: Path
    offered: type | None = None

    def __str__(self) -> str:
        of = "" if self.ours else f" ({self.distribution} {self.version})"
        return f"the {self.label} {self.called}{of}"

    @property
    def ours(self) -> bool:
        """Whether it comes with advss."""
        return self.distribution == GROUP

    @property
    def advice(self) -> str:
        """The end of a line: what to do next about a third party's plugin."""
        if self.ours:
            return ""
        if self.offered is None:
            return f"; report it to the makers of {self.distribution}"
        return f"; `advss plugins check {self.called}` says whether it keeps the contract"

    def misses(self, what: str) -> str:
        """The line of something that it gives and that has not the form it should have."""
        return f"{self}: {what}{self.advice}"

    def holds(self, file: str) -> bool:
        """Whether a source file is of its package."""
        return Path(file).is_relative_to(self.home)

    def named(self, file: str) -> str:
        """One of its files, as messages call it: ``flip.py``, or ``advss_flip/views.py``."""
        return str(Path(file).relative_to(self.home.parent))


@dataclass(frozen=True)
class Culprit:
    """A plugin that raised an exception; ``place`` is a line of its own, or empty where it has none."""

    suspect: Suspect
    place: str
    source: str  # the line itself

    def line(self, error: BaseException) -> str:
        """What it raised and where, and what to do next."""
        said = one_line(said_by(error)).removesuffix(":")
        if self.source and said == type(error).__name__:  # an exception without words
            said = f"{said} at `{self.source}`"
        where = f" ({self.place})" if self.place else ""
        return f"{self.suspect} raised {said}{where}{self.suspect.advice}"


def suspect(plugin: Plugin, *, label: str, called: str) -> Suspect | None:
    """A plugin as what may have raised an exception; None of a class that was made without a file."""
    home = home_of(plugin.offered)
    if home is None:
        return None
    return Suspect(label, called, plugin.distribution, plugin.version, home, plugin.offered)


def home_of(offered: type) -> Path | None:
    """Where the package of a class lies; None for a class that was made without a file."""
    try:
        file = inspect.getfile(offered)
    except (OSError, TypeError):
        return None
    in_core = offered.__module__.partition(".")[0] == GROUP  # beside what calls plugins, which is no plugin
    return Path(file) if in_core else package_of(file)


def package_of(file: str) -> Path:
    """The folder of the outermost package of a source file, or the file itself where it is in none."""
    home = Path(file)
    while (home.parent / "__init__.py").is_file():
        home = home.parent
    return home


def of_the_machine(error: BaseException) -> bool:
    """Whether it is for lack of memory, room on a disk or files: that shows in a plugin, and is not of its making."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in FULL):
        return True
    return isinstance(error, RuntimeError) and any(words in said_by(error) for words in NO_MEMORY)


def culprit(error: BaseException, suspects: Iterable[Suspect]) -> Culprit | None:
    """The plugin in whose code, or in whose object's, an exception was raised or last passed on; None if in no one's.

    Args:
        error: as it was caught, with its traceback.
        suspects: the plugins that it may have come from.
    """
    suspects = list(suspects)
    return None if of_the_machine(error) else _last_on_the_way(error, suspects) or _not_callable_so(error, suspects)


def _last_on_the_way(error: BaseException, suspects: list[Suspect]) -> Culprit | None:
    found, file, number = None, "", 0
    for frame, line in walk_tb(error.__traceback__):
        passed = frame.f_code.co_filename
        now = _whose(frame.f_locals.get("self"), passed, found, suspects)
        if now is None:
            continue
        if now is not found:
            found, file = now, ""
        if found.holds(passed):
            file, number = passed, line
    if found is None:
        return None
    return Culprit(found, *_place(found, file, number))


def _whose(thing: Any, file: str, before: Suspect | None, suspects: list[Suspect]) -> Suspect | None:
    """Whose method a frame is, or whose function: of several plugins in one package, the one that called it."""
    own = next((s for s in suspects if s.offered is type(thing)), None)
    holding = [s for s in suspects if s.holds(file)]
    return own or (before if before in holding else next(iter(holding), None))


def _not_callable_so(error: BaseException, suspects: list[Suspect]) -> Culprit | None:
    """The plugin with a method that cannot be called as core calls it: none of its lines was reached."""
    for suspect in suspects if isinstance(error, TypeError) else ():
        for _, method in inspect.getmembers(suspect.offered, inspect.isfunction):
            file = method.__code__.co_filename
            if suspect.holds(file) and str(error).startswith(f"{method.__qualname__}() "):
                return Culprit(suspect, *_place(suspect, file, method.__code__.co_firstlineno))
    return None


def _place(suspect: Suspect, file: str, number: int) -> tuple[str, str]:
    """A line of a plugin's, as messages call it, and the line itself."""
    return (f"{suspect.named(file)}, line {number}", linecache.getline(file, number).strip()) if file else ("", "")
