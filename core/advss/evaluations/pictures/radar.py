"""Accuracy or UAR of many attacks at once, as Figure 3 of Kang et al. 2019 has it, and over each attack's radii.

Letters: N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advss.evaluations.intervals import wilson
from advss.figures import LOOKS, look, new_figure, plain, short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 5
FULL = 100  # of a spoke, unless something is beyond it


@dataclass(frozen=True)
class OverEps:
    """Which of the same N images are right under one attack, bool (N,), at each of its radii."""

    title: str
    radii: Mapping[str, float]  # by label, rising
    right: Sequence[Tensor]
    ata: Sequence[float] = ()  # percent


def draw_radar(lines: Mapping[str, Mapping[str, float]], unit: str) -> Figure:
    """Draw values from 0 at the centre to 100 on spokes of the same names.

    Args:
        lines: values by spoke, by what each line is called; "" is not told.
        unit: what the values are.
    """
    figure = new_figure(width=5.5, height=5.5)
    axes: Any = figure.add_subplot(projection="polar")
    spokes = list(next(iter(lines.values())))
    angles = [2 * math.pi * place / len(spokes) for place in range(len(spokes))]
    for place, (name, values) in enumerate(lines.items()):
        own = [values[spoke] for spoke in spokes]
        axes.plot([*angles, angles[0]], [*own, own[0]], label=plain(name), **look(place).of_line)
    highest = max(max(values.values()) for values in lines.values())
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_ylim(0, max(FULL, highest))
    axes.set_xticks(angles, [plain(spoke) for spoke in short_labels(spokes)])
    axes.set_rlabel_position(180 / len(spokes))
    axes.set_title(unit)
    if any(lines):
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return figure


def draw_over_eps(curves: Sequence[OverEps], clean_N: Tensor) -> Figure:
    """Draw accuracy over the radii of each attack, evenly spaced, with 95 % intervals; no attack stands first."""
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = new_figure(width=2.2 * columns + 0.8, height=2.2 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        counts = [(int(right_N.sum()), len(right_N)) for right_N in (clean_N, *curve.right)]
        low, high = zip(*([100 * end for end in wilson(*count)] for count in counts), strict=True)
        places = range(len(counts))
        axes.fill_between(places, low, high, color=LOOKS[2].colour, alpha=0.5, linewidth=0)
        axes.plot(places, [100 * right / of for right, of in counts], **LOOKS[0].of_line)
        if curve.ata:
            axes.plot(places[1:], curve.ata, label="ATA", **LOOKS[1].of_line)
            axes.legend(fontsize="x-small")
        axes.set_title(plain(curve.title), fontsize="small")
        axes.set_xticks(places, ["0", *map(plain, curve.radii)], rotation=90, fontsize="x-small")
        axes.set(ylim=(0, 102))
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_axis_off()
    figure.supylabel("accuracy, %", fontsize="medium")
    figure.supxlabel("eps, in each attack's unit", fontsize="medium")
    return figure
