"""Commands over several finished runs: their average as a model, and how attacks transfer between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import WHERE, check_plugins, find, reporter_of, runs_dir_of, where_now
from advss.cli.table import percent, print_doubt, print_places, print_result
from advss.configuration.settings import MEASURING
from advss.naming import as_typed
from advss.output import tell
from advss.training.signals import Interrupted


def ensemble(arguments: Arguments) -> int:
    """``advss ensemble RUN RUN...``."""
    from advss.evaluations.ensemble import ensemble as average

    runs, asked = _runs(arguments), _asked(arguments)
    subsets, reporter = "subsets" in arguments.switches, reporter_of(arguments)
    hint = "the model is kept: `advss evaluate {run}` measures it"
    return _until_stopped(lambda: print_ensemble(average(runs, asked, subsets=subsets, reporter=reporter)), hint)


def transfer(arguments: Arguments) -> int:
    """``advss transfer RUN RUN...``."""
    from advss.evaluations.transfer import transfer as attack

    runs, asked, reporter = _runs(arguments), _asked(arguments), reporter_of(arguments)
    hint = "what was made of the examples is kept, the same command goes on"
    return _until_stopped(lambda: print_transfer(attack(runs, asked, reporter=reporter)), hint)


def print_ensemble(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the average's result, and that of every subset where they were measured."""
    console = console or Console()
    print_result(result, console)
    if "subsets" not in result:
        return
    table = _table("averaged", "TA", "RA")
    for row in result["subsets"]:
        table.add_row(" + ".join(row["members"]), percent(row["ta"]), percent(row["ra"]))
    console.print()
    console.print(table)
    for row in result["subsets"][:-1]:  # the whole's stands above
        print_doubt(row, console, of=" + ".join(row["members"]))


def print_transfer(outcome: Mapping[str, Any], console: Console | None = None) -> None:
    """Print both ASR matrices, how far the transferred examples overlap, and where everything lies."""
    console = console or Console()
    labels = outcome["models"]
    table = _table("1 - RA: attacked \\ made on", *labels, "TA", "clean error")
    for label, row, ta, error in zip(labels, outcome["asr"], outcome["ta"], outcome["error"], strict=True):
        table.add_row(label, *map(percent, row), percent(ta), percent(error))
    console.print(table)
    console.print()
    table = _table("of images both have right", *labels)
    for label, rates, counts in zip(labels, outcome["asr_both_right"], outcome["both_right"], strict=True):
        table.add_row(label, *(f"{percent(rate)} of {count}" for rate, count in zip(rates, counts, strict=True)))
    console.print(table)
    for ran in outcome["runs"]:
        print_doubt(ran, console, of=ran["model"])
    console.print()
    if len(labels) > 2:
        _print_overlap(outcome, console)
    folder = Path(outcome["folder"])
    print_places([(what, str(folder / where)) for what, where in _FILES], console)


_FILES = (("numbers", "transfer.json"), ("figures", "figures"))


def _print_overlap(outcome: Mapping[str, Any], console: Console) -> None:
    table = _table(f"of {len(outcome['all_right'])} images all have right", "on others", "on all of them", "not shared")
    for source in outcome["models"]:
        found = outcome["overlap"][source]["others_right"]
        others = len(outcome["models"]) - 1
        shared = sum(region["count"] for region in found["regions"] if len(region["models"]) == others)
        table.add_row(source, f"{found['union']} images", str(shared), percent(found["not_shared"]))
    console.print(table)
    console.print()


def _until_stopped(work: Callable[[], None], hint: str) -> int:
    """Do the work; where a signal stops it, say what is kept and return the signal's exit code."""
    try:
        work()
    except Interrupted as stop:
        tell(f"advss: {stop}; {hint.format(run=as_typed(stop.run))}")
        return stop.exit_code
    return 0


def _runs(arguments: Arguments) -> list[Path]:
    check_plugins(arguments)
    return [find(run, arguments) for run in arguments.positionals]


def _asked(arguments: Arguments) -> Any:
    """How the first run was evaluated, with what the line and the environment say; the outcome lies beside it."""
    from advss.runs.finished import Asked
    from advss.runs.stored import stored_config

    first = find(arguments.positionals[0], arguments)
    config = stored_config(first, {"name": None, **arguments.settings}, environ=os.environ, text=True)
    said = "runs-dir" in arguments.settings or "ADVSS_RUNS_DIR" in os.environ
    runs_dir = runs_dir_of(arguments) if said else first.parent
    return Asked(config.evaluation, runs_dir, config.name, config.device, config.tracking, where_now(arguments))


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table


_TAKEN = ("name", "device", "runs-dir", "tracking", *MEASURING)
_QUIET = {"quiet": "no progress on the screen"}
_SUBSETS = {"subsets": "measure the average of every subset of the runs too, single ones included"}
GRAMMARS = [
    (
        ensemble,
        Grammar(
            "ensemble",
            "average the classifiers of several runs and measure TA and RA of the average, as a run",
            ("RUN", "RUN..."),
            WHERE,
            {**_SUBSETS, **_QUIET},
            _TAKEN,
            {"limit": "eval-limit"},
        ),
    ),
    (
        transfer,
        Grammar(
            "transfer",
            "attack each of several runs' models and measure how far the attacks succeed on the others",
            ("RUN", "RUN..."),
            WHERE,
            _QUIET,
            _TAKEN,
            {"limit": "eval-limit"},
        ),
    ),
]
