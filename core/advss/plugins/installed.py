"""Installed distributions that have plugins, found without importing anything of theirs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from advss.switches import normal

GROUP = "advss"
ENTRY_POINTS = "entry_points.txt"


@dataclass(frozen=True)
class Installed:
    """A distribution with entry points in our group.

    Attributes:
        name: as its metadata spell it
        version: likewise
        entry_points: those of our group
        place: the folder of its metadata; None where it is not on a disk
        error: why its entry points cannot be read
    """

    name: str
    version: str
    entry_points: tuple[EntryPoint, ...] = ()
    place: Path | None = None
    error: str = ""


def installed() -> list[Installed]:
    """Distributions with plugins by name, advss first; of two of one name the first on the path counts."""
    first: dict[str, Installed | None] = {}
    for distribution in distributions():
        with suppress(Exception):  # metadata that cannot be read: a half-removed installation, which no plugin can be
            key = _key(distribution)
            if key not in first:
                first[key] = _read(distribution)
    named = [(key, found) for key, found in first.items() if found]
    return [found for _, found in sorted(named, key=lambda one: (one[0] != GROUP, one[0]))]


def _key(distribution: Distribution) -> str:
    """The name of a distribution in one spelling, from its folder's name: reading all metadata takes 50 ms."""
    return normal(getattr(distribution, "_normalized_name", None) or distribution.name)


def _read(distribution: Distribution) -> Installed | None:
    """A distribution's plugins; None where it has none."""
    if f"[{GROUP}]" not in (distribution.read_text(ENTRY_POINTS) or ""):
        return None
    place = getattr(distribution, "_path", None)
    place = place if isinstance(place, Path) else None
    name, version = _identity(distribution, place)
    try:
        own = tuple(e for e in distribution.entry_points if e.group == GROUP)
    except Exception as error:
        return Installed(name, version, (), place, f"{ENTRY_POINTS} cannot be read: {error}")
    return Installed(name, version, own, place)


def _identity(distribution: Distribution, place: Path | None) -> tuple[str, str]:
    """Name and version by the metadata's head, whose body may be long, or else by the folder's name."""
    name, version = (place.stem if place else "").partition("-")[::2]
    head = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "").partition("\n\n")[0]
    fields = dict(line.partition(":")[::2] for line in head.splitlines())
    return fields.get("Name", "").strip() or name or "?", fields.get("Version", "").strip() or version or "?"
