"""Marks and whiskers are the accuracies of the classes and Wilson's intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from advss.evaluations.intervals import wilson
from advss.evaluations.pictures import draw_by_class
from advss.evaluations.pictures.by_class import ENDS
from advss.figures import save_figure

CLASSES = ("cat", "dog", "owl")
LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
CLEAN = torch.tensor([1, 1, 1, 0, 1, 1]).bool()
ATTACKED = torch.tensor([1, 0, 0, 0, 0, 0]).bool()


def drawn(figure: Any, kind: int) -> dict[int, tuple[float, float, float]]:
    """Line -> accuracy and both ends, per cent, of one kind."""
    marks, _, (whiskers,) = figure.axes[0].containers[kind]
    ends = {round(segment[0][1]): segment[:, 0] for segment in whiskers.get_segments()}
    return {round(y): (x, *ends[round(y)]) for x, y in zip(*marks.get_data(), strict=True)}


@pytest.mark.parametrize(
    ("kind", "counts"), [(0, {0: (3, 4), 1: (2, 2)}), (1, {0: (1, 4), 1: (0, 2)})], ids=("clean", "attacked")
)
def test_accuracies_and_intervals_by_hand(kind: int, counts: dict[int, tuple[int, int]]) -> None:
    found = drawn(draw_by_class({"clean": CLEAN, "attacked": ATTACKED}, LABELS, CLASSES), kind)
    assert found.keys() == counts.keys()  # the owl has no images
    for line, (right, of) in counts.items():
        low, high = wilson(right, of)
        assert found[line] == pytest.approx((100 * right / of, 100 * low, 100 * high))


def test_classes_stand_in_their_order_with_their_images() -> None:
    axes = draw_by_class({"clean": CLEAN}, LABELS, CLASSES).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat (4)", "dog (2)", "owl (0)"]
    assert axes.yaxis_inverted()


def test_kinds_differ_in_mark_and_line() -> None:
    figure = draw_by_class({"clean": CLEAN, "attacked": ATTACKED}, LABELS, CLASSES)
    looks = {(marks.get_marker(), marks.get_color()) for marks, _, _ in figure.axes[0].containers}
    lines = {str(whiskers.get_linestyle()) for _, _, (whiskers,) in figure.axes[0].containers}
    assert (len(looks), len(lines)) == (2, 2)


def test_of_many_classes_the_worst_and_the_best_are_shown() -> None:
    labels = torch.arange(120).repeat_interleave(120)
    right = torch.arange(120).repeat(120) < labels  # class k has k of 120 right
    figure = draw_by_class({"clean": right | True, "attacked": right}, labels, [f"c{i}" for i in range(120)])
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert shown == [f"c{i} (120)" for i in [*range(ENDS), *range(120 - ENDS, 120)]]
    assert figure.axes[0].get_title() == "the 25 worst and 25 best of 120 classes, attacked"
    assert drawn(figure, 1)[ENDS][0] == pytest.approx(100 * (120 - ENDS) / 120)


@pytest.mark.parametrize("classes", [2, 100, 101])
def test_one_image_is_drawn(classes: int, tmp_path: Path) -> None:
    one = torch.tensor([1])
    figure = draw_by_class({"clean": one > 0, "attacked": one < 0}, one, ["$a$", "猫", *map(str, range(classes - 2))])
    assert all(file.stat().st_size for file in save_figure(figure, tmp_path / "classes.png"))
