"""``advss certify RUN``: its flags, and the table that it prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import WHERE, check_plugins, find, reporter_of, where_now
from advss.cli.table import pages, percent, print_doubt, print_places
from advss.config import CertifySettings
from advss.output import tell
from advss.plugins.options import Option, convert, options_of
from advss.training.signals import Interrupted

OPTIONS = {option.name.replace("_", "-"): option for option in options_of(CertifySettings)}
SWITCH = "other-sigma"


def certify(arguments: Arguments) -> int:
    """``advss certify RUN``."""
    from advss.runs.stored import stored_config

    folder = find(arguments.positionals[0], arguments)
    check_plugins(arguments)
    settings = _settings(arguments)
    said = {flag: value for flag, value in arguments.settings.items() if flag == "device"}
    config = stored_config(folder, said, environ=os.environ, text=True)
    from advss.evaluations import certify as stage

    try:
        content = stage.certify(
            folder, settings, device=config.device, where=where_now(arguments), reporter=reporter_of(arguments)
        )
    except Interrupted as stop:
        tell(f"advss: {stop}; images that were done are kept, the same command goes on")
        return stop.exit_code
    print_certified(folder, content)
    return 0


def print_certified(folder: Path, content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what was certified on stdout."""
    from advss.evaluations.certified import shown

    console = console or Console()
    sample = f"{content['images']} images, n {content['n']:,}, α {content['alpha']:g}"
    title = f"run {folder.name}: accuracy certified within ℓ2 radii, σ {content['sigma']:g}, {sample}"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    columns = [(f"{radius:g}", percent(accuracy)) for radius, accuracy in shown(content)]
    columns += [("abstained", percent(content["abstained"])), ("ACR", f"{content['acr']:.3f}")]
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    table.add_row(*(cell for _, cell in columns))
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    print_doubt(content, console)
    console.print()
    places = [("certificate", folder / content["file"]), ("figure", folder / content["figure"])]
    print_places([*((what, str(path)) for what, path in places), ("MLflow", pages(folder))], console)


def _settings(arguments: Arguments) -> CertifySettings:
    said = {flag: arguments.flag(flag) for flag in OPTIONS if flag in arguments.flags}
    typed = {OPTIONS[flag].name: convert(OPTIONS[flag], text, flag=f"--{flag}") for flag, text in said.items()}
    return CertifySettings(**typed, other_sigma=SWITCH in arguments.switches)


def _doc(option: Option) -> str:
    return option.doc if option.default is None else f"{option.doc} ({option.default})"


GRAMMAR = Grammar(
    "certify",
    "certify a run's classifier by randomized smoothing; one that was stopped goes on, one that was finished is reused",
    ("RUN",),
    {flag: _doc(option) for flag, option in OPTIONS.items() if flag != SWITCH} | WHERE,
    {SWITCH: OPTIONS[SWITCH].doc, "quiet": "no progress on the screen"},
    ("device", "runs-dir"),
)
