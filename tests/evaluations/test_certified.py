from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advss.evaluations.certified import Certified, draw_certified, grid, shown, summary
from advss.models.smoothed import ABSTAIN

CLASSES = ("cat", "dog", "owl")
# two right, one of them on a radius of the grid; one wrong with a large radius; one that abstains
FOUR = [
    Certified(index=3, label=1, predicted=1, radius=0.5, seconds=1.25),
    Certified(index=5, label=2, predicted=2, radius=0.13, seconds=1.5),
    Certified(index=8, label=0, predicted=2, radius=0.7, seconds=1.0),
    Certified(index=9, label=0, predicted=ABSTAIN, radius=0.0, seconds=1.0),
]


def test_figures_are_those_counted_by_hand() -> None:
    found = summary(FOUR, largest=0.72, classes=CLASSES)
    curve = found.pop("accuracy")
    assert found.pop("radius") == pytest.approx([j / 20 for j in range(16)])
    assert curve == [0.5] * 3 + [0.25] * 8 + [0.0] * 5
    assert found.pop("acr") == pytest.approx(0.63 / 4)
    assert (found.pop("chance"), found.pop("doubt")) == (1 / 3, None)  # 4 images can tell nothing
    assert found.pop("largest_class") == {"name": "cat", "share": 0.5}
    assert found.pop("most_answered") == {"name": "owl", "share": 0.5}
    assert found == {"images": 4, "clean_accuracy": 0.5, "abstained": 0.25, "seconds": 4.75}


def test_abstaining_is_wrong_whatever_the_label() -> None:
    assert summary([Certified(0, ABSTAIN + 1, ABSTAIN, 0.0, 1.0)], largest=0.5, classes=CLASSES)["accuracy"][0] == 0


@pytest.mark.parametrize("largest", [1e-6, 0.1, 0.7724, 3.8, 50.1, 1e7])
def test_curve_rises_from_zero_to_beyond_the_largest_radius(largest: float) -> None:
    radii = grid(largest)
    assert radii[0] == 0
    assert all(a < b for a, b in pairwise(radii))
    assert radii[-2] <= largest < radii[-1]
    assert len(radii) <= 1002


@pytest.mark.parametrize(
    ("largest", "radii"),
    [(0.04, [0]), (0.77, [0, 0.25, 0.5, 0.75]), (0.74, [0, 0.25, 0.5]), (1.6, [0, 0.5, 1.0, 1.5]), (3.8, [0, 1, 2, 3])],
)
def test_shown_are_at_most_six_round_radii_that_can_be_certified(largest: float, radii: list[float]) -> None:
    assert [radius for radius, _ in shown(summary(FOUR, largest=largest, classes=CLASSES))] == pytest.approx(radii)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "certified.png"
    draw_certified(FOUR, path, largest=0.72, title="four")
    with Image.open(path) as figure:
        pixels = np.asarray(figure.convert("RGB"))
    blue = (pixels == (0x1B, 0x2F, 0x6B)).all(2)  # the first look's colour: the curve
    assert blue.sum() > 200


def test_a_figure_without_a_right_image_is_drawn(tmp_path: Path) -> None:
    draw_certified(FOUR[2:], tmp_path / "certified.png", largest=0.72, title="none")
    assert (tmp_path / "certified.png").is_file()
