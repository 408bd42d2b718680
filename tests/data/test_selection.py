from __future__ import annotations

import torch

from advss.data.selection import choose

LABELS = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_proportional_counts() -> None:
    assert LABELS[choose(LABELS, 50, _generator())].bincount().tolist() == [35, 10, 5]


def test_equal_counts() -> None:
    assert LABELS[choose(LABELS, 24, _generator(), equal=True)].bincount().tolist() == [8, 8, 8]


def test_equal_counts_take_more_of_the_large_when_the_small_are_used_up() -> None:
    assert LABELS[choose(LABELS, 60, _generator(), equal=True)].bincount().tolist() == [30, 20, 10]


def test_places_rise_and_differ() -> None:
    places = choose(LABELS, 50, _generator())
    assert bool((places.diff() > 0).all())


def test_another_seed_chooses_others() -> None:
    assert not torch.equal(choose(LABELS, 50, _generator(0)), choose(LABELS, 50, _generator(1)))


def test_no_class_is_favoured_when_there_are_fewer_places_than_classes() -> None:
    labels = torch.arange(4).repeat(25)
    drawn = torch.stack([labels[choose(labels, 1, _generator(seed), equal=True)] for seed in range(400)])
    share = drawn.flatten().bincount(minlength=4) / 400
    assert float((share - 0.25).abs().max()) < 0.09  # four standard deviations


def test_every_image_is_as_likely_as_any_other_of_its_class() -> None:
    times = torch.zeros(100)
    for seed in range(600):
        times[choose(LABELS, 50, _generator(seed))] += 1
    assert float((times / 600 - 0.5).abs().max()) < 0.085  # just over four standard deviations
