"""What an attacker may do to an image, and the one rule for every radius, step and number of steps.

This module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

Norm = Literal["linf", "l2", "l1"]
# The field's radius and step, for who names a norm alone. ℓ1: radius of multi-norm training (Maini et al. 2020; Croce
# and Hein 2022), steps of a fifth of it along the first hundredth of the coordinates (SLIDE, as foolbox has it).
USUAL: Mapping[str, Mapping[str, float]] = {
    "linf": {"eps": 8 / 255, "step_size": 2 / 255},
    "l2": {"eps": 0.5, "step_size": 0.1},
    "l1": {"eps": 12.0, "step_size": 2.4, "top_share": 0.01},
}
# Above these a length can only be meant in 0...255. At ℓ∞ 1 every image reaches every other; ℓ2 16 moves each of the
# 3,072 values of a 32-pixel image by 0.29, and published radii end at 3, in ℓ1 at 255, of images of 224 pixels;
# published deviations of noise end at 1.
LARGEST: Mapping[str, float] = {"linf": 1.0, "l2": 16.0, "l1": 256.0, "noise": 4.0}
SIGN: Mapping[Norm, str] = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


@dataclass(frozen=True, init=False)
class Threat:
    """A threat model and the ascent within it: what :func:`advss.attacks.maximise` and all that measures RA take.

    Attributes:
        norm: shape of the ball around each image.
        eps: its radius, pixels in [0, 1]; where it is not said, 8/255 for linf, 0.5 for l2 and 12 for l1.
        step_size: length of one ascent step in the same unit; where it is not said, 2/255, 0.1 and 2.4.
        steps: number of ascent steps.
        top_share: of l1 alone, the share of the coordinates that one step moves, those of the largest gradient; where
            it is not said, 0.01.

    Raises:
        ValueError: a value that makes no attack, or a length in 0...255; its option's name comes first.
    """

    norm: Norm
    eps: float
    step_size: float
    steps: int
    top_share: float | None

    def __init__(
        self,
        *,
        norm: Norm = "linf",
        eps: float | None = None,
        step_size: float | None = None,
        steps: int = 10,
        top_share: float | None = None,
    ) -> None:
        if norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
        usual, largest = USUAL[norm], LARGEST[norm]
        eps = usual["eps"] if eps is None else eps
        step_size = usual["step_size"] if step_size is None else step_size
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "eps", in_pixels("eps", eps, most=largest, of=norm, zero=True))
        object.__setattr__(self, "step_size", in_pixels("step_size", step_size, most=largest, of=norm))
        object.__setattr__(self, "steps", whole("steps", steps))
        object.__setattr__(self, "top_share", _top_share(top_share, norm))

    def __str__(self) -> str:
        """The ball: ``ℓ∞ 8/255``."""
        return f"{SIGN[self.norm]} {length_text(self.eps)}"


def _top_share(value: float | None, norm: Norm) -> float | None:
    """As :class:`Threat` has it.

    Raises:
        ValueError: it is no share, or the norm has none.
    """
    usual = USUAL[norm].get("top_share")
    if value is None:
        return usual
    if usual is None:
        raise ValueError(f"top_share must be left out for {norm}, got {value!r}: it is of l1 alone")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"top_share must be a number, got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"top_share must be above 0 and at most 1, got {value}")
    return float(value)


def in_pixels(option: str, value: float, *, most: float, of: str = "", zero: bool = False) -> float:
    """A length, radius or deviation in pixels of [0, 1].

    Args:
        option: what it is called.
        value: what was said.
        most: above it, 0...255 must be meant.
        of: what ``most`` holds for, such as a norm.
        zero: it may be 0.

    Raises:
        ValueError: it is no such length.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{option} must be a number, got {value!r}")
    if not (value > 0 or (zero and value == 0)) or not value < math.inf:  # nan too
        raise ValueError(f"{option} must be {'at least' if zero else 'above'} 0 and finite, got {value}")
    if value > most:
        where = f" for {of}" if of else ""
        meant = f", so say {float(value):g}/255" if value / 255 <= most else ""
        raise ValueError(f"{option} must be at most {most:g}{where}, got {value}: pixels are in [0, 1]{meant}")
    return float(value)


def length_text(length: float) -> str:
    """A radius or step as the field says it: ``8/255`` where it is so many 255ths and no short number, else ``0.1``."""
    number, parts = f"{length:g}", round(255 * length, 6)
    exact = math.isclose(float(number), length, rel_tol=1e-9)
    return number if exact or parts != round(parts) else f"{parts:g}/255"


def whole(option: str, value: int) -> int:
    """A count, at least 1.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{option} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{option} must be at least 1, got {value}")
    return int(value)
