"""Settings summed up over their seeds, compared over the same images, and held against a paper's order of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from advss.reports.measured import Column, Figure
from advss.reports.reading import Cell, Subject
from advss.reports.statistics import Difference, Interval, Right, differ, mean_sd, over_images, student

Verdict = Literal["agree", "disagree", "not told apart"]
NONE_SHARED = "no seed in common"
OTHERS = "not of the same images"
LOST = "answers by image are gone"
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Summed:
    """A figure of a setting over its seeds.

    Attributes:
        values: by seed.
        mean: of them.
        sd: their standard deviation; None of one.
        seeds: Student's interval of the mean; None of one seed.
        images: interval over test images; None of a number that is no accuracy, and where answers are not alike.
        count: of the test images; None where that differs, and of a number that is no accuracy.
        share: whether it is an accuracy.
    """

    values: Mapping[int, float]
    mean: float
    sd: float | None
    seeds: Interval | None
    images: Interval | None
    count: int | None
    share: bool


def summed(cells: Sequence[Cell], column: Column) -> Summed | None:
    """A figure of a setting; None where no seed has it."""
    found = _found(cells, column)
    if not found:
        return None
    figures, values = [*found.values()], {seed: figure.value for seed, figure in found.items()}
    mean, sd = mean_sd([*values.values()])
    right_SN, counts = _stacked(figures), {figure.images for figure in figures}
    return Summed(
        values,
        mean,
        sd,
        student([*values.values()]),
        None if isinstance(right_SN, str) else over_images(right_SN),
        counts.pop() if len(counts) == 1 else None,
        figures[0].images is not None,
    )


def compare(cells: Sequence[Cell], others: Sequence[Cell], column: Column) -> Difference | str:
    """How far a setting lies above another, over the seeds that both have and the same images; else why it cannot be.

    Seeds stand in pairs: runs of one seed share the division of the data and, where the network is one, its start.
    """
    one, other = _found(cells, column), _found(others, column)
    if not one or not other:
        return UNMEASURED
    shared = [seed for seed in one if seed in other]
    if not shared:
        return NONE_SHARED
    both = _stacked([found[seed] for found in (one, other) for seed in shared])
    return both if isinstance(both, str) else differ(both[: len(shared)], both[len(shared) :])


def _found(cells: Sequence[Cell], column: Column) -> dict[int, Figure]:
    return {cell.seed: cell.figures[column] for cell in cells if column in cell.figures}


def _stacked(figures: Sequence[Figure]) -> Right | str:
    """Answers of several runs to the same images, (S, N); why not, where they are not."""
    if any(figure.right is None for figure in figures):
        return LOST
    if not all(figure.same_images(figures[0]) for figure in figures):
        return OTHERS
    stacked: Right = np.stack([figure.right for figure in figures if figure.right is not None])
    return stacked


def best(subject: Subject, labels: Sequence[str], column: Column) -> str:
    """The label with the highest mean of a figure, the first of equals."""
    known = {label: found.mean for label in labels if (found := summed(subject.settings[label], column))}
    return max(known, key=lambda label: known[label]) if known else labels[0]


@dataclass(frozen=True)
class Order:
    """Two rows in a paper's order, and in ours."""

    upper: str  # the one that the paper has above
    lower: str
    paper: float  # by how much, in percent
    ours: Difference | str

    @property
    def verdict(self) -> Verdict | None:
        """What comes of it; None where they cannot be compared."""
        if isinstance(self.ours, str):
            return None
        if not self.ours.told_apart:
            return "not told apart"
        return "agree" if self.ours.difference > 0 else "disagree"


def orders(subject: Subject, figure: str) -> Iterator[Order]:
    """Each pair of rows that the paper tells apart in a figure, ta or ra, beside ours by the headline's measurement."""
    column = next((one for one in subject.columns if one.figure == figure), None)
    paper = {label: value for label, value in _published(subject, figure).items() if label in subject.settings}
    for one, other in combinations(paper, 2):
        if column and paper[one] != paper[other]:
            upper, lower = (one, other) if paper[one] > paper[other] else (other, one)
            ours = compare(subject.settings[upper], subject.settings[lower], column)
            yield Order(upper, lower, paper[upper] - paper[lower], ours)


def _published(subject: Subject, figure: str) -> dict[str, float]:
    return {label: row[figure] for label, row in published_rows(subject).items() if figure in row}


def published_rows(subject: Subject) -> dict[str, dict[str, float]]:
    """What the paper has, in percent, by row and figure; what is no number is left out."""
    rows: Any = subject.published.get("rows")
    found = rows if isinstance(rows, dict) else {}
    return {
        str(label): {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
        for label, row in found.items()
        if isinstance(row, dict)
    }
