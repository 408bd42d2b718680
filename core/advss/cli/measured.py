"""What was measured of several runs: one table, JSON or CSV.

``found`` is, of each run, its label and what :func:`advss.evaluations.evaluate.evaluate` returned.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from advss.cli.table import percent, print_doubt, print_places
from advss.cli.titled import accuracies_of, title_of_figure, titles_of

Found = Sequence[tuple[str, Mapping[str, Any]]]
Figure = Mapping[str, Any]  # an accuracy with its interval and number of images
NARROW, WIDE = 11, 23  # characters of a column with intervals below the accuracies, and beside them
HEADINGS = ("run", "evaluation", "title", "figure", "value", "low", "high", "images", "before", "file")


@dataclass(frozen=True)
class Column:
    """An accuracy by one measurement, of each run that was measured so."""

    title: str
    name: str
    words: str  # its name, as people read it
    figures: dict[str, Figure] = field(default_factory=dict)  # by run

    def heading(self, width: int) -> str:
        """Its name, what measured it, and of how many images where that is one number."""
        counts = {one["images"] for one in self.figures.values()}
        images = f"{counts.pop()} images" if len(counts) == 1 else ""
        title = "" if self.name == "ta" else self.title  # unattacked, whatever measured it
        return "\n".join(line for text in (self.words, title, images) for line in wrap(text, width))

    def cell(self, run: str, *, wide: bool) -> str:
        """A run's accuracy, and beside or below it its interval."""
        one = self.figures.get(run)
        if one is None:
            return percent(None)
        low, high = (f"{100 * end:.1f}" for end in one["interval"])
        return f"{percent(one['accuracy'])} ({low} to {high})" if wide else f"{percent(one['accuracy'])}\n{low}–{high}"


def print_runs(found: Found, console: Console | None = None) -> None:
    """Print a row a run and a column an accuracy, notes, and where the numbers lie."""
    console = console or Console()
    columns, runs = columns_of(found), [run for run, _ in found]
    for table in _tables(columns, runs, console):
        console.print(table)
    _print_notes(found, console)
    console.print()
    files = [Path(result["folder"]) / one["file"] for _, result in found for one in result["measured"]]
    print_places([("numbers", str(file)) for file in files], console)


def columns_of(found: Found) -> list[Column]:
    """The accuracies in the order in which they were measured; TA of the same images is one, whatever measured it."""
    columns: dict[tuple[str, str], Column] = {}
    for run, result in found:
        measured = result["measured"]
        for title, content in zip(titles_of(measured), measured, strict=True):
            for name, one in accuracies_of(content).items():
                column = Column(title, name, title_of_figure(content, name))
                columns.setdefault((title, name), column).figures[run] = one
    kept: list[Column] = []
    for column in columns.values():
        if column.name != "ta" or column.figures not in [other.figures for other in kept if other.name == "ta"]:
            kept.append(column)
    return kept


def _tables(columns: Sequence[Column], runs: Sequence[str], console: Console) -> Iterator[Table]:
    """One table, where the console has room; else with intervals below the accuracies, and else as few as fit."""
    whole = _table(columns, runs, wide=True)
    if _fits(whole, console):
        yield whole
        return
    left = list(columns)
    while left:
        count = next((n for n in range(len(left), 1, -1) if _fits(_table(left[:n], runs, wide=False), console)), 1)
        yield _table(left[:count], runs, wide=False)
        left = left[count:]


def _fits(table: Table, console: Console) -> bool:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width


def _table(columns: Sequence[Column], runs: Sequence[str], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("run\n(95 % interval)" if wide else "run, 95 %\ninterval", overflow="fold")
    for column in columns:
        table.add_column(column.heading(WIDE if wide else NARROW), justify="right", overflow="fold")
    for run in runs:
        table.add_row(run, *(column.cell(run, wide=wide) for column in columns))
    return table


def _print_notes(found: Found, console: Console) -> None:
    before: dict[str, list[str]] = {}
    for run, result in found:
        print_doubt(result, console, of=run)
        measured = result["measured"]
        for title, content in zip(titles_of(measured), measured, strict=True):
            for note in content["figures"].get("notes", ()):
                _print_line(f"note: {run}: {title}: {note}", console)
            if content.get("measured_before"):
                before.setdefault(title, []).append(run)
    for title, runs in before.items():
        _print_line(f"measured before: {title} of {', '.join(runs)}", console)


def _print_line(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_json(found: Found) -> None:
    """Print a list: of each run its name, folder and the content of its measurements' files."""
    told = [
        {"run": run, "folder": result["folder"], "doubt": result.get("doubt"), "measured": result["measured"]}
        for run, result in found
    ]
    print(json.dumps(told, indent=2, ensure_ascii=False))


def print_csv(found: Found) -> None:
    """Print a heading and a line for every accuracy, with its interval, and every other number."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(HEADINGS)
    for run, result in found:
        for content in result["measured"]:
            which = (run, content["evaluation"], content["title"])
            end = (content.get("measured_before", False), Path(result["folder"]) / content["file"])
            out.writerows((*which, *row, *end) for row in _rows(content["figures"]))


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Name, value, the interval's ends and the number of images; empty where there are none."""
    for name, one in figures.items():
        if isinstance(one, Mapping) and "interval" in one:
            yield name, one["accuracy"], *one["interval"], one["images"]
        elif isinstance(one, int | float):
            yield name, one, "", "", ""
