"""From layers of settings to one run's configuration, and back to YAML.

Later layers win: recipe, configuration files in order, environment, command line or Python's keywords. Cases of a layer
count right after it. When a layer names another component, the options that belonged to the earlier one are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from advss.config import RunConfig
from advss.errors import UsageError
from advss.plugins.provenance import saying_what_is_needed
from advss.stages.fold import fold
from advss.stages.layers import Layer, read_environment, read_layer
from advss.stages.recipes import is_recipe, read_config
from advss.stages.runs import RunFolder
from advss.stages.settings import COMPONENTS, SETTINGS

DEFAULT_RECIPES = {"digits": "digits"}  # data -> recipe where no --config names one
OTHER_RECIPE = "cifar10-paper"
_OF_TASKS = ("diversity", "diversity-in", "diversity-sign", "diversity-every", "diversity-pixels", "finetune-tail")
UNTRAINED: dict[str, Any] = {  # asks for no plugin of anyone's, nor for anything of several tasks
    **{"pretext": "none", "defense": "none", "finetune": "full", "finetune-defense": "none"},
    **{flag: getattr(RunConfig, flag.replace("-", "_")) for flag in _OF_TASKS},
}
HARMLESS = ("device", "checkpoint-minutes", "tracking", "runs-dir")  # may differ when a run is resumed


def resolve(
    said: Mapping[str, Any],
    *,
    configs: Sequence[str | Path] = (),
    run: Path | None = None,
    environ: Mapping[str, str] | None = None,
    text: bool = False,
) -> RunConfig:
    """The configuration of a run.

    Args:
        said: the last layer, by flag.
        configs: files or recipes, in order; where none is a recipe, the data's default recipe comes first.
        run: a run's folder whose configuration comes first, in place of a recipe.
        environ: where variables ADVSS_... are looked up; default: the process's.
        text: values of ``said`` are text from a command line.

    Raises:
        UsageError: anything unknown, mistyped, out of range or missing.
    """
    later = [read_config(config) for config in configs]
    later += [read_environment(os.environ if environ is None else environ), read_layer(said, text=text)]
    if run is not None:
        return _fold_run(run, later)
    if any(is_recipe(config) for config in configs):
        return fold(later)
    return fold([read_config(_default_recipe(later)), *later])


def _fold_run(run: Path, later: Sequence[Layer]) -> RunConfig:
    """The configuration of a run's folder and what is said since; the error names the distribution that it lacks."""
    with saying_what_is_needed(partial(_recorded, run), run=str(run)):
        return fold([read_config(run / "config.yaml"), *later])


def _recorded(run: Path) -> Any:
    """What a run's result says of its plugins; None where it has none that can be read."""
    try:
        return RunFolder(run).read_result().get("plugins")
    except UsageError:
        return None


def from_mapping(settings: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> RunConfig:
    """The configuration from Python's keywords: ``{"pretext": "selfie", "pretrain_epochs": 1, "pretext.grid": 4}``.

    ``config`` is a file, a recipe or a list of them.
    """
    said = dict(settings)
    configs = said.pop("config", ())
    return resolve(said, configs=[configs] if isinstance(configs, str | Path) else configs, environ=environ)


def resume_config(
    run: Path, said: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, text: bool = False
) -> RunConfig:
    """The configuration of a run that is resumed, as it was; ``said`` may change only what does not change its results.

    Raises:
        UsageError: a setting given beside it that differs from the run's.
    """
    was, now = resolve({}, run=run, environ={}), resolve(said, run=run, environ=environ, text=text)
    before, after = to_mapping(was), to_mapping(now)
    for key in after:
        if key not in HARMLESS and before.get(key) != after[key]:
            raise UsageError(
                f"--resume: {run} has {key} {before.get(key)}, not {after[key]}; leave it out, or start a new run"
            )
    return replace(now, name=run.resolve().name, runs_dir=run.parent)


def stored_config(
    run: Path, said: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, text: bool = False
) -> RunConfig:
    """What a run's folder says of its data and seed, though a plugin that trained it may be gone by now.

    Args:
        run: the folder.
        said: settings that win over the folder's.
        environ: as in :func:`resolve`; default: none.
        text: values of ``said`` are text from a command line.

    Raises:
        UsageError: its config.yaml is missing, or it or ``said`` cannot be understood.
    """
    settings, variables = dict(said or {}), environ or {}
    try:
        return resolve(settings, run=run, environ=variables, text=text)
    except UsageError:
        return resolve(UNTRAINED | settings, run=run, environ=variables, text=text)


def to_yaml(config: RunConfig) -> str:
    """The configuration as a file for ``--config`` that resolves to an equal one."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The configuration by flag, in plain values."""
    members = [{m.name: plain(m.options)} for m in config.pretext]
    components = [getattr(config, name.replace("-", "_")) for name in COMPONENTS[1:]]
    content: dict[str, Any] = {"pretext": members if len(members) > 1 else members[0] if members else "none"}
    content |= {n: {c.name: plain(c.options)} for n, c in zip(COMPONENTS[1:], components, strict=True)}
    sections = {"pretrain": config.pretraining, "finetune": config.finetuning, "eval": config.evaluation, "run": config}
    return content | {
        flag: plain(getattr(sections[setting.section], setting.option.name)) for flag, setting in SETTINGS.items()
    }


def plain(value: Any) -> Any:
    """A value in the types that YAML and JSON have."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _default_recipe(layers: Sequence[Layer]) -> str:
    chosen = [layer.parts["data"].members for layer in layers if "data" in layer.parts]
    names = [members[0].name for members in chosen if members]
    return DEFAULT_RECIPES.get(names[-1].removeprefix("advss:") if names else "digits", OTHER_RECIPE)
