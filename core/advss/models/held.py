"""Every parameter that an object leads to, whether or not PyTorch finds it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from torch import Tensor, nn

REGISTERED = ("_parameters", "_buffers", "_modules")  # where nn.Module keeps what it knows of


def held(thing: Any, path: str = "self", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter that an object's attributes lead to, registered or not, once, with the way to it.

    Args:
        thing: where to begin.
        path: what it is called, such as ``self``; the ways begin with it.
        seen: ids of what has been looked at.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Parameter):
        yield path, thing
        return
    for step, value in _parts(thing):
        yield from held(value, path + step, seen)


def _parts(thing: Any) -> list[tuple[str, Any]]:
    """What an object holds, each with the step to it: ``[0]``, ``['key']`` or ``.name``."""
    if isinstance(thing, dict):
        return [(f"[{key!r}]", value) for key, value in thing.items()]
    if isinstance(thing, list | tuple | set | frozenset):
        return [(f"[{place}]", value) for place, value in enumerate(thing)]
    if isinstance(thing, nn.Module):
        plain = {name: value for name, value in vars(thing).items() if name not in REGISTERED}
        return [(f".{name}", value) for name, value in {**thing._parameters, **thing._modules, **plain}.items()]
    if hasattr(thing, "__dict__") and not isinstance(thing, type | Tensor | ModuleType) and not callable(thing):
        return [(f".{name}", value) for name, value in vars(thing).items()]
    return []
