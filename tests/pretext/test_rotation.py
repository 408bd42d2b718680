"""Rotation: the turns are torch's, the labels balanced, the loss a cross-entropy of a last stage of its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

from advss.hookspecs import Batch, DataFacts, Encoder
from advss.models.encoder import build_encoder
from advss_pretext.rotation import Rotation, rotate


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def built(encoder: Encoder) -> Rotation:
    task = Rotation()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task.build(encoder)
    return task


def test_every_image_is_torchs_rot90_by_its_label() -> None:
    x = torch.rand(16, 3, 8, 8, generator=generator(1))
    turned, turn = rotate(x, generator())
    assert set(turn.tolist()) == {0, 1, 2, 3}
    for image, label, before in zip(turned, turn.tolist(), x, strict=True):
        assert torch.equal(image, torch.rot90(before, label, (1, 2)))


@pytest.mark.parametrize("size", [4, 8, 128])
def test_labels_are_balanced(size: int) -> None:
    _, turn = rotate(torch.rand(size, 1, 4, 4), generator())
    assert torch.bincount(turn, minlength=4).tolist() == [size // 4] * 4


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 31])
def test_labels_of_other_batches_differ_in_number_by_at_most_one(size: int) -> None:
    _, turn = rotate(torch.rand(size, 1, 4, 4), generator())
    counts = torch.bincount(turn, minlength=4)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_which_image_turns_how_is_random() -> None:
    counts = torch.zeros(8, 4)
    for seed in range(400):
        _, turn = rotate(torch.zeros(8, 1, 2, 2), generator(seed))
        counts[torch.arange(8), turn] += 1
    assert (counts - 100).abs().max() < 4 * math.sqrt(400 * 0.25 * 0.75)


def test_the_loss_is_the_mean_cross_entropy_of_four_logits(encoder: Encoder, batch: Batch) -> None:
    task = built(encoder).eval()
    encoder.eval()
    views = task.views(batch, generator())
    loss = task.loss(encoder, views.inputs, views.targets)
    (logits,) = loss.logits
    assert logits.shape == (len(batch.x), 4)
    probabilities = logits.detach().double().exp() / logits.detach().double().exp().sum(1, keepdim=True)
    expected = -probabilities[torch.arange(len(batch.x)), views.targets["turn"]].log().mean()
    assert float(loss.value.detach()) == pytest.approx(float(expected), rel=1e-6)
    right = (logits.argmax(1) == views.targets["turn"]).double().mean()
    assert float(loss.metrics["accuracy"]) == pytest.approx(float(right))


def test_its_last_stage_is_the_backbones(encoder: Encoder) -> None:
    task = built(encoder)
    assert task.tail is not None
    assert set(task.tail.state_dict()) == set(encoder.tail().state_dict())
    assert task.head.weight.shape == (4, encoder.features)


def test_it_runs_on_a_vision_transformer(batch: Batch) -> None:
    vit = build_encoder("test_vit", {"patch_size": 8}, DataFacts(40, 32), mean=[0.5] * 3, std=[0.25] * 3)
    task = built(vit)
    views = task.views(batch, generator())
    assert task.loss(vit, views.inputs, views.targets).value.isfinite()
