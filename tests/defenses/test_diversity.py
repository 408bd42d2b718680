"""The diversity term under every defense: once, and of the inputs that the defense trains on; by hand in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Defense, Loss
from advss_defenses.fgsm_rs import FGSMRS
from advss_defenses.none import NoDefense
from advss_defenses.pgd import PGD
from advss_defenses.smoothing import Smoothing
from advss_defenses.trades import Trades

Pair = Callable[[float], TaskObjective]
LABEL = torch.arange(6) % 3
CASES: list[tuple[Defense, int]] = [  # and at how many clean inputs it evaluates first
    (NoDefense(), 0),
    (PGD(), 1),
    (FGSMRS(), 1),
    (Trades(beta=1.0), 1),
    (Trades(beta=1.0, attack="ce"), 1),
    (Trades(beta=0.0), 0),
    (Smoothing(), 0),
    (Smoothing(copies=3), 0),
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def head_of(objective: TaskObjective, member: str) -> nn.Linear:
    head = objective.root.members[member].head
    assert isinstance(head, nn.Linear)
    return head


def g_by_hand(objective: TaskObjective, asked: dict[str, Tensor]) -> float:
    """log det of [[1 + r, c], [c, 1 + r]], c the cosine of the members' gradients and r the ridge; mean over images.

    Each member's gradient is taken at its own inputs, (B, D) by member.
    """
    gradients = []
    for member, x in asked.items():
        weight, bias = (t.detach().double() for t in head_of(objective, member).parameters())
        gradients.append(((x @ weight.T + bias).softmax(1) - torch.eye(3).double()[LABEL]) @ weight)
    total = 0.0
    for one, other in zip(*gradients, strict=True):
        cosine = float(one @ other / (one.norm() * other.norm()))
        total += math.log((1 + 1e-5) ** 2 - cosine**2)
    return total / len(LABEL)


def loss_and_inputs(
    defense: Defense, objective: TaskObjective, inputs: tuple[Tensor, ...]
) -> tuple[Loss, list[dict[str, Tensor]]]:
    """The defense's loss, and the inputs by member at each evaluation of the objective."""
    asked: dict[str, list[Tensor]] = {"one": [], "other": []}
    for member, seen in asked.items():
        head_of(objective, member).register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0].detach().double())
        )
    loss = defense.loss(objective, inputs, generator())
    return loss, [dict(zip(asked, each, strict=True)) for each in zip(*asked.values(), strict=True)]


@pytest.mark.parametrize(("defense", "clean"), CASES)
def test_the_diversity_term_is_counted_once_where_the_defense_trains(pair: Pair, defense: Defense, clean: int) -> None:
    objective = pair(0.1)
    inputs = defense.attack(objective, generator())
    plain = defense.loss(pair(0.0), inputs, generator())
    loss, asked = loss_and_inputs(defense, objective, inputs)
    assert torch.equal(asked[clean]["other"], inputs[1].flatten(1).double())
    expected = [0.1 * g_by_hand(objective, each) for each in asked[clean:]]
    penalty = float(torch.as_tensor(loss.penalty).detach())
    assert penalty == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert torch.equal(loss.value, plain.value)
    assert float(loss.total.detach()) == pytest.approx(float(plain.total.detach()) + penalty, rel=1e-6)


@pytest.mark.parametrize(("defense", "clean"), CASES)
def test_it_costs_nothing_at_clean_inputs_that_stand_beside(
    pair: Pair, defense: Defense, clean: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second-order pass is where an ensemble's time goes."""
    objective, taken = pair(0.1), list[Tensor | float]()
    inputs = defense.attack(objective, generator())

    def recorded(self: TaskObjective, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        loss = plainly(self, inputs, penalty=penalty)
        taken.append(loss.penalty)
        return loss

    plainly = TaskObjective.__call__
    monkeypatch.setattr(TaskObjective, "__call__", recorded)
    defense.loss(objective, inputs, generator())
    assert taken[:clean] == [0.0] * clean
    assert all(float(torch.as_tensor(g).detach()) < 0 for g in taken[clean:])
