"""How a model stands while it is attacked or measured, and that it stands after it as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn


@contextmanager
def as_victim(model: nn.Module, mode: Literal["train", "eval"] = "eval") -> Iterator[None]:
    """Within: no parameter gradients, and eval mode unless ``mode`` is train; modes and flags as found after it."""
    modules, learning = list(model.modules()), [p for p in model.parameters() if p.requires_grad]
    modes = [m.training for m in modules]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        if mode == "eval":
            model.eval()
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
        for parameter in learning:
            parameter.requires_grad_(True)
