"""Adversarial weight perturbation (Wu, Xia and Wang 2020): training at the worst weights nearby, around any defense.

    min over w of  max over v of  ℓ(w + v),  ‖v_l‖ ≤ γ·‖w_l‖ in every layer l

ℓ is the loss of another defense at the inputs it attacked: around ``pgd`` this is the paper's AT-AWP, around ``trades``
its TRADES-AWP. As released v is one step of ascent whose length is the bound, v_l = γ·‖w_l‖·∇_l / ‖∇_l‖, in the
weights of layers alone: biases and norms, which have one dimension, stay.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from advss.attacks.balls import unit
from advss.hookspecs import Defense, Loss, Objective, hookimpl

advss_api = (1, 0)


class AWP(Defense):
    """Adversarial weight perturbation around another defense.

    A step costs one more forward and backward pass of the other defense's loss.

    Args:
        base: the defense whose attack and loss are taken.
        gamma: length of a layer's perturbation in multiples of its weights' norm; released: 0.005 around trades, 0.01
            around pgd.
        warmup: share of the stage's training that passes before weights are perturbed; released: 10 of 200 epochs
            around trades, none around pgd.
    """

    name = "awp"

    def __init__(self, *, base: Defense | str = "pgd", gamma: float = 0.005, warmup: float = 0.0) -> None:
        assert isinstance(base, Defense)  # the contract: core builds what is named
        if not 0 < gamma < 1:  # nan too
            raise ValueError(f"gamma must be in (0, 1), got {gamma}; without it this is the defense '{base.name}'")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {warmup}: it is a share of the stage's training")
        self.base, self.gamma, self.warmup = base, gamma, warmup
        self.adversarial, self.noise, self.replays = base.adversarial, base.noise, base.replays

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """The other defense's, at the unperturbed weights."""
        return self.base.attack(objective, generator)

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """The other defense's at w + v; its gradient there is what w is moved by."""
        if objective.progress < self.warmup:
            return self.base.loss(objective, inputs, generator)
        with objective.at(self.perturbed(objective, inputs, generator.clone_state())):
            return self.base.loss(objective, inputs, generator)

    def carry(self, objective: Objective, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the other defense carries."""
        return self.base.carry(objective, inputs, grads)

    def perturbed(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> dict[str, Tensor]:
        """Weights plus v by name, where they have a gradient; v is a constant, BatchNorm's statistics do not move."""
        now = {name: weight for name, weight in objective.parameters().items() if weight.ndim > 1}
        weights = {name: weight.detach().requires_grad_() for name, weight in now.items()}
        with objective.at(weights), objective.holding_statistics():
            loss = self.base.loss(objective, inputs, generator)
            gradients = torch.autograd.grad(loss.total, list(weights.values()), allow_unused=True)
        return {
            name: weight + self.gamma * weight.detach().norm() * unit(gradient[None])[0]
            for (name, weight), gradient in zip(now.items(), gradients, strict=True)
            if gradient is not None
        }


@hookimpl
def advss_defenses() -> list[type[Defense]]:
    """Adversarial weight perturbation."""
    return [AWP]
