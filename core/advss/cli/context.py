"""What several commands need of a command line: its runs, its plugins, and who is told of progress."""

from __future__ import annotations

import os
from pathlib import Path

from advss.cli.arguments import Arguments
from advss.configuration.layers import Said, read_environment
from advss.configuration.settings import typed_setting
from advss.plugins import Registry, registry
from advss.plugins.names import remember
from advss.runs.folder import check_links, find_run
from advss.threads import settle
from advss.training.reporting import Reporter

DATA = "data."
WHERE = {DATA: "where the run's data are now, if they were moved, such as --data.root DIR"}


def reporter_of(arguments: Arguments, *, of: str = "") -> Reporter:
    """The reporter that suits where stderr goes, or a quiet one; ``of`` stands before what it says of stages."""
    from advss.cli.progress import reporter_for

    return reporter_for(quiet="quiet" in arguments.switches, of=of)


def check_plugins(arguments: Arguments, *, computing: bool = True) -> Registry:
    """The registry; broken plugins are an error under ``--strict-plugins``. Names are kept for shell completion.

    The first plugin loads torch, so a command that will be ``computing`` settles its threads here.
    """
    if computing:
        settle()
    installed = registry(strict="strict-plugins" in arguments.switches or None)
    remember(installed.found)
    return installed


def runs_dir_of(arguments: Arguments) -> Path:
    """Where runs are looked up by name: --runs-dir, ADVSS_RUNS_DIR, or runs."""
    said = read_environment(os.environ).settings.get("runs-dir", Said("runs", "--runs-dir"))
    if "runs-dir" in arguments.settings:
        said = Said(arguments.settings["runs-dir"], "--runs-dir")
    runs_dir: Path = typed_setting("runs-dir", said.value, origin=said.origin)
    return runs_dir


def where_now(arguments: Arguments) -> dict[str, str] | None:
    """Where a run's data are now, by option of their source, as far as the line says so."""
    said = [flag for flag in arguments.flags if flag.startswith(DATA)]
    return {flag.removeprefix(DATA): arguments.flags[flag][-1] for flag in said} or None


def find(run: str, arguments: Arguments) -> Path:
    """The folder of a run by its name or folder."""
    return find_run(run, runs_dir_of(arguments)).path


def find_tracked(run: str, arguments: Arguments) -> Path:
    """The folder of a run, or of a comparison of runs, which has a journal too, by its name or folder."""
    from advss.tracking.journal import NAME

    places = (Path(run), runs_dir_of(arguments) / run)
    tracked = next((path for path in places if (path / NAME).is_file()), None)
    return check_links(tracked) if tracked else find(run, arguments)
