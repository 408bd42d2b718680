"""Wilson's interval against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from advss.evaluations.intervals import accuracy_with_interval, wilson

Z = {0.95: 1.959963984540054, 0.99: 2.5758293035489004}  # of the normal distribution, from tables


@pytest.mark.parametrize("level", Z)
@pytest.mark.parametrize(("right", "of"), [(0, 1), (1, 1), (7, 10), (0, 360), (352, 360), (5321, 10000)])
def test_wilson_is_the_closed_form(right: int, of: int, level: float) -> None:
    z, share = Z[level], right / of
    centre = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    assert wilson(right, of, level=level) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("right", "of"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_is_an_error(right: int, of: int) -> None:
    with pytest.raises(ValueError, match=f"{right} right of {of} images"):
        wilson(right, of)


def test_accuracy_counts_the_right_images() -> None:
    right_N = torch.tensor([True, True, True, False])
    assert accuracy_with_interval(right_N) == {"accuracy": 0.75, "interval": list(wilson(3, 4)), "images": 4}


def test_no_images_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="0 images"):
        accuracy_with_interval(torch.zeros(0, dtype=torch.bool))
