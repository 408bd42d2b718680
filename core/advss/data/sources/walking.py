"""The files below a folder, as a careful user counts them: hidden means hidden, and links are followed once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

LINKED = "linked folders that were read already"


def files_below(
    folder: Path, passed_over: Counter[str], *, hidden: tuple[str, ...] = (".",), apart: Collection[str] = ()
) -> list[Path]:
    """The files at any depth below ``folder``, sorted.

    Linked folders are followed where their files have not been read already: real folders come first, and a link to
    a folder above is a circle.

    Args:
        folder: where to begin.
        passed_over: is told of hidden files and of links that are not followed.
        hidden: beginnings of the names of hidden files and folders; files in hidden folders are hidden, too.
        apart: names of folders in ``folder`` that are not looked into.
    """
    seen = {_identity(above) for above in folder.resolve().parents}
    found = []
    folders, links = [(folder, False)], list[tuple[Path, bool]]()
    while folders or links:
        place, is_hidden = (folders or links).pop(0)
        if _identity(place) in seen:
            passed_over[LINKED] += 1
            continue
        seen.add(_identity(place))
        for entry in _entries(place):
            below = is_hidden or entry.name.startswith(hidden)
            if place == folder and entry.name in apart:
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append((place / entry.name, below))
            elif below:
                passed_over["hidden"] += 1
            else:
                found.append(place / entry.name)
    return sorted(found)


def kind_of(path: Path) -> str:
    """What a file that is passed over is called: its ending."""
    return path.suffix.lower() or "without ending"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
