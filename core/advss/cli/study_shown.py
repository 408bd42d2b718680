"""What is printed of studies: the plan, how they go on, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from advss.cli.layout import add_row, new_console, new_table, print_table
from advss.cli.table import percent

if TYPE_CHECKING:
    from advss.studies.folder import State, StudyFolder
    from advss.studies.run import Laid, View

WORST: tuple[State, ...] = (
    "failed",
    "not run",
    "stopped",
    "running",
    "waiting",
    "done",
)  # what a cell of several seeds is called


def print_plan(laid: Laid) -> None:
    """Print the stages, how many cells share each, and what they cost."""
    console, plan = new_console(), laid.plan
    shares = Counter(stage.run for of in plan.cells for stage in (of.pretraining, of.run) if stage)
    table = new_table("", ("stage", "run", "cells", "passes", "time"))
    for stage in plan.stages.values():
        cost = laid.costs.get(stage.run)
        spent = (f"{cost['passes']:,}", duration(cost["seconds"])) if cost else ("-", "-")
        add_row(table, stage.kind, stage.run, str(shares[stage.run] or len(stage.after)), *spent)
    print_table(console, table)
    apart = sum((of.pretraining is not None) + (of.run is not None) for of in plan.cells)
    settings = len({of.cell.label for of in plan.cells})
    shared = f"{len(laid.costs)} trainings in place of {apart} by separate fits"
    console.print(f"{settings} settings, {len(plan.cells)} cells; {shared}")
    passes, seconds = (sum(cost[key] for cost in laid.costs.values()) for key in ("passes", "seconds"))
    console.print(f"{passes:,} passes, about {duration(seconds)} on this machine, evaluations not counted")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def print_study(folder: StudyFolder) -> None:
    """Print what came of each setting, over its seeds."""
    states, console = folder.states(), new_console()
    table = new_table(f"study {folder.path}", ("cell", "seeds", "TA", "RA", "state"))
    for label, cells in _by_label(folder).items():
        results = [folder.run(cell["run"]).read_result() for cell in cells if cell["run"]]
        stood = [folder.state_of(cell, states) for cell in cells]
        done = sum(state == "done" for state, _ in stood)
        shown = [percent(_mean(result.get(key) for result in results)) for key in ("ta", "ra")]
        add_row(table, label, f"{done} of {len(cells)}", *shown, _state(stood))
    print_table(console, table)
    for kind in ("ensembles", "transfers"):
        for joint in folder.content[kind]:
            state, why = states[joint["run"]]
            found = folder.run(joint["run"]).read_result() if state == "done" and kind == "ensembles" else {}
            said = f"TA {percent(found.get('ta'))}, RA {percent(found.get('ra'))}" if found else why or state
            console.print(f"{kind[:-1]} {joint['name']}, seed {joint['seed']}: {said}")
    for run, (state, why) in states.items():
        if state == "failed":
            console.print(Text(f"{run} failed: {why}"), soft_wrap=True)


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _by_label(folder: StudyFolder) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in folder.content["cells"]:
        found.setdefault(cell["label"], []).append(cell)
    return found


def _state(found: list[tuple[State, str]]) -> str:
    """The worst of several, and why."""
    state, why = min(found, key=lambda one: WORST.index(one[0]))
    return f"{state}: {why}" if why and state == "not run" else state


def view_of(*, quiet: bool) -> Callable[[StudyFolder], AbstractContextManager[View]]:
    """The view that suits where stderr goes."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return lambda folder: _lines(console, folder, quiet=quiet)
    return lambda folder: _live(console, folder)


class Left:
    """How long a study takes still, by what its stages cost and how fast they have been done since it began."""

    def __init__(self, costs: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.costs, self.clock = costs, clock
        self.began, self.before = clock(), -1.0

    def seconds(self, unfinished: Collection[str]) -> float:
        """What these runs still take; at first as the plan has it."""
        left, whole = sum(self.costs.get(run, 0.0) for run in unfinished), sum(self.costs.values())
        self.before = whole - left if self.before < 0 else self.before
        done = whole - left - self.before
        return left * (self.clock() - self.began) / done if done else left


class _Lines:
    """A line a stage that begins or ends."""

    def __init__(self, console: Console, folder: StudyFolder, *, quiet: bool) -> None:
        self.console, self.quiet = console, quiet
        self.left = Left({run: (stage["cost"] or {}).get("seconds", 0.0) for run, stage in folder.stages.items()})
        self.before: dict[str, State] = {}

    def show(self, states: Mapping[str, tuple[State, str]]) -> None:
        """Tell of what has begun or ended since the last look."""
        far = self.how_far(states)
        for run, (state, _) in states.items():
            if self.before and self.before.get(run) != state and state in ("running", "done") and not self.quiet:
                self.say(f"{state} {run} ({far})")
            self.before[run] = state

    def how_far(self, states: Mapping[str, tuple[State, str]]) -> str:
        """Stages done, and the time that the others take."""
        unfinished = [run for run, (state, _) in states.items() if state not in ("done", "failed", "not run")]
        left = f", about {duration(self.left.seconds(unfinished))} left" if unfinished else ""
        return f"{sum(state == 'done' for state, _ in states.values())} of {len(states)} done{left}"

    def say(self, line: str) -> None:
        """Print the line."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Counts(_Lines):
    """Counts that stand at the end of the screen."""

    def __init__(self, console: Console, folder: StudyFolder, live: Live) -> None:
        super().__init__(console, folder, quiet=True)
        self.live = live

    def show(self, states: Mapping[str, tuple[State, str]]) -> None:
        """Renew the counts."""
        counts = Counter(state for state, _ in states.values())
        others = "".join(f", {counts[state]} {state}" for state in WORST[:-1] if counts[state])
        running = [run for run, (state, _) in states.items() if state == "running"]
        self.live.update(Text("\n".join([f"{self.how_far(states)}{others}", *(f"  {run}" for run in running)])))


@contextmanager
def _lines(console: Console, folder: StudyFolder, *, quiet: bool) -> Iterator[View]:
    yield _Lines(console, folder, quiet=quiet)


@contextmanager
def _live(console: Console, folder: StudyFolder) -> Iterator[View]:
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        yield _Counts(console, folder, live)
