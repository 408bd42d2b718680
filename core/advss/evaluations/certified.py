"""What certificates of many images come to: certified accuracy at each radius, its mean radius, and the figure.

Letters: N images. Answers of :class:`Measured` are ``predicted`` (N,), the class certified or ``ABSTAIN``, and
``radius`` (N,), within which it is, ℓ2, pixels in [0, 1], 0 where it abstains.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advss.evaluations.chance import against_chance
from advss.evaluations.intervals import accuracy_with_interval
from advss.figures import LOOKS, new_figure
from advss.measuring import Measured
from advss.models.smoothed import ABSTAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP, MOST_STEPS = 0.05, 1000  # of the curve's radii, pixels in [0, 1]
MOST_SHOWN = 6  # columns of a table 80 characters wide
AT = "accuracy_"  # before a radius


def summary(measured: Measured, *, largest: float) -> dict[str, Any]:
    """The figures of a certificate's file.

    Args:
        measured: at least one image.
        largest: the largest radius that can be certified; the curve ends beyond it.

    Returns:
        ``abstained``, the share of images; ``acr``, the average certified radius, a wrong image's being 0 (Zhai et al.
        2020); ``accuracy_0.25``, ``accuracy_0.5`` and so on, at round radii that can be certified, each with its
        interval; ``radius`` and ``accuracy``, the curve; and what
        :func:`advss.evaluations.chance.against_chance` says of the classes certified, its doubt in ``notes``.
    """
    radii, radius_N = grid(largest), _of_right(measured)
    chance = against_chance(measured.answers["predicted"], measured.label, measured.classes)
    return {
        "abstained": float((measured.answers["predicted"] == ABSTAIN).double().mean()),
        "acr": float(radius_N.clamp_min(0).mean()),
        **{f"{AT}{radius:g}": accuracy_with_interval(radius_N >= radius) for radius in _round(radii)[1:]},
        "radius": radii,
        "accuracy": [float((radius_N >= radius).double().mean()) for radius in radii],
        **chance,
        "notes": [chance["doubt"]] if chance["doubt"] else [],
    }


def drawn(measured: Measured, *, largest: float, title: str) -> Figure:
    """Certified accuracy over the radius: a step down at the radius of each image that is right."""
    radius_N = _of_right(measured)
    radii = radius_N[radius_N >= 0].sort().values.tolist()
    left = [count / len(radius_N) for count in range(len(radii), -1, -1)]
    figure = new_figure(width=6, height=3.8)
    axes = figure.subplots()
    axes.step([0, *radii, largest], [left[0], *left], where="pre", color=LOOKS[0].colour)
    axes.axvline(largest, color=LOOKS[1].colour, linestyle="--", label="largest that n and α can certify")
    axes.set(xlabel="ℓ2 radius, pixels in [0, 1]", ylabel="certified accuracy", title=title, ylim=(0, 1.02))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def grid(largest: float) -> list[float]:
    """Radii from 0 to just beyond ``largest``, a twentieth apart, or as many tens of it as a huge σ asks for."""
    step = STEP * 10 ** max(0, math.ceil(math.log10(largest / (STEP * MOST_STEPS))))
    radii = [0.0]
    while radii[-1] <= largest:
        radii.append(round(len(radii) * step, 10))
    return radii


def _round(radii: list[float]) -> list[float]:
    """At most ``MOST_SHOWN`` of a :func:`grid` that can be certified, 0 first."""
    attainable, every = radii[:-1], 5  # 0, 0.25, 0.5
    while len(attainable[::every]) > MOST_SHOWN:
        every *= 2
    return attainable[::every]


def _of_right(measured: Measured) -> Tensor:
    """Radii (N,), below every radius where the class that is certified is not the label."""
    right_N = measured.answers["predicted"] == measured.label
    return measured.answers["radius"].where(right_N, -math.inf)
