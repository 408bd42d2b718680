"""Defenses that return another thing than the contract's, a loss that is no number, or one that does not repeat."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Defense, Loss, Objective
from advss.testing.checks import carried, defenses
from advss.testing.subject import Subject
from advss.testing.suite import check
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
Inputs = tuple[Tensor, ...]
form = defenses.an_attack_gives_as_many_inputs_of_the_same_form
follow = defenses.attack_and_loss_follow_from_the_generator
loss_reached = defenses.its_loss_is_finite_and_reaches_every_parameter
LOSS_REACHED = "its loss is finite and reaches every parameter"
DRAWN = "attack and loss follow from the generator"
COMPARED = ["it keeps nothing from step to step", "the diversity term counts once"]


class AttackForgotten(Defense):
    """Ends its attack without a return."""

    name = "attack-forgotten"

    def attack(self, objective: Objective, generator: Generator) -> Inputs:  # type: ignore[return]
        super().attack(objective, generator)


class LossForgotten(Defense):
    """Ends its loss without a return."""

    name = "loss-forgotten"

    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:  # type: ignore[return]
        super().loss(objective, inputs, generator)


class Told(Defense):
    """Hands on what :meth:`changed` makes of the loss."""

    name = "told"

    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return self.changed(super().loss(objective, inputs, generator))

    def changed(self, loss: Loss) -> Loss:
        raise NotImplementedError


class NumberLoss(Told):
    """Its loss is a number."""

    def changed(self, loss: Loss) -> Loss:
        return Loss(float(loss.value.detach()))  # type: ignore[arg-type]


class NoPenalty(Told):
    """None in place of 0."""

    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, penalty=None)  # type: ignore[arg-type]


class OneLogits(Told):
    """A tensor in place of a tuple of them."""

    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value, loss.logits[0], penalty=loss.penalty)  # type: ignore[arg-type]


class NoNumber(Told):
    """Its loss and a metric are nan."""

    def changed(self, loss: Loss) -> Loss:
        value = loss.value * float("nan")
        return Loss(value, metrics={"robust": value.detach()}, penalty=loss.penalty)


class OwnDraw(Told):
    """Draws from the global generator."""

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple((x + 0.1 * torch.rand_like(x)).clamp(0, 1) for x in objective.inputs)

    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value * (1 + torch.rand(())), penalty=loss.penalty)


class NumpyDraw(Told):
    """Draws from NumPy."""

    name = "numpy-draw"

    def changed(self, loss: Loss) -> Loss:
        return Loss(loss.value * float(1 + np.random.rand()), penalty=loss.penalty)


class NumpyAttack(Defense):
    """Its start is NumPy's."""

    name = "numpy-attack"

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple(x * float(np.random.rand()) for x in objective.inputs)


class PythonCarry(Defense):
    """Carries what Python draws."""

    name = "python-carry"

    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return tuple(random.random() * x for x in inputs)


BROKEN = [
    (
        AttackForgotten,
        form,
        r"attack\(\) returns NoneType; return a tuple of tensors, one for each of objective.inputs",
    ),
    (LossForgotten, loss_reached, r"loss\(\) returns NoneType; return Loss\(value, logits, metrics\)"),
    (NumberLoss, loss_reached, "Loss.value is float; give a tensor"),
    (NoPenalty, loss_reached, "Loss.penalty is NoneType; give a scalar"),
    (OneLogits, loss_reached, r"Loss.logits is Tensor of shape \(6, 2\); give a tuple of tensors"),
    (NumpyDraw, follow, r"loss\(\) draws from NumPy's random state, which no run seeds"),
    (NumpyAttack, follow, r"attack\(\) draws from NumPy's random state"),
    (PythonCarry, carried.what_it_carries_is_of_the_inputs_form, r"carry\(\) draws from Python's random state"),
    (NoNumber, loss_reached, "the loss is nan with one task"),
]


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


def _said(verdicts: list[Verdict], outcome: str) -> dict[str, str]:
    """What each check says that has this outcome, where it is not said above."""
    return {v.check: v.message for v in verdicts if v.outcome == outcome and not v.told}


@pytest.mark.parametrize(
    ("offered", "first", "told"),
    [
        (
            AttackForgotten,
            "an attack gives as many inputs of the same form",
            "attack() returns NoneType; return a tuple of tensors, one for each of objective.inputs",
        ),
        (LossForgotten, LOSS_REACHED, "loss() returns NoneType; return Loss(value, logits, metrics)"),
        (NumberLoss, LOSS_REACHED, "Loss.value is float; give a tensor"),
    ],
)
def test_another_form_is_told_first_and_once(offer: Offer, offered: type, first: str, told: str) -> None:
    assert _said(list(check(offer(offered))), "failed") == {first: told}


def test_what_is_not_finite_is_told_once_and_not_compared(offer: Offer) -> None:
    verdicts = list(check(offer(NoNumber)))
    assert _said(verdicts, "failed") == {LOSS_REACHED: "the loss is nan with one task"}
    assert {DRAWN, *COMPARED} <= {v.check for v in verdicts if v.outcome == "unchecked"}
    assert _said(verdicts, "unchecked") == {DRAWN: "attack or loss are not finite"}


@pytest.mark.parametrize("offered", [OwnDraw, NumpyDraw])
def test_what_draws_by_itself_is_told_once_and_not_compared(offer: Offer, offered: type) -> None:
    verdicts = list(check(offer(offered)))
    assert list(_said(verdicts, "failed")) == [DRAWN]
    assert [v.check for v in verdicts if v.outcome == "unchecked"] == COMPARED
    assert list(_said(verdicts, "unchecked").values()) == ["attack or loss do not repeat"]
