"""From layers of settings to one run's configuration, and back to YAML.

Later layers win: recipe, configuration files in order, environment, command line or Python's keywords. Cases of a layer
count right after it. When a layer names another component, the options that belonged to the earlier one are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from advss.config import Choice, RunConfig
from advss.configuration.fold import fold
from advss.configuration.layers import Layer, read_environment, read_layer
from advss.configuration.recipes import is_recipe, read_config
from advss.configuration.settings import COMPONENTS, SETTINGS, python_keyword
from advss.errors import UsageError
from advss.output import tell
from advss.plugins.registry import build

FEW = 10_000  # training images, below which data that have no recipe of their own get `small`
PAPER = "cifar10-paper"
OWN_RECIPES = {"digits": "digits", "cifar10": PAPER, "cifar100": PAPER}  # data -> recipe where no --config names one


def resolve(
    said: Mapping[str, Any],
    *,
    configs: Sequence[str | Path] = (),
    base: Path | None = None,
    environ: Mapping[str, str] | None = None,
    text: bool = False,
    under: Sequence[Layer] = (),
    say: bool = True,
) -> RunConfig:
    """The configuration of a run.

    Args:
        said: the last layer, by flag.
        configs: files or recipes, in order; where none is a recipe, the data's default recipe comes first.
        base: a file that holds a whole configuration and comes first, in place of a recipe.
        environ: where variables ADVSS_... are looked up; default: the process's.
        text: values of ``said`` are text from a command line.
        under: layers between the environment and ``said``.
        say: tell what came of itself.

    Raises:
        UsageError: anything unknown, mistyped, out of range or missing.
    """
    later = [read_config(config) for config in configs]
    later += [read_environment(os.environ if environ is None else environ), *under, read_layer(said, text=text)]
    if base is not None:
        return fold([_without_places(read_config(base)), *later], say=say)
    if any(is_recipe(config) for config in configs) or _whole(later):
        return fold(later, say=say)
    recipe, fits = _fitting_recipe(later)
    config = fold([read_config(recipe), *later], say=say)
    if say:
        tell(f"recipe {recipe}, chosen for {fits}; `advss fit --help` lists the others")
    return config


def from_mapping(settings: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> RunConfig:
    """The configuration from Python's keywords: ``{"pretext": "selfie", "pretrain_epochs": 1, "pretext.grid": 4}``.

    ``config`` is a file, a recipe or a list of them. Values may be numpy's, torch's, paths or tuples.
    """
    said = by_flag(settings)
    configs = said.pop("config", [])
    configs = configs if isinstance(configs, list) else [configs]
    for config in configs:
        if not isinstance(config, str):
            raise UsageError(f"config: expected a file, a recipe or a list of them, got {config!r}")
    return resolve(said, configs=configs, environ=environ)


def by_flag(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Python's keywords as flags without their hyphens in front, their values in plain types."""
    flags = {python_keyword(flag): flag for flag in SETTINGS}

    def refuse(value: Any) -> Any:
        raise UsageError(
            f"{keyword}: expected text, numbers, true or false, lists and mappings of these, got {value!r}"
        )

    said: dict[str, Any] = {}
    for keyword, value in settings.items():
        said[flags.get(keyword, keyword)] = plain(value, other=refuse)
    return said


def _without_places(layer: Layer) -> Layer:
    """The layer of a run's own file, without what is written where and fetched: its folder may come from others."""
    layer.settings.pop("runs-dir", None)
    for part in (layer.parts[name] for name in ("data", "pretrain-data") if name in layer.parts):
        part.options = [(path, said) for path, said in part.options if path[-1] != "download"]
        kept = [
            (m, {name: value for name, value in m.options.items() if name != "download"}) for m in part.members or ()
        ]
        if part.members is not None:
            part.members = tuple(replace(member, options=options) for member, options in kept)
    return layer


def to_yaml(config: RunConfig) -> str:
    """The configuration as a file for ``--config`` that resolves to an equal one."""
    return dumped(to_mapping(config))


def dumped(content: Mapping[str, Any]) -> str:
    """A configuration by flag, in plain values, as its file has it."""
    return yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The configuration by flag, in plain values."""
    content: dict[str, Any] = {name: _chosen(getattr(config, name.replace("-", "_"))) for name in COMPONENTS}
    sections = {"pretrain": config.pretraining, "finetune": config.finetuning, "eval": config.evaluation, "run": config}
    return content | {
        flag: plain(getattr(sections[setting.section], setting.option.name)) for flag, setting in SETTINGS.items()
    }


def _chosen(choice: Choice | tuple[Choice, ...] | None) -> Any:
    """What a component's choice is in YAML."""
    choices = choice if isinstance(choice, tuple) else (choice,) if choice else ()
    named = [{one.name: plain(one.options)} for one in choices]
    return named if len(named) > 1 else named[0] if named else "none"


def plain(value: Any, *, other: Callable[[Any], Any] = str) -> Any:
    """A value in the types that YAML and JSON have, and in no types derived from these.

    Args:
        value: what is said: numbers and arrays of numpy and torch, paths, sets and tuples, too.
        other: makes something of what is none of these.
    """
    if hasattr(value, "tolist"):  # numpy's and torch's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, other=other) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, other=other) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    return value if value is None else str(value) if isinstance(value, PurePath) else other(value)


def _fitting_recipe(layers: Sequence[Layer]) -> tuple[str, str]:
    """The recipe that fits the data, and what it was chosen for."""
    chosen = [layer.parts["data"].members for layer in layers if "data" in layer.parts]
    names = [members[0].name.removeprefix("advss:") for members in chosen if members]
    source = names[-1] if names else "digits"
    recipe = OWN_RECIPES.get(source, PAPER)
    count = None if source == "digits" else _training_images(fold([read_config(PAPER), *layers], say=False))
    if count is None:
        return recipe, f"--data {source}"
    return "small" if count < FEW else recipe, f"{count} training images"


def _whole(layers: Sequence[Layer]) -> bool:
    """Whether layers say everything, as a run's config.yaml does, so that nothing is left for a recipe to say."""
    settings = {flag for layer in layers for flag in layer.settings}
    chosen = {name for layer in layers for name, part in layer.parts.items() if part.members is not None}
    return settings >= SETTINGS.keys() and chosen >= {*COMPONENTS}


def _training_images(config: RunConfig) -> int | None:
    """How many images a run has to train and validate on; None where it cannot be known yet, or need not be."""
    if config.data.name.removeprefix("advss:") in OWN_RECIPES:
        return config.limit if 0 < config.limit < FEW else None
    try:
        source = build("data", config.data)
        count = sum(len(source.labels(split)) for split in source.splits() if split != "test")
    except (Exception, SystemExit):  # of a plugin, or for want of files: told when the run opens its data
        return None
    return min(count, config.limit or count)
