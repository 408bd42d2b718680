"""Which plugins are switched off, and by which switch: ADVSS_DISABLE_PLUGINS, or ``-p no:NAME`` on the command line.

A name is a plugin's, a distribution's, or ``distribution:name``; upper and lower case, ``-``, ``_`` and ``.`` are the
same, as in the names of distributions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

VARIABLE = "ADVSS_DISABLE_PLUGINS"
_on_the_line: list[str] = []


def switch_off(names: Iterable[str]) -> None:
    """Switch plugins off in this process, in place of those that an earlier call named."""
    _on_the_line[:] = names


def switched_off() -> dict[str, str]:
    """The names that are switched off, each as :func:`normal` has it, and the switch that says so."""
    by_variable = {normal(name): VARIABLE for name in os.environ.get(VARIABLE, "").split(",") if name.strip()}
    return by_variable | {normal(name): f"-p no:{name}" for name in _on_the_line}


def normal(name: str) -> str:
    """A name in the one spelling that names are compared in."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
