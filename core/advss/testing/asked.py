"""How a plugin's methods are called: with copies, and with Python's and NumPy's random state as at every call.

So what a method changes in place, or draws from a state that no run seeds, is told by one check and spoils no other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

UNSEEDED = "'s random state, which no run seeds; draw from the generator that is given, or where none is from torch's"


@contextmanager
def unseeded() -> Iterator[list[str]]:
    """Within, Python's and NumPy's random state begin as at every call; they are as found after it.

    Yields:
        Filled at the end: which of them were drawn from.
    """
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    random.seed(0)
    np.random.seed(0)
    before, drawn = _states(), list[str]()
    try:
        yield drawn
        drawn += [library for library, state in _states().items() if state != before[library]]
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _states() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)
    own = numpy["state"]
    gauss = numpy["has_gauss"], numpy["gauss"]
    return {"Python": random.getstate(), "NumPy": (own["pos"], own["key"].tobytes(), *gauss)}


def changed(given: Mapping[str, Tensor], since: Iterable[Tensor]) -> list[str]:
    """Names of the tensors that are no longer what they were."""
    return [name for (name, t), before in zip(given.items(), since, strict=True) if not _same(t.detach(), before)]


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal, where nan is nan."""
    return torch.equal(one, other) or bool(((one == other) | one.isnan() & other.isnan()).all())


def snapshot(root: nn.Module) -> dict[str, Any]:
    """All of a network that an attack or a measurement must leave, by what messages call it."""
    seen: dict[str, Any] = {f"'{name}'": t.clone() for name, t in root.state_dict().items()}
    for name, p in root.named_parameters():
        seen[f"the gradient of '{name}'"] = None if p.grad is None else p.grad.clone()
        seen[f"requires_grad of '{name}'"] = p.requires_grad
    seen |= {f"the mode of '{name}'": module.training for name, module in root.named_modules()}
    return seen


def as_it_was(one: Any, other: Any) -> bool:
    """Whether two values of a :func:`snapshot` are the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other
