"""Fast adversarial training: its one step by hand in float64, its start, and what it refuses."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, Encoder
from advss_defenses.fgsm_rs import FGSMRS
from advss_pretext.rotation import Rotation

LABEL = torch.arange(6) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(objective: TaskObjective) -> tuple[Tensor, Tensor]:
    state = objective.root.members["regression"].state_dict()
    return state["head.weight"].double(), state["head.bias"].double()


def gradient(objective: TaskObjective, x: Tensor) -> Tensor:
    """Of the cross-entropy of softmax regression: Wᵀ(p - onehot), up to a positive factor."""
    weight, bias = weights(objective)
    probabilities = (x.flatten(1) @ weight.T + bias).softmax(1)
    return ((probabilities - torch.eye(3).double()[LABEL]) @ weight).view_as(x)


def cross_entropy(objective: TaskObjective, x: Tensor) -> float:
    weight, bias = weights(objective)
    logits = x.double().flatten(1) @ weight.T + bias
    return float((logits.logsumexp(1) - logits[torch.arange(6), LABEL]).mean())


@pytest.mark.parametrize("eps", [8 / 255, 0.6])
@pytest.mark.parametrize("step", [1.25, 0.5, 2.0])
def test_it_steps_by_the_signed_gradient_at_a_uniform_start(wide: TaskObjective, eps: float, step: float) -> None:
    """At 0.6 the images end at 0 and 1."""
    (clean,) = wide.inputs
    (found,) = FGSMRS(eps=eps, step=step).attack(wide, generator())
    noise = torch.empty_like(clean).uniform_(-eps, eps, generator=generator())
    start = (clean + noise).clamp(0, 1)
    moved = start + step * eps * gradient(wide, start).sign()
    expected = torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert ((found == 0) | (found == 1)).any() == (eps == 0.6)


def test_its_step_is_five_quarters_of_eps_by_default(wide: TaskObjective) -> None:
    by_default, said = (d.attack(wide, generator())[0] for d in (FGSMRS(eps=0.1), FGSMRS(eps=0.1, step=1.25)))
    assert torch.equal(by_default, said)
    other = FGSMRS(eps=0.1, step=1.0).attack(wide, generator())[0]
    assert not torch.equal(by_default, other)


@pytest.mark.parametrize(
    ("stage", "weight", "clean_share"),
    [("pretrain", "auto", 0.5), ("finetune", "auto", 0.0), ("finetune", 0.3, 0.3)],
)
def test_the_loss_is_the_weighted_mean_of_clean_and_adversarial_loss(
    wide: TaskObjective, stage: Stage, weight: float | Literal["auto"], clean_share: float
) -> None:
    wide.stage = stage
    defense = FGSMRS(eps=0.1, clean_weight=weight)
    inputs = defense.attack(wide, generator())
    clean, adversarial = cross_entropy(wide, wide.inputs[0]), cross_entropy(wide, inputs[0])
    assert adversarial > clean + 0.01
    expected = clean_share * clean + (1 - clean_share) * adversarial
    assert float(defense.loss(wide, inputs, generator()).total.detach()) == pytest.approx(expected, rel=1e-12)


def test_with_eps_0_the_images_come_back(wide: TaskObjective) -> None:
    assert torch.equal(FGSMRS(eps=0.0).attack(wide, generator())[0], wide.inputs[0])


def test_attack_mode_is_how_the_network_stands_while_attacked(encoder: Encoder, batch: Batch) -> None:
    task = Rotation()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task.build(encoder)
    objective = TaskObjective(
        encoder, {"rotation": task}, (task.views(batch, generator()),), stage="pretrain", key=(0,)
    )
    by_train, by_eval = (FGSMRS(attack_mode=mode).attack(objective, generator())[0] for mode in ("train", "eval"))
    objective.root.eval()
    standing = FGSMRS(attack_mode="train").attack(objective, generator())[0]
    assert torch.equal(by_eval, standing)
    assert not torch.equal(by_eval, by_train)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_a_step_out_of_range_is_an_error(step: float) -> None:
    with pytest.raises(ValueError, match=r"step must be above 0 and finite, got .*; it is in multiples of eps"):
        FGSMRS(step=step)


@pytest.mark.parametrize("eps", [-0.1, math.nan])
def test_an_eps_out_of_range_is_an_error(eps: float) -> None:
    with pytest.raises(ValueError, match="eps must be at least 0 and finite"):
        FGSMRS(eps=eps)


def test_an_eps_of_several_pixels_says_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"eps must be at most 1 for linf, got 8.0: .* so say 8/255"):
        FGSMRS(eps=8.0)


def test_a_clean_weight_of_1_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"clean_weight must be in \[0, 1\) or auto"):
        FGSMRS(clean_weight=1.0)
