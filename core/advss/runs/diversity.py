"""How far an ensemble's input gradients pointed apart while it trained, drawn from the run's journal."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from advss.figures import LOOKS, look, new_figure, save_figure
from advss.tracking.journal import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TERM, COSINE = "step/diversity", "step/abs_cosine:"


def draw_diversity(journal: Path, folder: Path) -> list[Path]:
    """Write ``folder``/diversity.png and .svg where an ensemble was trained; returns the files."""
    by_step = _by_step(journal)
    if TERM not in by_step:
        return []
    return list(save_figure(_drawn(by_step), folder / "diversity.png"))


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
    left.plot(*zip(*sorted(by_step[TERM].items()), strict=True), color=LOOKS[0].colour, linewidth=1)
    for place, name in enumerate(sorted(by_step.keys() - {TERM})):
        points, label = sorted(by_step[name].items()), name.removeprefix(COSINE).replace("/", " and ")
        right.plot(*zip(*points, strict=True), color=look(place).colour, linestyle=look(place).line, label=label)
    left.set(xlabel="optimiser step", ylabel="g, batch mean", title="diversity term g (0: orthogonal)")
    right.set(xlabel="optimiser step", ylabel="|cos|, batch mean", title="cosine of the members' input gradients")
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure
