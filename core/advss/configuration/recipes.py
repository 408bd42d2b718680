"""Configuration files: YAML by path, and the packaged recipes by name."""

from __future__ import annotations

from collections.abc import Hashable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from advss.configuration.layers import Layer, read_layer
from advss.errors import UsageError, did_you_mean


class _Unrepeated(yaml.constructor.BaseConstructor):
    """Refuses a key that stands twice, which YAML's loaders would take silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Typed(_Unrepeated, yaml.SafeLoader):
    """Values in YAML's types."""


class _Texts(_Unrepeated, yaml.BaseLoader):
    """All is text, 007 and no too."""


def recipes() -> dict[str, str]:
    """Texts of the packaged recipes by name."""
    folder = files("advss") / "recipes"
    found = [path for path in folder.iterdir() if path.name.endswith(".yaml")]
    return {path.name.removesuffix(".yaml"): path.read_text("utf-8") for path in sorted(found, key=lambda p: p.name)}


def is_recipe(config: str | Path) -> bool:
    """Whether ``--config`` means a packaged recipe: its name, and no file is called so."""
    return str(config) in recipes() and not Path(config).is_file()


def read_config(config: str | Path) -> Layer:
    """The layer of a file, or of a packaged recipe by name.

    Raises:
        UsageError: no such file or recipe, or it is no YAML of settings.
    """
    if is_recipe(config):
        return _parse(recipes()[str(config)], where=str(config))
    path = Path(config)
    try:
        return _parse(path.read_text("utf-8"), where=str(path))
    except FileNotFoundError as error:
        raise UsageError(f"--config: no file and no recipe '{config}'{did_you_mean(str(config), recipes())}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--config: cannot read '{config}': {reason}") from error


def read_yaml(text: str, *, typed: bool = True) -> Any:
    """What a text of YAML holds, or with every value as its text; a key that stands twice is yaml.YAMLError."""
    return yaml.load(text, _Typed if typed else _Texts)


def _parse(text: str, *, where: str) -> Layer:
    try:
        content = read_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--config: {where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content or {}, dict):
        raise UsageError(f"--config: {where} must hold settings (key: value), got {type(content).__name__}")
    return read_layer(content or {}, where=where)
