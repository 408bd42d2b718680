"""Accuracy under corruptions, as a table in greys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advss.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_corruptions(accuracy: Sequence[Sequence[float]], kinds: Sequence[str], severities: Sequence[int]) -> Figure:
    """Draw accuracies in [0, 1], a row a kind and a column a severity, each with its number in per cent."""
    figure = new_figure(width=5.5, height=1.2 + 0.3 * len(kinds))
    axes = figure.subplots()
    axes.imshow(accuracy, cmap="Greys_r", vmin=0, vmax=1, aspect="auto")
    for row, values in enumerate(accuracy):
        for column, value in enumerate(values):
            shade = "black" if value > 0.5 else "white"
            axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=shade, fontsize="small")
    axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
    axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], fontsize="small")
    axes.set(xlabel="severity", title="accuracy, %")
    return figure
