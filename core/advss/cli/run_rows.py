"""What stands of a run in a table, in JSON and in CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from advss.runs.listing import Row, printable

KINDS = {"ensemble": "average of", "transfer": "comparison of"}
NONE = "-"


def cells(row: Row) -> tuple[str, ...]:
    """Name, tasks, defense, scheme, data, TA, RA, AA, state, size and date as texts; a dash for what it has not."""
    tasks = "+".join(row.tasks) or "none"
    if row.kind in KINDS:
        tasks = f"{KINDS[row.kind]} {', '.join(row.members)}"
    choices = ("/".join(row.defense) or NONE, row.scheme or NONE, "/".join(row.data) or NONE)
    shares = [NONE if share is None else f"{100 * share:.2f}" for share in (row.ta, row.ra, row.aa)]
    if row.aa is not None and row.aa_images != row.ra_images:
        shares[-1] += f" of {row.aa_images}"
    return (
        printable(row.name),
        tasks if row.kind else NONE,
        *choices,
        *shares,
        row.state,
        in_bytes(row.size),
        on_day(row.date),
    )


def in_bytes(size: float | None) -> str:
    """A size in the largest unit that leaves a number above 1: ``2.1 MB``."""
    if size is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, "TB"
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"


def on_day(time_s: float | None) -> str:
    """A time, in seconds since 1970, as the clock here shows it."""
    return NONE if time_s is None else datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M")


def iso(time_s: float | None) -> str | None:
    """A time as ISO 8601 has it, in UTC."""
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def as_json(row: Row) -> dict[str, Any]:
    """A row in JSON's types: shares from 0 to 1, sizes in bytes."""
    return asdict(row) | {"folder": str(row.folder), "date": iso(row.date)}


def aligned(lines: Sequence[tuple[str, ...]], right: set[int]) -> list[str]:
    """Lines of cells in columns as wide as their widest, those of ``right`` flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(_padded(*cell, right=right) for cell in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]


def _padded(place: int, cell: tuple[str, int], *, right: set[int]) -> str:
    return cell[0].rjust(cell[1]) if place in right else cell[0].ljust(cell[1])
