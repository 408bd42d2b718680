"""Gradients against differences of the loss's values, and a loss that is no mean."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.testing.checks import doubts, losses
from advss.testing.ready import Ready
from advss.testing.slopes import slopes
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject, find
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Targets = dict[str, Tensor]
FACTS = [
    losses.its_gradient_is_that_of_its_value,
    losses.the_loss_is_a_mean_over_the_batch,
    doubts.gradient_reaches_every_image,
]
own, mean, every_image = FACTS


class Backwards(torch.autograd.Function):
    """Itself, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


class Reversed(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(lambda x: Backwards.apply(encoder(x), -1.0), inputs, targets)  # type: ignore[arg-type]


class TenthTooLong(TwoSizes):
    """Of its second input alone."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0], Backwards.apply(inputs[1], 1.1)), targets)


class Halved(Mirror):
    """Half of its value has no gradient."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss((loss.value + loss.value.detach()) / 2, loss.logits)


class WrongSlope(Mirror):
    """The gradient of a tanh for that of a ReLU."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        def features(x: Tensor) -> Tensor:
            x = encoder(x)
            return Straight.apply(x.relu() * 3, x.tanh())  # type: ignore[no-any-return]

        return super().loss(features, inputs, targets)  # type: ignore[arg-type]


class Straight(torch.autograd.Function):
    """The first argument, with the second's gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class ReversedInTraining(Reversed):
    """As it should be: gives the attack another loss than it trains on."""

    def attacked(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return Mirror.loss(self, encoder, inputs, targets)


class Summed(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(F.cross_entropy(loss.logits[0], targets["label"], reduction="sum"), loss.logits)


class SumBesideMean(Summed):
    """A small part of it is a sum."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        mean, total = Mirror.loss(self, encoder, inputs, targets), super().loss(encoder, inputs, targets)
        return Loss(mean.value + 0.01 * total.value, mean.logits)


class Contrast(Mirror):
    """As it should be: every image against all others of the batch, which grows with their number."""

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        z = F.normalize(encoder(inputs[0]).mean((2, 3)), dim=1)
        return Loss(-(z @ z.T / 0.2).log_softmax(1).diagonal().mean())


class Siamese(Mirror):
    """The other view has no gradient (Chen and He 2021)."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x, batch.raw))

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        z = [F.normalize(encoder(x).mean((2, 3)) - 0.5, dim=1) for x in inputs]
        p = [F.normalize(self.drop(x.roll(1, 1) + 0.3 * x.square()), dim=1) for x in z]
        return Loss(-((p[0] * z[1].detach()).sum(1) + (p[1] * z[0].detach()).sum(1)).mean() / 2)


class Teacher(Mirror):
    """What a teacher says of the same inputs has none."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        with torch.no_grad():
            told = self.teacher(inputs[0].flip(3)).mean((2, 3)).mul(3).sub_(1).softmax(1)
        said = encoder(inputs[0]).mean((2, 3)).log_softmax(1)
        return Loss(-(told * said).sum(1).mean() * 10)


class FirstHalf(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0][::2],), {"label": targets["label"][::2]})


BROKEN = [
    (Reversed, own, r"the gradient by input 0 is 198 % off differences .*, which are -0.98 times it, so attacks go"),
    (TenthTooLong, own, "by input 1 is .* % off differences of the loss's values, which are 0.91 times it"),
    (Halved, own, "by input 0 is 50 % off .*, which are 2 times it, so attacks go astray; mend the backward pass"),
    (WrongSlope, own, "by input 0 is .. % off"),
    (Summed, mean, "once, twice and four times over is .*, so that it grows as a sum; give the mean over the batch"),
    (SumBesideMean, mean, "so that it grows as a sum"),
]
DOUBTFUL = [
    (Siamese, own, r"by input 0 is .* since detach\(\) or no_grad\(\) stops a part of it.*; is that the method's\?"),
    (Teacher, own, r"since detach\(\) or no_grad\(\) stops a part of it"),
    (FirstHalf, every_image, "no gradient reaches image 1, 3, 5 of input 0, of 6; is the loss a mean over all images"),
]


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Mirror, TwoSizes, ReversedInTraining, Contrast])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize(("offered", "fact", "message"), DOUBTFUL, ids=[case[0].__name__ for case in DOUBTFUL])
def test_it_is_doubted(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "warned", verdict.message
    assert re.search(message, verdict.message), verdict.message


def test_a_sound_one_agrees_whatever_is_drawn() -> None:
    (subject,) = find("rotation")
    for seed in range(10):
        it = Ready(subject.new(), seed=seed)
        it.modules.eval()
        views = it.views(torch.Generator().manual_seed(seed))
        along, across = slopes(
            lambda x, it=it, views=views: it.loss(Views((x,), views.targets)).value,  # type: ignore[misc]
            views.inputs[0],
            torch.Generator().manual_seed(seed),
        )
        assert along.apart < losses.APART / 2
        assert across.apart < losses.ACROSS
