"""``advss certify RUN``: short for ``advss evaluate RUN --evaluate certify``, with a table of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import WHERE, check_plugins, find, reporter_of, where_now
from advss.cli.table import pages, percent, print_notes, print_places
from advss.config import Choice
from advss.errors import UsageError

NAME = "certify"
FLAGS, SWITCH = ("sigma", "n0", "n", "alpha", "limit", "batch-size"), "other-sigma"  # the evaluation's options
AT = "accuracy_"  # before a radius


def certify(arguments: Arguments) -> int:
    """``advss certify RUN``."""
    from advss.runs.stored import stored_config

    folder = find(arguments.positionals[0], arguments)
    check_plugins(arguments)
    said = {flag: value for flag, value in arguments.settings.items() if flag == "device"}
    config = stored_config(folder, {**said, "eval-limit": "0"}, environ=os.environ, text=True)
    from advss.evaluations import evaluate as stage

    reporter, where = reporter_of(arguments), where_now(arguments)
    with _said_shortly(folder):
        result = stage.evaluate(
            folder, config.evaluation, [_chosen(arguments)], device=config.device, where=where, reporter=reporter
        )
    (content,) = result["measured"]
    print_certified(folder, content)
    return 0


def print_certified(folder: Path, content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what was certified on stdout: a measurement's content, with its ``file``."""
    console, figures, options = console or Console(), content["figures"], content["options"]
    sample = f"{content['images']['count']} images, n {options['n']:,}, α {options['alpha']:g}"
    title = f"run {folder.name}: accuracy certified within ℓ2 radii, σ {figures['sigma']:g}, {sample}"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    at = [(name.removeprefix(AT), one) for name, one in figures.items() if name.startswith(AT)]
    columns = [(radius, percent(one["accuracy"])) for radius, one in [("0", figures["clean_accuracy"]), *at]]
    columns += [("abstained", percent(figures["abstained"])), ("ACR", f"{figures['acr']:.3f}")]
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    table.add_row(*(cell for _, cell in columns))
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    print_notes([content], console)
    console.print()
    drawn = [("figure", str(folder / picture)) for picture in content.get("pictures", ())]
    places = [("certificate", str(folder / content["file"])), *drawn, ("MLflow", pages(folder))]
    print_places(places, console)


def _chosen(arguments: Arguments) -> Choice:
    said: dict[str, Any] = {f.replace("-", "_"): arguments.flag(f) for f in FLAGS if f in arguments.flags}
    return Choice(NAME, said | {SWITCH.replace("-", "_"): True} if SWITCH in arguments.switches else said)


@contextmanager
def _said_shortly(folder: Path) -> Iterator[None]:
    """Errors call options and model as this command does."""
    try:
        yield
    except UsageError as error:
        line = str(error).removeprefix(f"--evaluate {NAME}: ").replace("the model was", f"the model of {folder} was", 1)
        raise UsageError(re.sub(rf"--{NAME}\.(\w+)", lambda own: f"--{own[1].replace('_', '-')}", line)) from error


GRAMMAR = Grammar(
    "certify",
    "certify a run's classifier by randomized smoothing; one that was stopped goes on, one that was finished is reused",
    ("RUN",),
    dict.fromkeys(FLAGS, "") | WHERE,
    {SWITCH: "", "quiet": "no progress on the screen"},
    ("device", "runs-dir"),
    evaluation=NAME,
)
