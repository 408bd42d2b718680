"""Selfie: what the summary may see, its scores, its losses in float64, its splits, and what it refuses."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, DataFacts, Encoder, Loss, Views
from advss.models.encoder import TimmEncoder, build_encoder
from advss_pretext.selfie import Selfie


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def blank(count: int) -> Batch:
    x, none = torch.zeros(count, 1, 4, 4), torch.zeros(count, dtype=torch.int64)
    return Batch(x, x, none, none)


def built(encoder: Encoder, task: Selfie | None = None) -> Selfie:
    task = task or Selfie(layers=2, heads=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task.build(encoder)
    return task.eval()


def measured(task: Selfie, encoder: Encoder, batch: Batch) -> tuple[Views, Loss]:
    encoder.eval()
    views = task.views(batch, generator())
    return views, task.loss(encoder, views.inputs, views.targets)


def pixels_of(places: Tensor, *, grid: int = 4, side: int = 32) -> Tensor:
    """Masks (B, 1, H, W), true in the patches at ``places`` (B, N), which are counted row by row."""
    step = side // grid
    mask = torch.zeros(len(places), 1, side, side, dtype=torch.bool)
    for image, own in enumerate(places.tolist()):
        for place in own:
            top, left = place // grid * step, place % grid * step
            mask[image, :, top : top + step, left : left + step] = True
    return mask


def test_no_gradient_flows_from_the_summary_to_masked_pixels(encoder: Encoder, batch: Batch) -> None:
    task = built(encoder)
    encoder.eval()
    targets = task.views(batch, generator()).targets
    x = batch.x.clone().requires_grad_()
    summary = task.summary(task.vectors(encoder, x), targets["context"])
    assert summary.shape == (len(x), 1, encoder.channels)
    (gradient,) = torch.autograd.grad((summary * torch.randn(summary.shape, generator=generator())).sum(), x)
    masked = pixels_of(targets["masked"]).expand_as(gradient)
    assert gradient[masked].abs().max() == 0
    for place in targets["context"].T:  # one context patch of every image at a time
        patch = gradient * pixels_of(place[:, None])
        assert (patch.flatten(1).abs().amax(1) > 0).all()


def test_each_patch_is_encoded_alone(encoder: Encoder, batch: Batch) -> None:
    task = built(encoder)
    encoder.eval()
    vectors = task.vectors(encoder, batch.x)
    for place in (0, 3, 7, 12):
        top, left = place // 4 * 8, place % 4 * 8
        alone = encoder(batch.x[:, :, top : top + 8, left : left + 8]).mean((2, 3))
        torch.testing.assert_close(vectors[:, place], alone)


def test_the_scores_are_four_logits_at_each_of_four_places(encoder: Encoder, batch: Batch) -> None:
    _, loss = measured(built(encoder), encoder, batch)
    (scores,) = loss.logits
    assert scores.shape == (len(batch.x), 4, 4)
    assert scores.min() < 0
    assert (scores.sum(-1) - 1).abs().min() > 1e-3  # not probabilities


def scores_in_float64(task: Selfie, encoder: Encoder, views: Views) -> Tensor:
    """Summary plus row and column embedding, against the masked patches' vectors: plain loops."""
    vectors = task.vectors(encoder, views.inputs[0]).detach()
    summary = task.summary(vectors, views.targets["context"]).detach()
    scores = torch.zeros(len(vectors), 4, 4, dtype=torch.float64)
    for image, places in enumerate(views.targets["masked"].tolist()):
        for i, place in enumerate(places):
            query = summary[image, 0].double() + task.row[place // 4].detach() + task.column[place % 4].detach()
            for j, candidate in enumerate(places):
                scores[image, i, j] = (query * vectors[image, candidate].double()).sum()
    return scores


def cross_entropy_of_the_diagonal(logits: Tensor) -> float:
    """Summed over the four places, averaged over the images."""
    return float((logits.logsumexp(-1) - logits.diagonal(dim1=1, dim2=2)).sum(1).mean())


@pytest.mark.parametrize("scores", ["scaled", "unscaled"])
@pytest.mark.parametrize("criterion", ["cross_entropy", "double_softmax"])
def test_scores_and_loss_equal_a_float64_computation(
    encoder: Encoder,
    batch: Batch,
    scores: Literal["scaled", "unscaled"],
    criterion: Literal["cross_entropy", "double_softmax"],
) -> None:
    task = built(encoder, Selfie(layers=2, heads=4, scores=scores, criterion=criterion))
    views, loss = measured(task, encoder, batch)
    expected = scores_in_float64(task, encoder, views)
    if scores == "scaled":
        expected = expected / 16**0.5
    torch.testing.assert_close(loss.logits[0].detach().double(), expected, atol=1e-4, rtol=1e-4)
    if criterion == "double_softmax":
        expected = expected.exp() / expected.exp().sum(-1, keepdim=True)
    assert float(loss.value.detach()) == pytest.approx(cross_entropy_of_the_diagonal(expected), rel=1e-4)


def test_its_accuracy_is_the_share_of_places_that_pick_their_own_patch(encoder: Encoder, batch: Batch) -> None:
    _, loss = measured(built(encoder), encoder, batch)
    picks = loss.logits[0].argmax(-1)
    expected = (picks == torch.arange(4)).double().mean()
    assert float(loss.metrics["accuracy"]) == pytest.approx(float(expected))


def test_every_place_is_masked_or_context(encoder: Encoder, batch: Batch) -> None:
    targets = built(encoder).views(batch, generator()).targets
    assert targets["masked"].shape == (len(batch.x), 4)
    places = torch.cat([targets["masked"], targets["context"]], 1).sort(1).values
    assert torch.equal(places, torch.arange(16).expand(len(batch.x), 16))


@pytest.mark.parametrize(("split", "different"), [("image", 200), ("batch", 1)])
def test_the_split_is_one_an_image_or_one_a_batch(split: Literal["image", "batch"], different: int) -> None:
    """Of the 16! orders of 16 patches, 200 images draw different ones."""
    targets = Selfie(split=split).views(blank(200), generator()).targets
    orders = torch.cat([targets["masked"], targets["context"]], 1)
    assert len({tuple(order) for order in orders.tolist()}) == different


def test_every_patch_is_masked_equally_often() -> None:
    masked = Selfie().views(blank(4000), generator()).targets["masked"]
    counts = torch.bincount(masked.flatten(), minlength=16)
    assert (counts - 1000).abs().max() < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_its_attention_pooling_is_as_in_the_paper(encoder: Encoder) -> None:
    """13 layers, post-norm, GELU, a feed-forward part twice the width, dropout 0.1, each with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = Selfie()
        task.build(encoder)
    layers = [layer for layer in task.pool.layers if isinstance(layer, nn.TransformerEncoderLayer)]
    assert len(layers) == 13
    for layer in layers:
        assert layer.self_attn.num_heads == 16
        assert layer.linear1.out_features == 2 * encoder.channels
        assert not layer.norm_first
        assert layer.dropout1.p == 0.1
        torch.testing.assert_close(layer.activation(torch.tensor([-1.0])), torch.tensor([-0.15865525]))
    assert not torch.equal(layers[0].linear1.weight, layers[1].linear1.weight)


class Tailless(TimmEncoder):
    """An encoder that gives no last stage away."""

    def tail(self) -> nn.Module:
        raise AssertionError("Selfie ends at the third stage")


def test_the_last_stage_is_never_used(encoder: TimmEncoder, batch: Batch) -> None:
    encoder.__class__ = Tailless
    task = built(encoder)
    assert task.tail is None
    assert measured(task, encoder, batch)[1].value.isfinite()


def test_heads_that_do_not_divide_the_width_are_an_error(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="heads 5 must divide the encoder's width 16"):
        built(encoder, Selfie(layers=1, heads=5))


@pytest.mark.parametrize("grid", [3, 5])
def test_a_grid_that_does_not_divide_the_side_is_an_error(encoder: Encoder, grid: int) -> None:
    with pytest.raises(ValueError, match=rf"selfie: grid {grid} does not divide images of side 32"):
        built(encoder, Selfie(grid=grid, layers=1, heads=4))


def vit(patch_size: int) -> TimmEncoder:
    return build_encoder("test_vit", {"patch_size": patch_size}, DataFacts(40, 32), mean=[0.5] * 3, std=[0.25] * 3)


def test_patches_that_a_vision_transformer_cannot_take_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"patches of 8×8 pixels do not suit a backbone .* multiples of 16"):
        built(vit(16), Selfie(layers=1, heads=4))


def test_it_runs_on_a_vision_transformer_that_takes_its_patches(batch: Batch) -> None:
    encoder = vit(4)
    assert measured(built(encoder), encoder, batch)[1].value.isfinite()


@pytest.mark.parametrize("masked", [1, 16, 17])
def test_a_number_of_masked_patches_out_of_range_is_an_error(masked: int) -> None:
    with pytest.raises(ValueError, match=rf"masked must be in 2\.\.15 for a grid of 4, got {masked}"):
        Selfie(masked=masked)


def test_a_negative_feed_forward_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="feedforward must be at least 0, got -1"):
        Selfie(feedforward=-1)


@pytest.mark.parametrize(("layers", "heads"), [(0, 16), (13, 0)])
def test_no_layers_or_heads_is_an_error(layers: int, heads: int) -> None:
    with pytest.raises(ValueError, match="layers and heads must be at least 1"):
        Selfie(layers=layers, heads=heads)


def test_scores_under_bf16_autocast_are_computed_in_float32(encoder: Encoder, batch: Batch) -> None:
    task = built(encoder, Selfie(layers=2, heads=4, scores="unscaled"))
    encoder.eval()
    views = task.views(batch, generator())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        (scores,) = task.loss(encoder, views.inputs, views.targets).logits
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())
