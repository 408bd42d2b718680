"""How far an ensemble's input gradients pointed apart while it trained, drawn from the run's journal."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from advss.figures import new_figure, save_figure
from advss.tracking.journal import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TERM, COSINE = "step/diversity", "step/abs_cosine:"


def draw_diversity(journal: Path, folder: Path) -> list[Path]:
    """Write ``folder``/diversity.png where an ensemble was trained; returns the files."""
    by_step = _by_step(journal)
    if TERM not in by_step:
        return []
    return [save_figure(_drawn(by_step), folder / "diversity.png")]


def _by_step(journal: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for record in read_metrics(journal):
        for name, value in record.values.items():
            if name == TERM or name.startswith(COSINE):
                found[name][record.step] = value
    return found


def _drawn(by_step: dict[str, dict[int, float]]) -> Figure:
    figure = new_figure(width=9, height=3.4)
    left, right = figure.subplots(1, 2)
    for name, points in sorted(by_step.items()):
        axes = left if name == TERM else right
        label = None if name == TERM else name.removeprefix(COSINE).replace("/", " and ")
        axes.plot(*zip(*sorted(points.items()), strict=True), label=label, linewidth=1)
    left.set(xlabel="optimiser step", ylabel="g, batch mean", title="diversity term g (0: orthogonal)")
    right.set(xlabel="optimiser step", ylabel="|cos|, batch mean", title="cosine of the members' input gradients")
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure
