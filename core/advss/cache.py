"""Small JSON files in the user's cache directory: what is lost there is made again, so nothing here ever fails.

Imports as little as it can: shell completion waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from advss.errors import UsageError
from advss.files import write_json


def cache_path(name: str) -> Path:
    """Where a file of the cache lies: ``$XDG_CACHE_HOME/advss/NAME``, or below ``~/.cache``."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not home.is_absolute():  # as the XDG specification has it
        try:
            home = Path("~/.cache").expanduser()
        except RuntimeError:  # a user without a home: nothing can be read or written below this
            home = Path(os.devnull)
    return home / "advss" / name


def read_cache(name: str) -> dict[str, Any]:
    """The content of a file; empty where there is none, or none that can be read."""
    try:
        content = json.loads(cache_path(name).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(name: str, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all; where it cannot be written, not at all."""
    with suppress(UsageError):
        write_json(cache_path(name), content)


def changed_at(path: str | Path) -> int:
    """When a file was last changed, in nanoseconds; 0 where there is none."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0
