"""A data source made from its name and options, as flags, YAML or Python give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advss.data.sources import SOURCES, Source
from advss.errors import UsageError, did_you_mean
from advss.plugins.options import completed


def make_source(name: str, options: dict[str, Any]) -> Source:
    """The source called ``name`` with ``options``; values may be text.

    Raises:
        UsageError: an unknown name, an unknown or missing option, a value of another type.
    """
    if name not in SOURCES:
        raise UsageError(f"--data {name}: no such data source{did_you_mean(name, SOURCES)}")
    whole = completed(SOURCES[name], options, flag="--data.", what=name)
    return SOURCES[name](**{key: v.expanduser() if isinstance(v, Path) else v for key, v in whole.items()})
