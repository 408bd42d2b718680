"""The commands: what each takes and what it calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from advss.cli import certify, check, compare, evaluate, new, plugins, report, runs, study
from advss.cli.arguments import Arguments, Command, Grammar
from advss.cli.context import check_plugins, find, find_tracked, reporter_of, runs_dir_of
from advss.config import RunConfig
from advss.configuration.layers import read_environment
from advss.configuration.settings import COMPONENTS, SETTINGS
from advss.errors import UsageError
from advss.naming import as_typed
from advss.output import printed, tell

PRETRAINING = (
    "pretext",
    "defense",
    "diversity",
    "backbone",
    "split-seed",
)  # what `advss finetune --from RUN` takes from RUN


def fit(arguments: Arguments) -> int:
    """``advss fit``."""
    if result := _finished(arguments):
        return _print_run(result)
    config = configured(arguments)
    if "print-config" in arguments.switches:
        return _print_config(config)
    from advss.stages import fit as stages

    return _print_run(stages.fit(config, resume="resume" in arguments.flags, reporter=reporter_of(arguments)))


def pretrain(arguments: Arguments) -> int:
    """``advss pretrain``."""
    if result := _finished(arguments):
        return _print_result(result)
    config = configured(arguments)
    if "print-config" in arguments.switches:
        return _print_config(config)
    from advss.stages import fit as stages

    return _print_result(stages.pretrain(config, resume="resume" in arguments.flags, reporter=reporter_of(arguments)))


def finetune(arguments: Arguments) -> int:
    """``advss finetune``."""
    if result := _finished(arguments):
        return _print_result(result)
    source, resume = arguments.flag("from"), "resume" in arguments.flags
    if (source is None) != resume:
        raise UsageError(
            "`advss finetune` needs one of --from RUN and --resume RUN; without pretraining: `advss fit --pretext none`"
        )
    config = configured(arguments)
    if "print-config" in arguments.switches:
        return _print_config(config)

    from advss.stages import fit as stages

    start = None if source is None else _start(source, arguments)
    return _print_result(stages.finetune(config, source=start, resume=resume, reporter=reporter_of(arguments)))


def sync(arguments: Arguments) -> int:
    """``advss sync [RUN...]``: what fails holds up none of the others."""
    from advss.runs.folder import check_links
    from advss.runs.sending import lacking, sent

    runs_dir, failed = runs_dir_of(arguments), list[UsageError]()
    named = [find_tracked(run, arguments) for run in arguments.positionals]
    folders = named or lacking(runs_dir)
    for folder in folders:
        try:
            print(sent(check_links(folder)))
        except UsageError as error:
            failed.append(error)
    if not folders:
        print(f"MLflow has all of the runs in {runs_dir}")
    for earlier in failed[:-1]:
        tell(f"advss: error: {earlier}")
    if failed:
        raise failed[-1]
    return 0


def ui(arguments: Arguments) -> int:
    """``advss ui``."""
    from advss.tracking.ui import serve

    host, port, show = arguments.flag("host"), arguments.flag("port"), "no-browser" not in arguments.switches
    if port is not None and not (port.isdecimal() and port.isascii() and 0 < int(port) < 65536):
        raise UsageError(f"--port: expected a port number, got '{port}'")
    return serve(runs_dir_of(arguments), host=host, port=None if port is None else int(port), open_browser=show)


def configured(arguments: Arguments) -> RunConfig:
    """The configuration that a command line asks for: of a run to resume, of one to go on from, or a new one."""
    from advss.configuration.resolve import resolve
    from advss.runs.stored import resume_config

    check_plugins(arguments, computing="print-config" not in arguments.switches)
    configs, source, run = arguments.flags.get("config", []), arguments.flag("from"), arguments.flag("resume")
    if run is None and source is None:
        return resolve(arguments.settings, configs=configs, text=True)
    if run is None:
        return _finetune_config(_start(source or "", arguments), arguments)
    if configs:
        raise UsageError(f"--resume {run} takes its configuration from the run; leave --config out")
    return resume_config(find(run, arguments), arguments.settings, text=True)


def _finetune_config(start: Path, arguments: Arguments) -> RunConfig:
    """The configuration of the run that pretrained, with what is said of fine-tuning, under a name of its own."""
    from advss.runs.stored import resolve_run, stored_config

    for flag in arguments.settings:
        head = flag.partition(".")[0]
        if head in PRETRAINING or head.startswith("pretrain-"):
            hint = "; use --finetune-defense" if head == "defense" else ""
            raise UsageError(f"--{flag}: `advss finetune` takes pretraining as --from has it{hint}")
    run = start.resolve().parent.parent if start.is_file() else start  # RUN/pretrain/best.safetensors
    if not (run / "config.yaml").is_file():
        raise UsageError(f"--from: no config.yaml in {run}; expected a run, or a checkpoint in a run's folder")
    settings: dict[str, Any] = {"name": None, **arguments.settings}
    config = resolve_run(run, settings, configs=arguments.flags.get("config", []), text=True)
    return replace(config, split_seed=stored_config(run).dividing_seed)  # no image moves over to validation or to test


def _start(source: str, arguments: Arguments) -> Path:
    """What ``--from`` means: a checkpoint's file, or a run's folder."""
    return Path(source) if Path(source).is_file() else find(source, arguments)


def _finished(arguments: Arguments) -> Mapping[str, Any] | None:
    """The result of a finished run that nothing but --resume asks for: neither torch nor plugins are needed to tell it.

    None where there is more to do, or to judge.
    """
    from advss.runs.folder import RunFolder, told_finished
    from advss.runs.stored import HARMLESS

    run = arguments.flag("resume")
    settings = {*arguments.settings, *read_environment(os.environ).settings}
    if run is None or len(arguments.flags) > 1 or arguments.switches - {"quiet"}:
        return None
    folder = RunFolder(find(run, arguments))
    if folder.finished and any(flag.partition(".")[0] == "evaluate" for flag in settings):
        raise UsageError(f"--evaluate: run {run} is finished; `advss evaluate {as_typed(run)}` measures it")
    done = folder.finished and not settings - {*HARMLESS}
    return told_finished(folder, reporter_of(arguments)) if done else None


def _print_config(config: RunConfig) -> int:
    from advss.configuration.resolve import to_yaml

    print(to_yaml(config), end="")
    return printed()


def _print_run(result: Mapping[str, Any]) -> int:
    """A run's result, and where more than its headline was measured, all of it."""
    from advss.cli.table import print_measured

    _print_result(result)
    measured = [one for one in result.get("evaluations", {}).values() if one["figures"]]  # not what is only drawn
    if any(one["file"] != (result.get("evaluation") or {}).get("file") for one in measured):
        print_measured(measured)
    return 0


def _print_result(result: Mapping[str, Any]) -> int:
    from advss.cli.table import print_result

    print_result(result)
    return 0


_EVERYTHING = (*COMPONENTS, *SETTINGS)
_TRAINING = {
    "config": "a YAML file or a packaged recipe; several count in order",
    "resume": "go on with this run (name or folder) where it stopped",
}
_PRINTING = {"print-config": "print the resolved configuration as YAML and stop", "quiet": "no progress on the screen"}
_GRAMMARS = [
    (fit, Grammar("fit", "pretrain, fine-tune and evaluate", (), _TRAINING, _PRINTING, _EVERYTHING)),
    (pretrain, Grammar("pretrain", "pretrain alone", (), _TRAINING, _PRINTING, _EVERYTHING)),
    (
        finetune,
        Grammar(
            "finetune",
            "fine-tune what another run pretrained, as a run of its own",
            (),
            {"from": "the run (name or folder) or checkpoint to start from", **_TRAINING},
            _PRINTING,
            _EVERYTHING,
        ),
    ),
    (evaluate.evaluate, evaluate.GRAMMAR),
    (certify.certify, certify.GRAMMAR),
    *compare.GRAMMARS,
    *runs.GRAMMARS,
    *study.GRAMMARS,
    (report.report, report.GRAMMAR),
    *plugins.GRAMMARS,
    (check.plugins_check, check.GRAMMAR),
    (new.plugins_new, new.GRAMMAR),
    (
        sync,
        Grammar(
            "sync",
            "send to MLflow what it lacks of these runs, or of all; one that was killed ends there",
            ("[RUN...]",),
            settings=("runs-dir",),
        ),
    ),
    (
        ui,
        Grammar(
            "ui",
            "serve and open MLflow's pages on the runs",
            (),
            {
                "host": "where the server listens (127.0.0.1: for this machine only); 0.0.0.0 is everywhere",
                "port": "port of the server (5000)",
            },
            {"no-browser": "print the link only"},
            ("runs-dir",),
        ),
    ),
]
COMMANDS = {grammar.command: Command(grammar, run) for run, grammar in _GRAMMARS}
