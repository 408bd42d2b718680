"""A norm and the radius, step and share that belong to it, wherever options of these names stand beside each other.

A radius counts with the norm that it was said with: another norm in a later layer drops it. A norm that is said without
a radius gets the field's, and one line says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from advss.attacks.threat import USUAL, length_text

LENGTHS = tuple(USUAL["l1"])  # all that a norm may have: eps, step_size and top_share
Unsaid = tuple[str, str]  # the norm's flag, and what was not said with it


def order(path: tuple[str, ...]) -> tuple[int, bool]:
    """How a layer's words are taken: a name before what is below it, a norm before what is said with it."""
    return len(path), path[-1] != "norm"


def drop_lengths(said: MutableMapping[str, Any], flags: Iterable[str], *, was: object, norm: object) -> None:
    """Drop what was said of lengths, by their flags, where the norm is now another one."""
    if norm != was:
        for flag in flags:
            said.pop(flag, None)


def unsaid(said: Mapping[str, Any], full: Mapping[str, Any], prefix: str) -> Iterator[Unsaid]:
    """The norms that are said without a radius or a step, in wrapped defenses too.

    Args:
        said: options by name.
        full: the same, completed.
        prefix: what their flags begin with, such as ``--defense.``.
    """
    if said.get("norm") is not None:
        unsaid_here = (name for name in LENGTHS if said.get(name) is None)
        left = [f"{name} {length_text(full[name])}" for name in unsaid_here if full.get(name) is not None]
        if left:
            yield f"{prefix}norm", f"{full['norm']}: {' and '.join(left)}"
    for name, inner in said.items():
        if isinstance(inner, Mapping) and isinstance(full.get(name), Mapping):
            yield from unsaid(inner, full[name], f"{prefix}{name}.")


def lines(found: Iterable[Unsaid]) -> list[str]:
    """One line for each norm and what comes with it, whichever flags it is of."""
    flags: dict[str, list[str]] = {}
    for flag, what in found:
        flags.setdefault(what, []).append(flag)
    return [f"advss: {', '.join(names)} {what}, since nothing else is said" for what, names in flags.items()]
