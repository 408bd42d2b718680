"""A data source made from its name and options, as flags, YAML or Python give them."""

from __future__ import annotations

from typing import Any

from advss.config import Choice
from advss.hookspecs import DataSource
from advss.plugins.registry import build


def make_source(name: str, options: dict[str, Any]) -> DataSource:
    """The source called ``name`` with ``options``; values may be text.

    Raises:
        UsageError: an unknown name, an unknown or missing option, a value of another type or that the source refuses.
    """
    source = build("data", Choice(name, options))
    assert isinstance(source, DataSource)
    return source
