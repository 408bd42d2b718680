"""How sure figures are, over seeds and over test images, and whether two rows are told apart.

All in float64, of numbers alone. Letters: S seeds, N test images; ``right_SN`` says whether seed s has image i right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t

LEVEL = 0.95
Interval = tuple[float, float]
Right = NDArray[np.bool_]  # (S, N), or (N,)

WILSON = "Wilson (1927)"
CLUSTERED = "Wilson (1927) of the mean over seeds, the count of images made the one of its variance between images"
MCNEMAR = "McNemar's exact test"
CROSSED = "t test over seeds and images (Hillis 2007)"


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1); None of one value.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values; expected at least one")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def student(values: Sequence[float], *, level: float = LEVEL) -> Interval | None:
    """Student's interval of the mean; None of fewer than two values."""
    mean, sd = mean_sd(values)
    if sd is None:
        return None
    reach = float(t.ppf((1 + level) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return mean - reach, mean + reach


def wilson(share: float, count: float, *, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share of ``count`` images, which need be no whole number.

    Raises:
        ValueError: a share beyond 0 and 1, or no images.
    """
    if not (0 <= share <= 1 and count > 0):
        raise ValueError(f"share {share} of {count} images; expected 0 to 1 of more than none")
    z = float(norm.ppf((1 + level) / 2))
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def over_images(right_SN: Right, *, level: float = LEVEL) -> Interval:
    """The interval, over test images, of the accuracy of these models, the mean of S seeds.

    Of one seed it is Wilson's. Of several it is Wilson's at the number of images that gives the mean the variance that
    it has: an image's share of seeds that have it right varies less than a single answer (Korn and Graubard 1998).
    """
    share_N = np.atleast_2d(right_SN).mean(0, dtype=np.float64)
    share, variance = float(share_N.mean()), float(share_N.var())
    same = variance == 0 or np.atleast_2d(right_SN).shape[0] == 1
    return wilson(share, len(share_N) if same else len(share_N) * share * (1 - share) / variance, level=level)


@dataclass(frozen=True)
class Difference:
    """How far one row lies above another on the same images.

    Attributes:
        difference: of the accuracies, mean over seeds.
        interval: at the level asked for.
        p: of the test named; the interval has 0 in it where p is above 1 - level.
        seeds: S.
        images: N.
        test: what was done.
        only: images that this row alone has right, and that the other alone has; of one seed.
    """

    difference: float
    interval: Interval
    p: float
    seeds: int
    images: int
    test: str
    only: tuple[int, int] | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the interval is without 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def differ(right_SN: Right, other_SN: Right, *, level: float = LEVEL) -> Difference:
    """Compare two rows over the same images and seeds: exactly of one seed, else by :func:`over_both`.

    Raises:
        ValueError: they are not of as many seeds and images, or there are none.
    """
    a_SN, b_SN = np.atleast_2d(right_SN), np.atleast_2d(other_SN)
    if a_SN.shape != b_SN.shape or not a_SN.size:
        raise ValueError(f"shapes {a_SN.shape} and {b_SN.shape}; expected the same seeds and images")
    if len(a_SN) > 1:
        return over_both(a_SN, b_SN, level=level)
    return mcnemar(a_SN[0], b_SN[0], level=level)


def mcnemar(right_N: Right, other_N: Right, *, level: float = LEVEL) -> Difference:
    """McNemar's exact test of one seed's answers, and an interval that has 0 in it just where p is above 1 - level.

    Of the images that one alone has right, as many are either's by chance. The interval holds two: Clopper and
    Pearson's of that share, which is the test's, and Tango's (1998), as the number of these images is chance, too.
    """
    only, other, count = int((right_N & ~other_N).sum()), int((other_N & ~right_N).sum()), len(right_N)
    apart, (low, high), p = only + other, tango(only, other, count, level=level), 1.0
    if apart:
        found = binomtest(only, apart)
        ends = found.proportion_ci(level, method="exact")
        low, high = (min(low, (2 * ends.low - 1) * apart / count), max(high, (2 * ends.high - 1) * apart / count))
        p = float(found.pvalue)
    return Difference((only - other) / count, (float(low), float(high)), p, 1, count, MCNEMAR, (only, other))


def tango(only: int, other: int, count: int, *, level: float = LEVEL) -> Interval:
    """Tango's score interval (1998) of the difference of two accuracies on the same ``count`` images.

    Args:
        only: images that the one alone has right.
        other: images that the other alone has right.
        count: all images.
        level: of the interval.
    """
    z = float(norm.ppf((1 + level) / 2))

    def away(d: float) -> float:
        """How far the difference lies from d, in standard errors at d."""
        b = (2 * count - only + other) * d - only - other
        rare = (math.sqrt(max(0.0, b * b + 8 * count * other * d * (1 - d))) - b) / (4 * count)
        error = math.sqrt(max(0.0, count * (2 * rare + d * (1 - d))))
        return (only - other - count * d) / error if error else 0.0

    middle, edge = (only - other) / count, 1 - 1e-12
    low = -1.0 if away(-edge) < z else brentq(lambda d: away(d) - z, -edge, middle)
    high = 1.0 if away(edge) > -z else brentq(lambda d: away(d) + z, middle, edge)
    return float(low), float(high)


def over_both(right_SN: Right, other_SN: Right, *, level: float = LEVEL) -> Difference:
    """The difference for other seeds and other images: both are drawn at random, and every seed has every image.

    As readers and cases are in diagnosis: Dorfman, Berbaum and Metz (1992), with the degrees of freedom of Hillis
    (2007). Variance between seeds counts by their number, and that between images by theirs, less what is both's; the
    sum is never less than these seeds' own over images, which seeds that happen to be alike would make it.
    """
    d_SN = right_SN.astype(np.float64) - other_SN
    seeds, images = d_SN.shape
    mean, of_seed_S, of_image_N = float(d_SN.mean()), d_SN.mean(1), d_SN.mean(0)
    by_seeds = float(of_seed_S.var(ddof=1)) / seeds
    by_images = float(of_image_N.var(ddof=1)) / images if images > 1 else 0.0
    rest_SN = d_SN - of_seed_S[:, None] - of_image_N + mean
    both = float((rest_SN**2).sum()) / max(1, (seeds - 1) * (images - 1)) / (seeds * images)
    variance = max(by_seeds + by_images - both, by_seeds, by_images)
    freedom = (seeds - 1) * (variance / by_seeds) ** 2 if by_seeds else math.inf
    if not variance:
        return Difference(mean, (mean, mean), float(mean == 0), seeds, images, CROSSED)
    law: Any = t(freedom) if math.isfinite(freedom) else norm
    reach = float(law.ppf((1 + level) / 2)) * math.sqrt(variance)
    p = 2 * float(law.sf(abs(mean) / math.sqrt(variance)))
    return Difference(mean, (mean - reach, mean + reach), p, seeds, images, CROSSED)


def holm(ps: Sequence[float]) -> list[float]:
    """Raise p of several tests at once, so that any is below a level by chance no more often than that: Holm (1979)."""
    raised, least = [0.0] * len(ps), 0.0
    for place, which in enumerate(sorted(range(len(ps)), key=lambda one: ps[one])):
        least = max(least, min(1.0, (len(ps) - place) * ps[which]))
        raised[which] = least
    return raised
