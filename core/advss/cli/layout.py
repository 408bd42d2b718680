"""How help and lists of plugins are laid out: tables without a frame, values as they would be typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from advss.attacks.threat import length_text
from advss.plugins import Option

WIDEST = 120  # characters of a line, whatever the terminal has


def new_console() -> Console:
    """A console on stdout."""
    console = Console(highlight=False, markup=False)
    console.width = min(console.width, WIDEST)
    return console


def new_table(title: str, headings: Sequence[str]) -> Table:
    """A table without frame; the last column takes the rest of the line and wraps."""
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.show_header, table.padding = any(headings), (0, 2, 0, 0)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), no_wrap=place == 0, overflow="fold", header_style="bold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: brackets are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def print_table(console: Console, table: Table) -> None:
    """Print a table and an empty line."""
    console.print(table)
    console.print()


def print_rows(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print what there is, with a line on each."""
    table = new_table(title, ("", ""))
    for flag, doc in rows:
        add_row(table, flag, doc)
    print_table(console, table)


def print_options(console: Console, title: str, options: Iterable[tuple[str, Option, Any]]) -> None:
    """Print flags with value, documentation and type; nothing where there are none."""
    table = new_table(title, ("", "", ""))
    for flag, option, value in options:
        add_row(table, flag, written(value), documented(option))
    if table.row_count:
        print_table(console, table)


def documented(option: Option) -> str:
    """Documentation and type in one."""
    return f"{option.doc.removesuffix('.')} ({option.type})".lstrip()


def written(value: Any) -> str:
    """A value as it would be written on the line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return length_text(value)
    if isinstance(value, tuple | list):
        return "[" + ",".join(written(item) for item in value) + "]"
    return str(value)


def reflowed(text: str) -> list[str]:
    """The paragraphs of a docstring, its lines joined, since the screen's width is not the source's.

    Lists, code and whatever else is indented stay as they are; what documents the options is left out.
    """
    paragraphs: list[str] = []
    options = False
    for block in text.replace("``", "").split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        options = bool(lines) and (lines[0].strip() in ("Args:", "Attributes:") or (options and lines[0][0] == " "))
        if lines and not options:
            kept = any(line[0] in " -*|>" for line in lines)
            paragraphs.append("\n".join(lines) if kept else " ".join(line.strip() for line in lines))
    return paragraphs
