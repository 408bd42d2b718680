"""What views() makes of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from advss.hookspecs import Views
from advss.randomness import stream
from advss.testing.ready import expect_finite, ready, short
from advss.testing.subject import Subject
from advss.testing.verdicts import as_in_training, expect
from advss.training.form import check_views, tensors

ORDERS = 3  # in which a batch is tried: one may leave labels as they are


def inputs_are_images_in_0_to_1(subject: Subject) -> None:
    """Attacks move inputs in balls cut by [0, 1]; normalisation is the encoder's."""
    as_in_training(check_views, ready(subject).views())


def every_input_and_target_has_one_entry_an_image(subject: Subject) -> None:
    """Their first dimension is the batch's; a target may be one number for all, of no dimension."""
    it = ready(subject)
    size = len(it.batch.x)
    for what, t in tensors(it.views()).items():
        shape = tuple(t.shape)
        expect(
            not shape or shape[0] == size,
            f"{what} has shape {shape} for a batch of {size} images; its first dimension must be {size}: give several "
            "views an image as several tensors, and what is not of an image as a buffer",
        )


def images_and_targets_belong_together(subject: Subject) -> None:
    """The loss of the same images in another order, their targets reordered with them, is the same."""
    it = ready(subject)
    views = it.views()
    value = float(it.sure_loss(views))
    draws = stream("cpu", "reorder")
    for _ in range(ORDERS):
        order = torch.randperm(len(it.batch.x), generator=draws)
        after = float(it.loss(_reordered(views, order)).value.detach())
        expect(
            abs(after - value) <= 1e-5 * (1 + abs(value)),
            f"the loss is {value:.6g}, and {after:.6g} when images and targets are reordered together; entry i of "
            "every target must be of image i, and the loss a mean over the batch",
        )


def views_follow_from_the_generator_alone(subject: Subject) -> None:
    """The same batch and generator give the same views, whatever was drawn or called in between."""
    it = ready(subject)
    first = tensors(it.views(stream("cpu", "views")))
    second = tensors(it.views(stream("cpu", "views")))
    expect(list(first) == list(second), f"views() gives {list(first)}, and at the next call {list(second)}")
    for what, t in first.items():
        expect(
            _same(t, second[what]),
            f"{what} differs between two calls of views() with the same batch and generator; draw from the generator "
            "that is given: torch.rand(..., generator=generator, device=batch.x.device), and keep no counters",
        )


def views_leave_batch_and_global_generator_alone(subject: Subject) -> None:
    """Other members of an ensemble get the same batch, and their dropout the same draws."""
    it = ready(subject)
    kept = {name: getattr(it.batch, name).clone() for name in ("x", "raw", "index", "label")}
    state = torch.get_rng_state()
    it.views(batch=it.batch)
    for name, before in kept.items():
        expect(torch.equal(getattr(it.batch, name), before), f"views() changes batch.{name} in place; clone it first")
    expect(
        torch.equal(torch.get_rng_state(), state),
        "views() draws from torch's global generator; draw from the generator that is given",
    )


def views_move_no_state(subject: Subject) -> None:
    """They are made where it is validated, too, and again where a run is resumed within an epoch."""
    it = ready(subject)
    before = {name: t.clone() for name, t in it.modules.named_state().items()}
    it.views()
    for name, t in it.modules.named_state().items():
        expect(
            torch.equal(t, before[name]),
            f"views() moves '{short(name)}'; move buffers in after_step(), and BatchNorm's statistics by loss() alone",
        )


def a_smaller_batch_works(subject: Subject) -> None:
    """An epoch's validation ends in a smaller batch."""
    it = ready(subject)
    it.modules.eval()
    expect_finite(it.loss(it.views()).value)
    batch = it.batch
    small = replace(batch, x=batch.x[:3], raw=batch.raw[:3], index=batch.index[:3], label=batch.label[:3])
    loss = it.loss(it.views(batch=small))
    expect(loss.value.isfinite().all(), f"the loss of a batch of 3 images is {float(loss.value.detach())}")


def _reordered(views: Views, order: Tensor) -> Views:
    targets = {name: t[order] if t.ndim else t for name, t in views.targets.items()}
    return Views(tuple(x[order] for x in views.inputs), targets)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
