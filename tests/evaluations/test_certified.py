from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advss.evaluations.certified import drawn, grid, summary
from advss.figures import save_figure
from advss.measuring import Measured
from advss.models.smoothed import ABSTAIN

CLASSES = ("cat", "dog", "owl")


def measured(*images: tuple[int, int, float]) -> Measured:
    """Of images by label, certified class and radius."""
    label, predicted, radius = zip(*images, strict=True)
    answers = {"predicted": torch.tensor(predicted), "radius": torch.tensor(radius, dtype=torch.float64)}
    return Measured(answers, torch.tensor(label), torch.arange(len(label)), CLASSES)


# two right, one of them on a radius of the grid; one wrong with a large radius; one that abstains
IMAGES = [(1, 1, 0.5), (2, 2, 0.13), (0, 2, 0.7), (0, ABSTAIN, 0.0)]
FOUR = measured(*IMAGES)


def test_figures_are_those_counted_by_hand() -> None:
    found = summary(FOUR, largest=0.72)
    curve = found.pop("accuracy")
    assert found.pop("radius") == pytest.approx([j / 20 for j in range(16)])
    assert curve == [0.5] * 3 + [0.25] * 8 + [0.0] * 5
    assert found.pop("acr") == pytest.approx(0.63 / 4)
    assert (found.pop("chance"), found.pop("doubt"), found.pop("notes")) == (1 / 3, None, [])  # 4 images tell nothing
    assert found.pop("largest_class") == {"name": "cat", "share": 0.5}
    assert found.pop("most_answered") == {"name": "owl", "share": 0.5}
    assert found.pop("abstained") == 0.25
    assert {name: (one["accuracy"], one["images"]) for name, one in found.items()} == {
        "accuracy_0.25": (0.25, 4),
        "accuracy_0.5": (0.25, 4),
    }


def test_an_accuracy_at_a_radius_has_wilsons_interval() -> None:
    """Of 1 image in 4, from the formula with z = 1.96."""
    low, high = summary(FOUR, largest=0.72)["accuracy_0.25"]["interval"]
    z, share, count = 1.959964, 0.25, 4
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_abstaining_is_wrong_whatever_the_label() -> None:
    assert summary(measured((ABSTAIN + 1, ABSTAIN, 0.0)), largest=0.5)["accuracy"][0] == 0


def test_a_smoothed_classifier_of_one_class_is_told() -> None:
    one = measured(*[(label, 2, 0.1) for label in (0, 1, 2) * 20])
    assert summary(one, largest=0.5)["notes"] == [
        "the model answers 'owl' for 100 % of the 60 test images, of which 33.33 % are"
    ]


@pytest.mark.parametrize("largest", [1e-6, 0.1, 0.7724, 3.8, 50.1, 1e7])
def test_curve_rises_from_zero_to_beyond_the_largest_radius(largest: float) -> None:
    radii = grid(largest)
    assert radii[0] == 0
    assert all(a < b for a, b in pairwise(radii))
    assert radii[-2] <= largest < radii[-1]
    assert len(radii) <= 1002


@pytest.mark.parametrize(
    ("largest", "radii"),
    [(0.04, []), (0.77, ["0.25", "0.5", "0.75"]), (0.74, ["0.25", "0.5"]), (1.6, ["0.5", "1", "1.5"])],
)
def test_accuracies_are_told_at_round_radii_that_can_be_certified(largest: float, radii: list[str]) -> None:
    found = summary(FOUR, largest=largest)
    assert [name.removeprefix("accuracy_") for name in found if name.startswith("accuracy_")] == radii


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    path, _ = save_figure(drawn(FOUR, largest=0.72, title="four"), tmp_path / "certified.png")
    with Image.open(path) as figure:
        pixels = np.asarray(figure.convert("RGB"))
    blue = (pixels == (0x1B, 0x2F, 0x6B)).all(2)  # the first look's colour: the curve
    assert blue.sum() > 200


def test_a_figure_without_a_right_image_is_drawn(tmp_path: Path) -> None:
    path, _ = save_figure(drawn(measured(*IMAGES[2:]), largest=0.72, title="none"), tmp_path / "certified.png")
    assert path.is_file()
