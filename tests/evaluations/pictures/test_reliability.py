"""The calibration error against sums over images in float64, and bars that say what it is of."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from advss.evaluations.pictures import calibration_error, draw_reliability
from advss.figures import save_figure

BY_HAND = torch.tensor([0.05, 0.35, 0.35, 0.95]), torch.tensor([True, False, True, True])


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_it_is_the_papers_sum_over_bins(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator)
    right = torch.rand(500, generator=generator) < confidence**2
    expected = 0.0
    for place in range(bins):
        inside = [i for i, c in enumerate(confidence.tolist()) if place / bins < c <= (place + 1) / bins]
        if inside:
            accuracy = fmean(bool(right[i]) for i in inside)
            expected += len(inside) / 500 * abs(accuracy - fmean(confidence[i].item() for i in inside))
    assert calibration_error(confidence, right, bins) == pytest.approx(expected, abs=1e-12)


def test_a_bin_holds_its_upper_end() -> None:
    confidence, right = torch.tensor([0.5, 0.75], dtype=torch.float64), torch.tensor([True, False])
    assert calibration_error(confidence, right, 2) == pytest.approx((0.5 + 0.75) / 2)  # together it were 0.125


@pytest.mark.parametrize(("right", "error"), [(True, 0.0), (False, 1.0)])
def test_one_image_that_is_sure(right: bool, error: float) -> None:
    assert calibration_error(torch.ones(1), torch.tensor([right])) == error


def test_a_confidence_of_zero_has_a_bin() -> None:
    assert calibration_error(torch.zeros(2), torch.tensor([False, False])) == 0


@pytest.mark.parametrize("bad", [[], [math.nan], [-0.1], [1.5]])
def test_what_is_no_probability_is_an_error(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="confidences from 0 to 1"):
        calibration_error(torch.tensor(bad), torch.zeros(len(bad), dtype=torch.bool))


def bars(axes: Any, container: int) -> dict[int, tuple[float, float]]:
    """Bin -> where a bar begins and ends."""
    found = {int(15 * (bar.get_x() + bar.get_width() / 2)): bar for bar in axes.containers[container]}
    return {place: (bar.get_y(), bar.get_y() + bar.get_height()) for place, bar in found.items()}


def test_bars_are_accuracies_and_gaps_go_to_the_mean_confidence() -> None:
    upper = draw_reliability({"clean": BY_HAND}).axes[0]
    assert bars(upper, 0) == {0: (0, 1), 5: (0, 0.5), 14: (0, 1)}
    ends = {0: (1, 0.05), 5: (0.5, 0.35), 14: (1, 0.95)}
    assert {place: pytest.approx(end, abs=1e-6) for place, end in ends.items()} == bars(upper, 1)


def test_the_legend_tells_the_error_and_the_means() -> None:
    axes: list[Any] = draw_reliability({"clean": BY_HAND}).axes
    upper, lower = axes
    assert upper.get_legend().get_texts()[1].get_text() == "gap to confidence, ECE 32.5 %"  # (.95 + 2 × .15 + .05) / 4
    said = [text.get_text() for text in lower.get_legend().get_texts()]
    assert said == ["mean accuracy 0.750", "mean confidence 0.425"]


def test_below_is_the_share_of_images() -> None:
    lower = draw_reliability({"clean": BY_HAND}).axes[1]
    assert {place: end for place, (_, end) in bars(lower, 0).items() if end} == {0: 25, 5: 50, 14: 25}


def test_images_without_confidence_are_left_out_and_told(tmp_path: Path) -> None:
    confidence, right = BY_HAND
    kinds = {"clean": BY_HAND, "attacked": (torch.full((4,), math.nan), right)}
    figure = draw_reliability(kinds | {"half": (confidence.where(confidence != 0.35, math.inf), right)})
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "clean",
        "attacked, 4 without confidence left out",
        "half, 2 without confidence left out",
    ]
    assert bars(figure.axes[2], 0).keys() == {0, 14}
    assert all(file.stat().st_size for file in save_figure(figure, tmp_path / "reliability.png"))
