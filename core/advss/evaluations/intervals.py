"""How sure an accuracy is: Wilson's interval (1927) of a share of images.

Letters: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest
from torch import Tensor

LEVEL = 0.95


def wilson(right: int, of: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds the true share with probability ``level``, of ``right`` among ``of`` images.

    Raises:
        ValueError: there are no images, or more are right than there are.
    """
    if not 0 <= right <= of or of == 0:
        raise ValueError(f"{right} right of {of} images; expected at least one image, and 0 to all of them right")
    interval = binomtest(right, of).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_with_interval(right_N: Tensor) -> dict[str, Any]:
    """What a file of results says of an accuracy.

    Args:
        right_N: whether each image is right, bool.

    Returns:
        ``accuracy``; ``interval``, its two ends at 95 %; ``images``, N.

    Raises:
        ValueError: there are no images.
    """
    right, of = int(right_N.sum()), len(right_N)
    interval = list(wilson(right, of))
    return {"accuracy": right / of, "interval": interval, "images": of}


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """The accuracies among figures, and what else is one number."""
    found = {
        n: one["accuracy"] if isinstance(one, Mapping) and "accuracy" in one else one for n, one in figures.items()
    }
    return {name: float(one) for name, one in found.items() if isinstance(one, int | float)}
