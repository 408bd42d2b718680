"""What defenses ask of options that several of them have: the ball, the ascent in it, the clean loss's share."""

from __future__ import annotations

import math
from typing import Literal

from advss.attacks import Norm


def check_ascent(*, norm: Norm, eps: float, step_size: float, steps: int) -> None:
    """Refuse a radius, step or number of steps that make no attack.

    Raises:
        ValueError: naming the option, its value and what was expected.
    """
    if not 0 <= eps < math.inf:  # nan too
        raise ValueError(f"eps must be at least 0 and finite, got {eps}")
    if norm == "linf" and eps > 1:
        raise ValueError(f"eps must be at most 1 for linf, got {eps}: pixels are in [0, 1], so say {eps:g}/255")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be above 0 and finite, got {step_size}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; standard training is the defense 'none'")


def check_clean_weight(weight: float | Literal["auto"]) -> None:
    """Refuse a share of the clean loss that leaves the attacked loss none.

    Raises:
        ValueError: it is below 0, or 1 or more.
    """
    if weight != "auto" and not 0 <= weight < 1:
        raise ValueError(f"clean_weight must be in [0, 1) or auto, got {weight}")
