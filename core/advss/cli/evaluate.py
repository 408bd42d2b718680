"""``advss evaluate RUN...``: all that can be judged of all runs is judged before any of them is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import WHERE, check_plugins, find, reporter_of, where_now
from advss.config import RunConfig
from advss.configuration.settings import MEASURING
from advss.errors import UsageError
from advss.output import printed

FORMS = {"json": "all figures as JSON", "csv": "a line a figure as CSV"}


def evaluate(arguments: Arguments) -> int:
    """``advss evaluate RUN...``; where a later run fails, what was measured before is kept, and shown."""
    from advss.evaluations import evaluate as stage
    from advss.runs.folder import RunFolder, check_distinct, labelled

    form = sorted(arguments.switches & FORMS.keys())
    if len(form) > 1:
        raise UsageError("--json and --csv are two forms of one table; choose one")
    folders = [RunFolder(find(run, arguments)) for run in arguments.positionals]
    check_distinct(folders)
    check_plugins(arguments)
    configs = [_asked(folder.path, arguments) for folder in folders]
    if len(folders) > 1:
        for folder, config in zip(folders, configs, strict=True):
            stage.check(folder, config.evaluation, config.evaluate)
    labels, where, found = labelled(folders), where_now(arguments), list[tuple[str, dict[str, Any]]]()
    try:
        for label, folder, config in zip(labels, folders, configs, strict=True):
            reporter = reporter_of(arguments, of=f"{label}: " if len(folders) > 1 else "")
            measured = stage.evaluate(
                folder.path, config.evaluation, config.evaluate, device=config.device, where=where, reporter=reporter
            )
            found.append((label, measured))
    finally:
        _print(found, form[0] if form else "", several=len(folders) > 1)
    return printed()


def _asked(folder: Path, arguments: Arguments) -> RunConfig:
    """A run's configuration with what the line says of measuring."""
    from advss.runs.stored import stored_config

    said = {flag: value for flag, value in arguments.settings.items() if flag != "runs-dir"}
    return stored_config(folder, said, environ=os.environ, text=True, measured=True)


def _print(found: Sequence[tuple[str, dict[str, Any]]], form: str, *, several: bool) -> None:
    from rich.console import Console

    from advss.cli import measured
    from advss.cli.table import print_measured, print_places, print_result

    if form:
        (measured.print_json if form == "json" else measured.print_csv)(found)
    elif several and found:
        measured.print_runs(found)
    else:
        for label, result in found:
            if any("ra" in one["figures"] for one in result["measured"]):
                print_result(result)
                print_measured(result["measured"])
            else:  # the headline is of what was measured before
                print(f"run {label}")
                print_measured(result["measured"])
                print_places(_files(result), Console())


def _files(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where each measurement's numbers lie, and its pictures."""
    for content in result["measured"]:
        yield "numbers", str(Path(result["folder"], content["file"]))
        yield from (("figure", str(Path(result["folder"], picture))) for picture in content.get("pictures", ()))


GRAMMAR = Grammar(
    "evaluate",
    "measure the classifiers of runs: TA and RA, or what --evaluate names",
    ("RUN...",),
    WHERE,
    {**FORMS, "quiet": "no progress on the screen"},
    ("evaluate", "device", "runs-dir", *MEASURING),
    {"limit": "eval-limit"},
)
