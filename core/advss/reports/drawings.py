"""The figures of a report: accuracies with their intervals, learning curves, and cosines of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from advss.figures import LOOKS, look, new_figure, plain, short_labels
from advss.reports.compared import Summed, summed
from advss.reports.journals import Curve, gradients, mean_curve, pair, validation
from advss.reports.reading import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AT_ONCE = 8  # settings in one figure of curves
HEADS = ("ta", "ra")


def draw_accuracies(subject: Subject) -> Figure | None:
    """A line a setting: TA and RA, means over seeds with each seed and the interval over test images."""
    by = next(iter(subject.headlines), None)
    columns = {c.figure: c for c in subject.columns if c.measured_by == by and c.figure in HEADS}
    if not columns:
        return None
    labels = list(subject.settings)
    figure = new_figure(width=7, height=1.1 + 0.34 * len(labels))
    axes = figure.subplots()
    for place, name in enumerate(HEADS):
        known = {
            row: found
            for row, label in enumerate(labels)
            if name in columns and (found := summed(subject.settings[label], columns[name]))
        }
        _points(axes, known, place, name.upper())
    axes.set_yticks(range(len(labels)), [plain(label) for label in short_labels(labels)])
    axes.set(xlabel="percent of test images", ylim=(len(labels) - 0.5, -0.5), xlim=(-1, 101))
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _points(axes: Axes, known: Mapping[int, Summed], place: int, label: str) -> None:
    drawn, shift = LOOKS[place], 0.12 if place else -0.12
    for count, (row, found) in enumerate(known.items()):
        at, mean = row + shift, 100 * found.mean
        if found.images:
            axes.plot([100 * end for end in found.images], [at, at], color=drawn.colour, linewidth=1.5)
        values = [100 * value for value in found.values.values()]
        axes.plot(values, [at] * len(values), "|", color=drawn.colour, markersize=7)
        axes.plot([mean], [at], drawn.marker, color=drawn.colour, markersize=5, label="" if count else label)


def draw_curves(subject: Subject) -> Iterator[Figure]:
    """Validation TA and RA by epoch of fine-tuning, means over seeds and the band from least to highest."""
    curves = {
        label: {name: [c for cell in cells if (c := validation(cell, name))] for name in HEADS}
        for label, cells in subject.settings.items()
    }
    known = [label for label, found in curves.items() if any(found.values())]
    for start in range(0, len(known), AT_ONCE):
        chosen = known[start : start + AT_ONCE]
        yield _curves({label: curves[label] for label in chosen})


def _curves(curves: Mapping[str, Mapping[str, Sequence[Curve]]]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(width=9, height=3.6 + 0.12 * len(curves))
    names = dict(zip(curves, short_labels(list(curves)), strict=True))
    panels = dict(zip(HEADS, figure.subplots(1, 2), strict=True))
    for place, (label, found) in enumerate(curves.items()):
        for name, axes in panels.items():
            mean, least, most = mean_curve(found[name])
            drawn = {**look(place).of_line, "label": "" if name == "ra" and found["ta"] else plain(names[label])}
            axes.plot(list(mean), [100 * value for value in mean.values()], **drawn)
            if len(found[name]) > 1:
                ends = [[100 * value for value in one.values()] for one in (least, most)]
                axes.fill_between(list(mean), *ends, color=look(place).colour, alpha=0.15, linewidth=0)
    for name, axes in panels.items():
        axes.set(xlabel="epoch of fine-tuning", ylabel=f"validation {name.upper()}, %", ylim=(-2, 102))
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_gradients(subject: Subject) -> Figure | None:
    """The |cos| of each two tasks' input gradients by step of pretraining, means over seeds; None of single tasks."""
    found: dict[str, list[Curve]] = {}
    for label, cells in subject.settings.items():
        for cell in cells:
            for name, curve in gradients(cell).items():
                if pair(name).startswith("|cos|"):
                    found.setdefault(f"{label}: {pair(name).removeprefix('|cos| ')}", []).append(curve)
    if not found:
        return None
    figure = new_figure(width=7, height=3.4 + 0.14 * len(found))
    axes = figure.subplots()
    for place, (label, curves) in enumerate(found.items()):
        mean, _, _ = mean_curve(curves)
        one = look(place)
        mark = one.marker if len(mean) == 1 else ""
        axes.plot(
            list(mean), list(mean.values()), color=one.colour, linestyle=one.line, marker=mark, label=plain(label)
        )
    axes.set(xlabel="step of pretraining", ylabel="|cos| of input gradients")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
