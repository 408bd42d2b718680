"""Which of the listed runs are looked for, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from advss.errors import UsageError, did_you_mean
from advss.runs.listing import Row

SORTED = ("name", "tasks", "defense", "scheme", "data", "ta", "ra", "aa", "state", "size", "date")
_FALLING = ("ta", "ra", "aa", "size", "date")  # the highest, largest and newest first


@dataclass(frozen=True)
class Wanted:
    """Which runs are looked for; nothing where all will do.

    Attributes:
        pretext: tasks, all of which a run has; "none" is a run without.
        defense: of one of its stages.
        finetune: its scheme.
        data: of one of its stages.
        state: one of these.
        name: a pattern, as of file names.
    """

    pretext: tuple[str, ...] = ()
    defense: str | None = None
    finetune: str | None = None
    data: str | None = None
    state: tuple[str, ...] = ()
    name: str | None = None

    def fits(self, row: Row) -> bool:
        """Whether a row is looked for."""
        tasks = set(map(_short, row.tasks)) or ({"none"} if row.scheme else set())
        chosen = ((self.defense, row.defense), (self.finetune, (row.scheme or "",)), (self.data, row.data))
        return (
            all(_short(task) in tasks for task in self.pretext)
            and all(wanted is None or _short(wanted) in map(_short, had) for wanted, had in chosen)
            and (not self.state or row.state in self.state)
            and (self.name is None or fnmatchcase(row.name, self.name))
        )


def _short(name: str) -> str:
    """A plugin's name without its distribution."""
    return name.rpartition(":")[2]


def in_order(rows: Iterable[Row], key: str) -> list[Row]:
    """Rows by a key of :data:`SORTED`, what has no value last; ``-`` before the key turns the order round.

    Raises:
        UsageError: there is no such key.
    """
    name = key.removeprefix("-").lower()
    if name not in SORTED:
        raise UsageError(f"--sort: there is no '{key}'{did_you_mean(name, SORTED)}")
    falling = (name in _FALLING) != key.startswith("-")
    rows = sorted(rows, key=lambda row: row.name)
    there = [row for row in rows if getattr(row, name) not in (None, ())]
    there.sort(key=lambda row: getattr(row, name), reverse=falling)
    return there + [row for row in rows if getattr(row, name) in (None, ())]
