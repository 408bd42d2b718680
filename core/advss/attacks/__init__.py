"""Attacks: maximise an objective over its inputs, inside a ball and inside [0, 1].

Importing this package imports no torch, so that a :class:`Threat` can be judged without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advss.attacks.threat import Norm, Threat, in_pixels

if TYPE_CHECKING:
    from advss.attacks.gradient import maximise

__all__ = ["Norm", "Threat", "in_pixels", "maximise"]


def __getattr__(name: str) -> Any:
    if name == "maximise":
        from advss.attacks.gradient import maximise

        return maximise
    raise AttributeError(f"module 'advss.attacks' has no attribute '{name}'")
