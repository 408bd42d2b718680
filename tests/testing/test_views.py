from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.testing.checks import views
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
FACTS = [
    views.inputs_are_images_in_0_to_1,
    views.every_input_and_target_has_one_entry_an_image,
    views.views_follow_from_the_generator_alone,
    views.views_leave_batch_and_global_generator_alone,
    views.images_and_targets_belong_together,
    views.a_smaller_batch_works,
    views.views_move_no_state,
]


class Seen(Mirror):
    """Hands on what :meth:`changed` makes of the views."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        return self.changed(super().views(batch, generator), batch)

    def changed(self, views: Views, batch: Batch) -> Views:
        raise NotImplementedError


class Normalised(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(((views.inputs[0] - 0.5) / 0.25,), views.targets)


class Double(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views((views.inputs[0].double(),), views.targets)


class NoInputs(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views((), views.targets)


class BareTensor(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs[0], views.targets)  # type: ignore[arg-type]


class NumberTarget(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs, {**views.targets, "grid": 3})  # type: ignore[dict-item]


class Stacked(Seen):
    """Two views an image in one tensor."""

    def changed(self, views: Views, batch: Batch) -> Views:
        return Views((views.inputs[0].repeat(2, 1, 1, 1),), views.targets)


class Table(Seen):
    """A target that is of no image."""

    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs, views.targets | {"table": torch.arange(30)})


class GlobalDraw(Mirror):
    def views(self, batch: Batch, generator: Generator) -> Views:
        label = torch.randint(2, (len(batch.x),))
        return Views((batch.x,), {"label": label})


class Counter(Seen):
    calls = 0

    def changed(self, views: Views, batch: Batch) -> Views:
        self.calls += 1
        return Views(views.inputs, views.targets | {"calls": torch.tensor(self.calls)})


class InPlace(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        batch.x.mul_(0.5)
        return views


class OutOfOrder(Mirror):
    """Targets of the images in reverse."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views(found.inputs, {"label": found.targets["label"].flip(0)})

    def loss(self, encoder: object, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return super().loss(encoder, inputs, {"label": targets["label"].flip(0)})  # type: ignore[arg-type]


class FirstImage(Mirror):
    """A loss of the first image alone."""

    def loss(self, encoder: object, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return super().loss(encoder, (inputs[0][:1],), {"label": targets["label"][:1]})  # type: ignore[arg-type]


class FixedSize(Seen):
    def changed(self, views: Views, batch: Batch) -> Views:
        return Views((views.inputs[0].reshape(6, 3, 32, 32),), views.targets)


class Normed(Seen):
    """Looks at the images through a norm in training mode."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.norm = nn.BatchNorm2d(3)

    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs, views.targets | {"x": self.norm(batch.x)})


BROKEN = [
    (
        Normalised,
        FACTS[0],
        r"input 0 of views\(\) has values from -.* to .*; stay in \[0, 1\]: clamp, and leave normalis",
    ),
    (Double, FACTS[0], r"input 0 of views\(\) is torch.float64; give float32"),
    (NoInputs, FACTS[0], "gives no inputs"),
    (BareTensor, FACTS[0], r"views\(\) returns .*; return Views\(\(tensor, ...\)"),
    (NumberTarget, FACTS[1], r"target 'grid' of views\(\) is int; give a tensor .*torch.tensor\(number"),
    (Stacked, FACTS[1], r"input 0 has shape \(12, 3, 32, 32\) for a batch of 6 images; its first dimension must be 6"),
    (Table, FACTS[1], r"target 'table' has shape \(30,\) for a batch of 6 images"),
    (GlobalDraw, FACTS[2], "target 'label' differs between two calls .* draw from the generator that is given"),
    (Counter, FACTS[2], "target 'calls' differs between two calls .*keep no counters"),
    (GlobalDraw, FACTS[3], "draws from torch's global generator"),
    (InPlace, FACTS[3], "changes batch.x in place; clone it first"),
    (OutOfOrder, FACTS[4], "the loss is .* when images and targets are reordered together; entry i of every target"),
    (FirstImage, FACTS[4], "reordered together"),
    (Normed, FACTS[6], r"views\(\) moves 'norm.running_mean'; .*statistics by loss\(\) alone"),
    (FixedSize, FACTS[5], "it raised RuntimeError: shape .* is invalid"),
]


class RandomInEval(Mirror):
    def loss(self, encoder: object, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return super().loss(encoder, (inputs[0] * torch.rand(len(inputs[0]), 1, 1, 1),), targets)  # type: ignore[arg-type]


class OneNumber(Seen):
    """A target for all images."""

    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs, views.targets | {"share": torch.tensor(0.5)})


class Teacher(Seen):
    """What a frozen norm makes of the images."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.norm = nn.BatchNorm2d(3).requires_grad_(False)

    def changed(self, views: Views, batch: Batch) -> Views:
        return Views(views.inputs, views.targets | {"x": self.norm(batch.x)})


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [TwoSizes, OneNumber, Teacher])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(
    ("offered", "fact", "message"), BROKEN, ids=[f"{case[0].__name__}-{case[1].__name__}" for case in BROKEN]
)
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


def test_the_order_of_images_is_not_asked_of_a_loss_that_is_random_in_eval_mode(ask: Ask) -> None:
    verdict = ask(RandomInEval, views.images_and_targets_belong_together)
    assert (verdict.outcome, verdict.message) == ("unchecked", "its loss is random in eval mode too")
