"""A data source made from its name and options, as flags, YAML or Python give them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

from advss.data.sources import SOURCES, Source
from advss.errors import UsageError, did_you_mean

_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def make_source(name: str, options: dict[str, Any]) -> Source:
    """The source called ``name`` with ``options``; values may be text.

    Raises:
        UsageError: an unknown name, an unknown or missing option, a value of another type.
    """
    if name not in SOURCES:
        raise UsageError(f"--data {name}: no such data source{did_you_mean(name, SOURCES)}")
    kind = SOURCES[name]
    parameters = {key: p for key, p in inspect.signature(kind).parameters.items() if p.kind is p.KEYWORD_ONLY}
    hints = get_type_hints(kind.__init__)
    for key in options:
        if key not in parameters:
            raise UsageError(f"--data.{key}: {name} has no such option{did_you_mean(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise UsageError(f"--data {name} needs `--data.{key}`: {_EXPECTED[hints[key]]}")
    return kind(**{key: _converted(key, value, hints[key]) for key, value in options.items()})


def _converted(key: str, value: Any, kind: type) -> Any:
    """``value`` as ``kind``, from that type, from text, or from a narrower number."""
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _WORDS[value.lower()]
        if isinstance(value, bool) or not isinstance(value, (kind, str, int)):
            raise TypeError
        return value.expanduser() if isinstance(value := kind(value), Path) else value
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--data.{key} {value}: expected {_EXPECTED[kind]}") from error
