"""PGD over the inputs of several members at once: each in its own ball, and a minimax problem with a known solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Encoder, Loss, PretextTask, Task, Views
from advss.plugins.registry import build
from advss.randomness import global_stream

Make = Callable[..., TaskObjective]


def pgd(**options: Any) -> Defense:
    defense = build("defense", Choice("pgd", options))
    assert isinstance(defense, Defense)
    return defense


def built(name: str, encoder: Encoder) -> PretextTask:
    options = {"selfie": {"layers": 1, "heads": 2}, "jigsaw": {"permutations": 5}}.get(name, {})
    task = build("pretext", Choice(name, options))
    assert isinstance(task, PretextTask)
    with global_stream("cpu", name):
        task.build(encoder)
    return task


def joint(encoder: Encoder, batch: Batch, names: tuple[str, ...], diversity: float = 0.0) -> TaskObjective:
    tasks = {name: built(name, encoder) for name in names}
    with torch.no_grad():
        views = tuple(task.views(batch, torch.Generator().manual_seed(0)) for task in tasks.values())
    return TaskObjective(encoder, tasks, views, stage="pretrain", key=(0,), diversity=diversity)


NAMES = ("jigsaw", "rotation", "selfie")


@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_each_input_stays_in_its_own_ball_and_in_the_pixels_range(
    diversity: float, encoder: Encoder, batch: Batch
) -> None:
    objective = joint(encoder, batch, NAMES, diversity)
    found = pgd(eps=0.05, step_size=0.03, steps=2).attack(objective, torch.Generator().manual_seed(0))
    for x, clean in zip(found, objective.inputs, strict=True):
        assert 0 < float((x - clean).abs().max()) <= 0.05 + 1e-6
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1


@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_no_parameter_receives_a_gradient(diversity: float, encoder: Encoder, batch: Batch) -> None:
    objective = joint(encoder, batch, NAMES, diversity)
    pgd(steps=2).attack(objective, torch.Generator().manual_seed(0))
    assert all(p.grad is None for p in objective.root.parameters())


def test_without_the_term_it_equals_an_attack_on_each_member_alone(encoder: Encoder, batch: Batch) -> None:
    together = pgd(steps=3).attack(joint(encoder, batch, NAMES), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for name, x in zip(NAMES, together, strict=True):
        (alone,) = pgd(steps=3).attack(joint(encoder, batch, (name,)), generator)
        assert torch.equal(x, alone), name


def test_with_the_term_the_attack_reaches_a_greater_one(encoder: Encoder, batch: Batch) -> None:
    """g is below 0 and 0 for orthogonal gradients: maximising it turns the members' gradients apart."""
    encoder.eval()
    reached = []
    for diversity in (0.0, 100.0):
        objective = joint(encoder, batch, ("jigsaw", "rotation"), diversity)
        objective.root.eval()
        inputs = pgd(eps=0.1, step_size=0.02, steps=8).attack(objective, torch.Generator().manual_seed(0))
        reached.append(float(objective.measure(inputs)["diversity"]))
    assert reached[1] > reached[0]


class Quadratic(Task):
    """½·a·(θ - x)² a pixel, θ the trunk's one number."""

    def __init__(self, a: float, clean: float) -> None:
        super().__init__()
        self.a, self.clean = a, clean

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((torch.full_like(batch.x, self.clean),))

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(0.5 * self.a * (encoder.theta - inputs[0]).square().mean())


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.5))


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (3.0, 2.0), (2.0, 3.0)])
def test_quadratic_losses_are_solved_to_their_minimax(a: float, b: float, batch: Batch) -> None:
    """max over |δ| ≤ ε of ½a(θ - c - δ)² is ½a(|θ - c| + ε)²; between c₁ < c₂ the sum of two is least at

    θ = [a(c₁ - ε) + b(c₂ + ε)] / (a + b).

    It lies farther than ε from both, so that every start climbs to the right corner.
    """
    eps, low, high = 0.1, 0.3, 0.7
    trunk, tasks = Number(), {"one": Quadratic(a, low), "other": Quadratic(b, high)}
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    defense = pgd(eps=eps, step_size=0.05, steps=6, clean_weight=0.0)
    for step in range(200):
        generator = torch.Generator().manual_seed(step)
        views = tuple(task.views(batch, generator) for task in tasks.values())
        objective = TaskObjective(trunk, tasks, views, stage="pretrain", key=(step,))
        optimizer.zero_grad()
        loss = defense.loss(objective, defense.attack(objective, generator), generator)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    theta = (a * (low - eps) + b * (high + eps)) / (a + b)
    value = 0.5 * a * (theta - low + eps) ** 2 + 0.5 * b * (high - theta + eps) ** 2
    assert float(trunk.theta.detach()) == pytest.approx(theta, abs=1e-4)
    assert float(loss.total.detach()) == pytest.approx(value, abs=1e-5)
    assert min(theta - low, high - theta) > eps


@pytest.mark.parametrize("names", [("jigsaw", "rotation"), NAMES])
def test_the_term_under_bf16_is_close_to_float32s(names: tuple[str, ...], encoder: Encoder, batch: Batch) -> None:
    """Through autocast, attention and batch normalisation, twice differentiated."""
    found = []
    for bf16 in (False, True):
        objective = joint(encoder, batch, names, diversity=1.0)
        objective.bf16 = bf16
        inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
        penalty = torch.as_tensor(objective(inputs).penalty)
        gradients = torch.autograd.grad(penalty, [*inputs, *objective.parameters().values()], allow_unused=True)
        assert penalty.dtype == torch.float32
        assert all(g.isfinite().all() for g in gradients if g is not None)
        found.append(float(penalty.detach()))
    assert found[1] == pytest.approx(found[0], abs=0.05)
    assert found[0] != found[1]
