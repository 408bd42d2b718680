"""``advss runs``: the runs of a folder as a table, as JSON or as CSV."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import runs_dir_of
from advss.cli.run_removed import prune, remove
from advss.cli.run_rows import aligned, as_json, cells, iso
from advss.cli.run_shown import show
from advss.errors import UsageError, did_you_mean
from advss.output import printed
from advss.runs.listing import STATES, Row, listed
from advss.runs.wanted import SORTED, Wanted, in_order

HEADINGS = ("name", "tasks", "defense", "scheme", "data", "TA %", "RA %", "AA %", "state", "size", "date")
RIGHT = {5, 6, 7, 9}  # columns of numbers
ABOVE = 2  # columns that stand on a line of their own where the terminal is narrow


def runs(arguments: Arguments) -> int:
    """``advss runs``."""
    folder, wanted, limit = runs_dir_of(arguments), _wanted(arguments), _limit(arguments)
    key, form = arguments.flag("sort") or "date", arguments.switches & {"json", "csv"}
    in_order((), key)  # before anything is read
    if len(form) > 1:
        raise UsageError("--json and --csv are two forms of one list; choose one")
    if ("runs-dir" in arguments.settings or "ADVSS_RUNS_DIR" in os.environ) and not folder.is_dir():
        raise UsageError(f"--runs-dir: there is no folder {folder}")
    every = listed(folder)
    rows = in_order(filter(wanted.fits, every), key)[:limit]
    if form:
        (print_json if "json" in form else print_csv)(rows)
    elif rows:
        print_table(rows)
    else:
        some = f"none of the {len(every)} runs in {folder} has {_asked(arguments)}"
        print(some if every else f"there are no runs in the folder {folder}")
    return printed()


def _wanted(arguments: Arguments) -> Wanted:
    """What the filters say.

    Raises:
        UsageError: a state that no run has.
    """
    tasks, states = (_several(arguments.flag(flag)) for flag in ("pretext", "state"))
    for state in states:
        if state not in STATES:
            raise UsageError(f"--state: there is no '{state}'{did_you_mean(state, STATES)}")
    defense, scheme, data, name = (arguments.flag(flag) for flag in ("defense", "finetune", "data", "name"))
    return Wanted(tasks, defense, scheme, data, states, name)


def _asked(arguments: Arguments) -> str:
    """The filters as they were typed."""
    said = {flag: value for flag in _FILTERS if (value := arguments.flag(flag)) and flag not in ("sort", "limit")}
    return " ".join(f"--{flag} {value}" for flag, value in said.items())


def _several(said: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (said or "").replace("+", ",").split(",")))


def _limit(arguments: Arguments) -> int | None:
    said = arguments.flag("limit")
    if said is not None and not (said.isdecimal() and int(said) > 0):
        raise UsageError(f"--limit: expected a number of runs above 0, got '{said}'")
    return int(said) if said else None


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print a line a run; on a terminal too narrow for that two: name and tasks, and below them the rest."""
    console = console or Console(highlight=False, markup=False)
    table = [HEADINGS, *map(cells, rows)]
    lines = aligned(table, RIGHT)
    if console.is_terminal and max(map(len, lines)) > console.width:
        above = aligned([line[:ABOVE] for line in table], set())
        rest = [(*line[ABOVE:-1], line[-1].split()[0]) for line in table]  # the day without the minute
        below = aligned(rest, {place - ABOVE for place in RIGHT})
        lines = [f"{first}\n   {second}" for first, second in zip(above, below, strict=True)]
    for place, line in enumerate(lines):
        console.print(line, style="" if place else "bold", soft_wrap=True)


def print_json(rows: Iterable[Row]) -> None:
    """Print a list of objects."""
    print(json.dumps([as_json(row) for row in rows], indent=2))


_CELLS = ("name", "kind", "tasks", "defense", "scheme", "data", "backbone", "members", "ta", "ra", "aa", "state")
_ENDS = ("size", "date", "folder", "ra_images", "aa_images")


def print_csv(rows: Iterable[Row]) -> None:
    """Print a heading and a line a run; several names in a cell are joined by +."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*_CELLS, *_ENDS])
    for row in rows:
        values = [getattr(row, key) for key in _CELLS]
        joined = ["+".join(value) if isinstance(value, tuple) else value for value in values]
        out.writerow([*joined, row.size, iso(row.date), row.folder, row.ra_images, row.aa_images])


_JSON = {"json": "as JSON"}
_YES = {"yes": "do not ask"}
_FILTERS = {
    "pretext": "of these tasks, all of them; none: without any",
    "defense": "with this defense in one of their stages",
    "finetune": "of this scheme of fine-tuning",
    "data": "on these data, in one of their stages",
    "state": f"{', '.join(STATES[:-1])} or {STATES[-1]}; several with commas",
    "name": "whose names are of this pattern, such as 'selfie-*'",
    "sort": f"by {', '.join(SORTED[:-1])} or {SORTED[-1]} (date); -KEY the other way round",
    "limit": "no more than this many",
}
GRAMMARS = [
    (
        runs,
        Grammar("runs", "list runs", (), _FILTERS, {**_JSON, "csv": "as CSV"}, ("runs-dir",)),
    ),
    (show, Grammar("runs show", "all that a run's folder says of it", ("RUN",), {}, _JSON, ("runs-dir",))),
    (
        remove,
        Grammar("runs remove", "remove runs, once you have said yes", ("RUN...",), {}, _YES, ("runs-dir",)),
    ),
    (
        prune,
        Grammar(
            "runs prune",
            "remove from runs, or from all, what neither measuring nor resuming needs",
            ("[RUN...]",),
            {},
            _YES,
            ("runs-dir",),
        ),
    ),
]
