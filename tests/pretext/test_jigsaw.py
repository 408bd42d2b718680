"""Jigsaw: orders that can be undone, how often each is drawn, how far apart they are, and that they are kept."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Batch, DataFacts, Encoder
from advss.models.encoder import TimmEncoder, build_encoder
from advss_pretext.jigsaw import Jigsaw, choose_orders
from advss_pretext.patches import from_patches, to_patches


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def built(encoder: Encoder, *, seed: int = 0, grid: int = 4, permutations: int = 30, unchanged: float = 0.1) -> Jigsaw:
    task = Jigsaw(grid=grid, permutations=permutations, unchanged=unchanged)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task.build(encoder)
    return task


def many(count: int) -> Batch:
    x = torch.rand(count, 1, 4, 4, generator=generator(1))
    return Batch(x, x, torch.arange(count), torch.zeros(count, dtype=torch.int64))


def chosen(count: int, choice: Literal["hamming", "random"], *, patches: int = 16) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return choose_orders(patches, count, far=choice == "hamming")


def least_distance(orders: Tensor) -> int:
    apart = (orders[:, None] != orders[None]).sum(2)
    return int(apart[~torch.eye(len(orders), dtype=torch.bool)].min())


@pytest.mark.parametrize("grid", [2, 4])
def test_the_inverse_permutation_restores_the_image_bit_for_bit(encoder: Encoder, batch: Batch, grid: int) -> None:
    task = built(encoder, grid=grid, permutations=10, unchanged=0.0)
    views = task.views(batch, generator())
    inverse = task.orders[views.targets["order"]].argsort(1)
    shuffled = to_patches(views.inputs[0], grid)
    restored = torch.stack([patches[places] for patches, places in zip(shuffled, inverse, strict=True)])
    assert torch.equal(from_patches(restored, grid), batch.x)
    assert not torch.equal(views.inputs[0], batch.x)


def test_class_0_leaves_the_image_alone(encoder: Encoder) -> None:
    images = many(300)
    views = built(encoder).views(images, generator())
    zero = views.targets["order"] == 0
    unchanged = (views.inputs[0] == images.x).flatten(1).all(1)
    assert torch.equal(unchanged, zero)
    assert 0 < zero.sum() < 300


def test_class_0_has_its_even_share_and_the_forced_tenth(encoder: Encoder) -> None:
    """0.1 + 0.9 / 31 = 12.9 %, each other class 0.9 / 31."""
    count = 60_000
    order = built(encoder).views(many(count), generator()).targets["order"]
    shares = torch.bincount(order, minlength=31) / count
    for k, expected in enumerate([0.1 + 0.9 / 31] + [0.9 / 31] * 30):
        assert abs(float(shares[k]) - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("choice", ["hamming", "random"])
def test_orders_are_different_permutations_after_the_identity(choice: Literal["hamming", "random"]) -> None:
    orders = chosen(30, choice)
    assert orders.shape == (31, 16)
    assert torch.equal(orders[0], torch.arange(16))
    assert torch.equal(orders.sort(1).values, torch.arange(16).expand(31, 16))
    assert len({tuple(order) for order in orders.tolist()}) == 31


def test_orders_chosen_far_apart_are_farther_apart_than_random_ones() -> None:
    assert least_distance(chosen(30, "hamming")) > least_distance(chosen(30, "random"))


def test_all_orders_there_are_can_be_asked_for() -> None:
    assert len({tuple(order) for order in chosen(23, "random", patches=4).tolist()}) == 24


def test_more_orders_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 patches have fewer than 24 other orders"):
        chosen(24, "hamming", patches=4)


def test_orders_come_with_the_weights(encoder: Encoder) -> None:
    one, other = built(encoder, seed=0), built(encoder, seed=1)
    assert not torch.equal(one.orders, other.orders)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.orders, other.orders)


def test_the_head_tells_all_orders_apart(encoder: Encoder, batch: Batch) -> None:
    task = built(encoder, permutations=7).eval()
    encoder.eval()
    views = task.views(batch, generator())
    loss = task.loss(encoder, views.inputs, views.targets)
    (logits,) = loss.logits
    assert logits.shape == (len(batch.x), 8)
    wide = logits.detach().double()
    expected = (wide.logsumexp(1) - wide[torch.arange(len(wide)), views.targets["order"]]).mean()
    assert float(loss.value.detach()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("grid", [3, 5, 1, 0])
def test_a_grid_that_does_not_divide_the_side_is_an_error(encoder: TimmEncoder, grid: int) -> None:
    with pytest.raises(ValueError, match=rf"jigsaw: grid {grid} does not divide images of side 32; use one of \[2, 4"):
        Jigsaw(grid=grid).build(encoder)


def test_no_permutations_is_an_error() -> None:
    with pytest.raises(ValueError, match="permutations must be at least 1, got 0"):
        Jigsaw(permutations=0)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_out_of_range_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match=r"unchanged must be in \[0, 1\)"):
        Jigsaw(unchanged=share)


def test_it_runs_on_a_vision_transformer(batch: Batch) -> None:
    vit = build_encoder("test_vit", {"patch_size": 8}, DataFacts(40, 32), mean=[0.5] * 3, std=[0.25] * 3)
    task = built(vit)
    views = task.views(batch, generator())
    assert task.loss(vit, views.inputs, views.targets).value.isfinite()
