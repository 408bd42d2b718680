"""What the contract allows and is perhaps not meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Batch, Defense, Encoder, Loss, Objective, Views
from advss.testing.checks import doubts
from advss.testing.stand_ins import Mirror
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Inputs = tuple[Tensor, ...]
labels, ascends = doubts.its_loss_does_not_change_with_the_labels, doubts.an_attack_ascends


class Supervised(Mirror):
    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,), {"label": batch.label % 2})


class CountsLabels(Mirror):
    """Looks at them before training."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.weight: Tensor
        self.register_buffer("weight", torch.ones(()))

    def prepare(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        self.weight += torch.cat([batch.x[batch.label == 0] for batch in data]).mean()

    def loss(self, encoder: Any, inputs: Inputs, targets: dict[str, Tensor]) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value * self.weight, loss.logits)


class Step(Defense):
    """A step along the gradient's sign, times a factor."""

    name = "step"
    factor = 1.0

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        start = tuple(x.clone().requires_grad_() for x in objective.inputs)
        with objective.attacking("eval"), torch.enable_grad():
            gradients = torch.autograd.grad(objective(start).total, start)
        step = 0.02 * self.factor
        return tuple((x.detach() + step * g.sign()).clamp(0, 1) for x, g in zip(start, gradients, strict=True))


class Descends(Step):
    factor = -1.0


class Friendly(Descends):
    """Descends, and says that it makes nothing robust."""

    adversarial = False


DOUBTFUL = [
    (Supervised, labels, "the loss is .* when the images have other labels; a pretext task does without"),
    (CountsLabels, labels, "when the images have other labels"),
    (Descends, ascends, r"attack\(\) lowers the loss in all that was tried, by \d+ % and more; is its step's sign"),
]


@pytest.mark.parametrize(("offered", "fact", "message"), DOUBTFUL, ids=[case[0].__name__ for case in DOUBTFUL])
def test_it_is_doubted(ask: Ask, offered: type, fact: Callable[..., None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "warned", verdict.message
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize(("offered", "fact"), [(Mirror, labels), (Step, ascends), (Friendly, ascends)])
def test_what_is_as_it_should_be_passes(ask: Ask, offered: type, fact: Callable[..., None]) -> None:
    assert ask(offered, fact).outcome == "passed"
