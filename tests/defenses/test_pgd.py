"""PGD training: what it minimises, by hand in float64; where its attack goes; what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, Encoder
from advss_defenses.pgd import PGD
from advss_pretext.rotation import Rotation

Pair = Callable[[float], TaskObjective]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(objective: TaskObjective) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and labels of the regression, in float64."""
    state = {name: t.double() for name, t in objective.root.members["regression"].state_dict().items()}
    return state["head.weight"], state["head.bias"], torch.arange(6) % 3


def by_hand(objective: TaskObjective, x: Tensor) -> float:
    """Mean cross-entropy of softmax regression, in float64."""
    weight, bias, label = parts(objective)
    total = 0.0
    for image, own in zip(x.detach().double().flatten(1), label.tolist(), strict=True):
        logits = weight @ image + bias
        total += math.log(sum(math.exp(z) for z in logits.tolist())) - float(logits[own])
    return total / len(x)


@pytest.mark.parametrize(
    ("stage", "weight", "clean_share"),
    [("pretrain", "auto", 0.5), ("finetune", "auto", 0.0), ("pretrain", 0.0, 0.0), ("finetune", 0.3, 0.3)],
)
def test_the_loss_is_the_weighted_mean_of_clean_and_adversarial_loss(
    regression: TaskObjective, stage: Stage, weight: float | Literal["auto"], clean_share: float
) -> None:
    regression.stage = stage
    defense = PGD(eps=0.1, step_size=0.03, clean_weight=weight)
    inputs = defense.attack(regression, generator())
    clean, adversarial = by_hand(regression, regression.inputs[0]), by_hand(regression, inputs[0])
    assert adversarial > clean + 0.01
    expected = clean_share * clean + (1 - clean_share) * adversarial
    assert float(defense.loss(regression, inputs, generator()).total.detach()) == pytest.approx(expected, rel=1e-6)


def test_one_step_from_the_image_is_the_signed_gradient_by_hand(regression: TaskObjective) -> None:
    """The cross-entropy's gradient is Wᵀ(p - onehot), so FGSM can be written down."""
    weight, bias, label = parts(regression)
    clean = regression.inputs[0].double()
    probabilities = (clean.flatten(1) @ weight.T + bias).softmax(1)
    gradient = (probabilities - torch.nn.functional.one_hot(label, 3)) @ weight
    (found,) = PGD(eps=0.1, step_size=0.1, steps=1, random_start=False).attack(regression, generator())
    torch.testing.assert_close(found.double(), clean + 0.1 * gradient.sign().view_as(clean), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_with_eps_0_the_loss_is_the_clean_one(regression: TaskObjective, norm: Literal["linf", "l2"]) -> None:
    defense = PGD(norm=norm, eps=0.0)
    inputs = defense.attack(regression, generator())
    loss = defense.loss(regression, inputs, generator())
    assert float(loss.total.detach()) == pytest.approx(by_hand(regression, regression.inputs[0]), rel=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_attack_stays_in_the_ball_and_is_detached(
    regression: TaskObjective, norm: Literal["linf", "l2"], mode: Literal["train", "eval"]
) -> None:
    (found,) = PGD(norm=norm, eps=0.2, step_size=0.1, attack_mode=mode).attack(regression, generator())
    delta = (found - regression.inputs[0]).flatten(1).double()
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert not found.requires_grad
    assert length.max() <= 0.2 + 1e-6
    assert length.min() > 0.15


def test_the_attack_is_a_function_of_its_generator(regression: TaskObjective) -> None:
    defense = PGD(steps=1, step_size=1 / 255)
    found = [defense.attack(regression, generator(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_its_loss_keeps_the_diversity_term_of_the_attacked_inputs_alone(pair: Pair) -> None:
    both = pair(0.5)
    defense = PGD(eps=0.1, step_size=0.05)
    inputs = defense.attack(both, generator())
    penalty = torch.as_tensor(defense.loss(both, inputs, generator()).penalty)
    torch.testing.assert_close(penalty, torch.as_tensor(both(inputs).penalty))
    assert penalty != torch.as_tensor(both(both.inputs).penalty)


def test_its_attack_ascends_the_diversity_term_too(pair: Pair) -> None:
    both, defense = pair(5.0), PGD(eps=0.2, step_size=0.05)
    aware = defense.attack(both, generator())
    unaware = defense.attack(pair(0.0), generator())
    assert both(aware).total > both(unaware).total + 0.01
    assert both(aware).value < both(unaware).value


def rotated(encoder: Encoder, batch: Batch) -> TaskObjective:
    task = Rotation()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task.build(encoder)
    return TaskObjective(encoder, {"rotation": task}, (task.views(batch, generator()),), stage="pretrain", key=(0,))


def test_attack_mode_is_how_the_network_stands_while_attacked(encoder: Encoder, batch: Batch) -> None:
    objective = rotated(encoder, batch)
    (by_train,), (by_eval,) = (
        PGD(steps=2, attack_mode=mode).attack(objective, generator()) for mode in ("train", "eval")
    )
    objective.root.eval()
    (standing,) = PGD(steps=2, attack_mode="train").attack(objective, generator())
    assert torch.equal(by_eval, standing)
    assert not torch.equal(by_eval, by_train)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_attack_leaves_the_network_as_found(encoder: Encoder, batch: Batch, mode: Literal["train", "eval"]) -> None:
    objective = rotated(encoder, batch)
    state = {name: t.clone() for name, t in objective.root.state_dict().items()}
    PGD(steps=2, attack_mode=mode).attack(objective, generator())
    assert all(m.training for m in objective.root.modules())
    assert all(p.requires_grad and p.grad is None for p in objective.root.parameters())
    assert all(torch.equal(t, state[name]) for name, t in objective.root.state_dict().items())


@pytest.mark.parametrize("option", ["eps", "step_size", "steps"])
def test_what_makes_no_attack_is_an_error(option: str) -> None:
    said: dict[str, Any] = {option: -1}
    with pytest.raises(ValueError, match=f"{option} must be"):
        PGD(**said)


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_clean_weight_out_of_range_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match=r"clean_weight must be in \[0, 1\) or auto"):
        PGD(clean_weight=weight)
