"""Which plugins are switched off, and by which switch: ADVSS_DISABLE_PLUGINS, or ``-p no:NAME`` on the command line.

A name is a plugin's, a distribution's, or ``distribution:name``; upper and lower case, ``-``, ``_`` and ``.`` are the
same, as in the names of distributions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from advss.errors import UsageError

VARIABLE = "ADVSS_DISABLE_PLUGINS"
FLAG, NO = "-p", "no:"
_on_the_line: list[str] = []


def switch_off(names: Iterable[str]) -> None:
    """Switch plugins off in this process, in place of those that an earlier call named."""
    _on_the_line[:] = names


def switched_off() -> dict[str, str]:
    """The names that are switched off, each as :func:`normal` has it, and the switch that says so."""
    by_variable = {normal(name): VARIABLE for name in os.environ.get(VARIABLE, "").split(",") if name.strip()}
    return by_variable | {normal(name): f"{FLAG} {NO}{name}" for name in _on_the_line}


def normal(name: str) -> str:
    """A name in the one spelling that names are compared in."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def is_switch(word: str) -> bool:
    """Whether a word of a command line is ``-p``, or ``-pno:NAME`` in one."""
    return word == FLAG or word.startswith(FLAG + NO)


def take_switch(words: list[str]) -> str | None:
    """The NAME of ``-p no:NAME`` at the front of a line's words, which is taken off; None where it is not there.

    Raises:
        UsageError: ``-p`` without ``no:NAME``.
    """
    if not words or not is_switch(words[0]):
        return None
    said = words.pop(0).removeprefix(FLAG) or (words.pop(0) if words else "")
    name = said.removeprefix(NO).strip()
    if not said.startswith(NO) or not name:
        raise UsageError(f"{FLAG}: expected {NO}NAME of a plugin or distribution to leave out, got '{said}'")
    return name
