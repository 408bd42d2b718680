"""Randomized smoothing's training (Cohen, Rosenfeld and Kolter 2019): the loss at inputs with Gaussian noise on them.

What trains on noise of standard deviation σ can be certified by a majority over noisy copies. In the paper's Table 8 it
stands in place of PGD in pretraining: ``--defense smoothing --finetune-defense pgd``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from advss.attacks.threat import LARGEST, in_pixels
from advss.hookspecs import Defense, Loss, Objective


class Smoothing(Defense):
    """Training on Gaussian noise, for certificates by randomized smoothing.

    Noisy inputs leave [0, 1]: the certificate is of unclamped noise. Its attack is one draw, so the pretext accuracy
    "under attack" that chooses pretraining's epoch is the accuracy under noise.

    Args:
        sigma: standard deviation of the noise, pixels in [0, 1].
        copies: noisy copies of each input in a step; the loss is their mean.
    """

    name = "smoothing"

    def __init__(self, *, sigma: float = 0.25, copies: int = 1) -> None:
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.noise, self.copies = in_pixels("sigma", sigma, most=LARGEST["noise"]), copies

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Each input plus a draw of its own."""
        return tuple(
            torch.empty_like(x).normal_(0, self.noise, generator=generator).add_(x.detach()) for x in objective.inputs
        )

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """Mean over ``copies`` draws, the diversity term and the metrics too; logits are those at ``inputs``."""
        losses = [objective(inputs)]
        losses += [objective(self.attack(objective, generator)) for _ in range(self.copies - 1)]
        return replace(
            losses[0],
            value=_mean([loss.value for loss in losses]),
            metrics={name: _mean([loss.metrics[name] for loss in losses]) for name in losses[0].metrics},
            penalty=_mean([torch.as_tensor(loss.penalty) for loss in losses]),
        )


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)
