"""FAB fells what the released code fells, by the shortest way to a plane within the range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from advss.attacks import Norm, Threat
from advss.attacks.fab import FAB, to_boundary

Trained = tuple[nn.Module, Tensor, Tensor]


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8), ("l1", 1.5)])
def test_the_images_that_fall_are_the_released_codes(sturdy: Trained, norm: Norm, eps: float, targeted: bool) -> None:
    model, x, label = sturdy
    attack = FAB(targeted=targeted, targets=(1, 2), steps=20)
    ours = attack(model, x, label, Threat(norm=norm, eps=eps), torch.Generator())
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    other = FABAttack_PT(model, norm=name, n_iter=20, eps=eps, seed=0, targeted=targeted, n_target_classes=2)
    theirs = other.perturb(x, label)
    with torch.no_grad():
        fell, theirs_fell = model(ours).argmax(1) != label, model(theirs).argmax(1) != label
    assert torch.equal(fell, theirs_fell)
    assert 20 < fell.sum() < 80


def test_starts_after_the_first_are_random_and_fell_more(sturdy: Trained) -> None:
    model, x, label = sturdy

    def fell(restarts: int) -> Tensor:
        attack = FAB(targeted=False, steps=10, restarts=restarts)
        made = attack(model, x, label, Threat(norm="l1", eps=1.5), torch.Generator().manual_seed(0))
        with torch.no_grad():
            answer: Tensor = model(made).argmax(1) != label
        return answer

    once, thrice = fell(1), fell(3)
    assert not (once & ~thrice).any()
    assert once.sum() < thrice.sum()


def test_a_run_from_a_random_point_is_the_second_of_two(sturdy: Trained) -> None:
    (model, x, label), threat = sturdy, Threat(norm="l1", eps=1.5)
    options: dict[str, Any] = {"targeted": False, "steps": 10}
    twice = FAB(restarts=2, **options)(model, x, label, threat, torch.Generator().manual_seed(0))
    first = FAB(**options)(model, x, label, threat, torch.Generator().manual_seed(1))
    stands = (first == x).flatten(1).all(1)
    draws = torch.Generator().manual_seed(0)
    second = FAB(random_start=True, **options)(model, x, label, threat, draws, standing_B=stands)
    assert (second != x).any()
    assert torch.equal(twice, torch.where(stands[:, None, None, None], second, first))


def shortest(x: np.ndarray, level: float, slope: np.ndarray, norm: Norm) -> float:
    """By a general solver: the length of the shortest way, of which ℓ∞ and ℓ1 are linear programs."""
    size = len(x)
    room = list(zip(-x, 1 - x, strict=True))
    if norm == "l2":
        plane = {"type": "eq", "fun": lambda delta: level + slope @ delta}
        return float(np.linalg.norm(minimize(lambda d: d @ d, np.zeros(size), bounds=room, constraints=plane).x))
    bounds = 1 if norm == "linf" else size  # of the values' sizes, all or each
    over = np.ones((size, 1)) if norm == "linf" else np.eye(size)
    limits = np.block([[np.eye(size), -over], [-np.eye(size), -over]])
    cost, plane_row = np.r_[np.zeros(size), np.ones(bounds)], np.r_[slope, np.zeros(bounds)][None]
    solved = linprog(cost, limits, np.zeros(2 * size), plane_row, [-level], [*room, *[(0, None)] * bounds])
    return float(solved.fun)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_way_to_the_boundary_is_the_shortest(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    x, slope = torch.rand(20, 8, generator=generator), torch.randn(20, 8, generator=generator)
    slope[:, 0] = 0
    level = 2 * torch.rand(20, generator=generator) - 1
    delta = to_boundary(x, level, slope, norm)
    length = torch.linalg.vector_norm(delta, ord={"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)
    rows = zip(x.double().numpy(), level.tolist(), slope.double().numpy(), strict=True)
    expected = [shortest(*row, norm) for row in rows]
    torch.testing.assert_close(length, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close((slope * delta).sum(1), -level, atol=1e-5, rtol=0)
    assert 0 <= (x + delta).min() <= (x + delta).max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_where_the_range_holds_no_boundary_every_value_goes_to_its_end(norm: Norm) -> None:
    x, slope = torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[1.0, -0.5, 0.0]])
    for level, end in ((5.0, [0.0, 1.0, 0.75]), (-5.0, [1.0, 0.0, 0.75])):
        delta = to_boundary(x, torch.tensor([level]), slope, norm)
        torch.testing.assert_close(x + delta, torch.tensor([end]))


@pytest.mark.parametrize("option", [{"steps": 0}, {"restarts": 0}, {"targets": (0,)}])
def test_an_option_that_makes_no_attack_is_named(option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        FAB(**option)  # type: ignore[arg-type]
