"""The configuration that stands in a run's folder, read again: to resume it, to go on from it, or to measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from advss.config import Choice, DataFlag, RunConfig, paths_in
from advss.configuration.resolve import dumped, plain, resolve, to_mapping
from advss.errors import UsageError
from advss.files import write_text
from advss.plugins.options import options_of
from advss.plugins.provenance import saying_what_is_needed
from advss.plugins.registry import registry
from advss.runs.folder import RunFolder

_OF_TASKS = ("diversity", "diversity-in", "diversity-sign", "diversity-every", "diversity-pixels", "finetune-tail")
UNTRAINED: dict[str, Any] = {  # asks for no plugin of anyone's, nor for anything of several tasks
    **{"pretext": "none", "defense": "none", "finetune": "full", "finetune-defense": "none", "pretrain-data": "none"},
    **{"pretrain-data.limit": 0, "pretrain-data.size": 0, "pretrain-data.resize": 0},
    **{flag: getattr(RunConfig, flag.replace("-", "_")) for flag in _OF_TASKS},
}
HARMLESS = ("device", "checkpoint-minutes", "tracking", "runs-dir", "evaluate")  # may differ when a run is resumed


def resolve_run(
    run: Path,
    said: Mapping[str, Any],
    *,
    configs: Sequence[str | Path] = (),
    environ: Mapping[str, str] | None = None,
    text: bool = False,
) -> RunConfig:
    """The configuration of a run's folder and what is said since; arguments as of :func:`resolve`.

    Raises:
        UsageError: as :func:`resolve`; where a plugin is gone, it says what to install.
    """
    with saying_what_is_needed(partial(_recorded, run), run=str(run)):
        return resolve(said, base=RunFolder(run).config, configs=configs, environ=environ, text=text)


def resume_config(
    run: Path, said: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, text: bool = False
) -> RunConfig:
    """The configuration of a run that is resumed, as it was; ``said`` may change only what does not change its results.

    Raises:
        UsageError: a setting given beside it that differs from the run's.
    """
    harmless = {flag: value for flag, value in said.items() if flag.partition(".")[0] in HARMLESS}
    was, now = resolve_run(run, harmless, environ={}, text=text), resolve_run(run, said, environ=environ, text=text)
    before, after = (to_mapping(_wherever(config)) for config in (was, now))
    for key in after:
        if key not in HARMLESS and before.get(key) != after[key]:
            raise UsageError(
                f"--resume: {run} has {key} {before.get(key)}, not {after[key]}; leave it out, or start a new run"
            )
    return replace(now, name=run.name, runs_dir=run.parent)


def keep_evaluations(folder: RunFolder, config: RunConfig) -> None:
    """Write down by what a run that is resumed is to be measured, where that is said anew."""
    key, stored = "evaluate", yaml.safe_load(folder.config.read_text("utf-8"))
    chosen = to_mapping(config)[key]
    if stored.get(key) != chosen:
        write_text(folder.config, dumped({**stored, key: chosen}))


def _wherever(config: RunConfig) -> RunConfig:
    """A configuration without the places that are read: moved data are the same, which opening them checks."""

    def wherever(data: Choice) -> Choice:
        return replace(data, options={name: v for name, v in data.options.items() if not paths_in(v)})

    first = config.pretrain_data
    return replace(config, data=wherever(config.data), pretrain_data=wherever(first) if first else None)


def stored_config(
    run: Path,
    said: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    text: bool = False,
    measured: bool = False,
) -> RunConfig:
    """What a run's folder says of its data and seed, though a plugin that trained it may be gone by now.

    Args:
        run: the folder.
        said: settings that win over the folder's.
        environ: where variables ADVSS_... are looked up; default: nowhere.
        text: values of ``said`` are text from a command line.
        measured: the evaluations are needed, too.

    Raises:
        UsageError: its config.yaml is missing, or it or ``said`` cannot be understood.
    """
    settings, variables = dict(said or {}), environ or {}
    fewest = UNTRAINED if measured else UNTRAINED | {"evaluate": "none"}
    for fewer in ({}, UNTRAINED):
        with suppress(UsageError):
            return resolve_run(run, fewer | settings, environ=variables, text=text)
    return resolve_run(run, fewest | settings, environ=variables, text=text)


def found_config(run: Path, where: Mapping[str, Any] | None, flag: DataFlag = "data") -> RunConfig:
    """As :func:`stored_config`, with the data where they are now.

    Args:
        run: the folder.
        where: by option of the data's source, a path or several; None leaves them where they were.
        flag: whose data they are.

    Raises:
        UsageError: as :func:`stored_config`; an option that is no place, for the data are what they were.
    """
    config = stored_config(run)
    if not where:
        return config
    known = [o.name for o in options_of(registry().find("data", config.chosen(flag).data.name)) if o.is_place]
    for option in where:
        if option.replace("-", "_") not in known:
            ways = " or ".join(f"--{flag}.{name}" for name in known)
            said = f"by {ways}" if known else f"and {config.chosen(flag).data.name} has none"
            raise UsageError(f"--{flag}.{option}: of the data of run {run} nothing but their place can be said, {said}")
    return stored_config(run, {f"{flag}.{option}": plain(place) for option, place in where.items()}, text=True)


def _recorded(run: Path) -> Any:
    """What a run's result says of its plugins; None where it has none that can be read."""
    try:
        return RunFolder(run).read_result().get("plugins")
    except UsageError:
        return None
