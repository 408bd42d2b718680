"""A run's learning curves, drawn from its journal: loss and accuracies by epoch, a figure a stage."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from advss.figures import LOOKS, new_figure, save_figure
from advss.tracking.journal import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, dict[int, float]]  # metric -> epoch -> value

CLEAN, ATTACKED, TRAINED = LOOKS[:3]
ACCURACIES = {
    "train/accuracy": ("train, as trained", TRAINED),
    "valid/ta": ("validation TA", CLEAN),
    "valid/ra": ("validation RA", ATTACKED),
    "valid/clean/accuracy": ("validation, clean", CLEAN),
    "valid/adversarial/accuracy": ("validation, adversarial", ATTACKED),
}
LOSSES = {
    "train/loss": ("train", TRAINED),
    "valid/clean/loss": ("validation, clean", CLEAN),
    "valid/adversarial/loss": ("validation, adversarial", ATTACKED),
}


def draw_curves(journal: Path, folder: Path) -> list[Path]:
    """Write ``folder``/STAGE.png and .svg for every stage and member with finished epochs; returns the files."""
    drawn: list[Path] = []
    for stage, curves in _by_stage(journal).items():
        drawn += save_figure(_drawn(stage, curves), folder / f"{stage}.png")
    return drawn


def _by_stage(journal: Path) -> dict[str, Curves]:
    stages: dict[str, Curves] = defaultdict(lambda: defaultdict(dict))
    for record in read_metrics(journal):
        for name, value in record.values.items():
            if record.epoch is not None and name.startswith(("train/", "valid/")):
                stages[record.stage][name][record.epoch] = value
    return stages


def _drawn(stage: str, curves: Curves) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(width=9, height=3.4)
    left, right = figure.subplots(1, 2)
    for axes, wanted, label in ((left, LOSSES, "loss"), (right, ACCURACIES, "accuracy")):
        for name, (title, look) in wanted.items():
            if points := sorted(curves.get(name, {}).items()):
                axes.plot(*zip(*points, strict=True), **look.of_line, label=title)
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend(frameon=False)
    right.set_ylim(0, 1.02)
    figure.suptitle(stage)
    return figure
