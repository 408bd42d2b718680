"""Attacks of Kang et al. on the pixels themselves: PGD in ℓ∞ and ℓ2, and Frank-Wolfe in ℓ1.

Radii are in pixels of 0...255, as published; that of ℓ1 is a mean over an image's values. Letters: B images, D values
of one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from advss.attacks.balls import L2, Linf
from advss.unforeseen.attack import Attack


class PGD(Attack):
    """Projected gradient steps; the variables are the images, first brought into the ball, then into [0, 1].

    The start is brought into [0, 1], too, which the released code leaves to the first step.
    """

    ball: type[Linf | L2]

    def __init__(self, x_BCHW: Tensor, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.around = self.ball(self.x, self.eps / 255, self.step_size / 255)

    def start(self) -> Tensor:
        """Uniform in the ball."""
        return self.around.start(self.generator)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Themselves."""
        return z

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Along the sign in ℓ∞, along the unit gradient in ℓ2."""
        return self.around.ascend(z, gradient)


class PGDLinf(PGD):
    """max |δ| ≤ eps."""

    ball = Linf


class PGDL2(PGD):
    """‖δ‖₂ ≤ eps."""

    ball = L2


class FrankWolfeL1(Attack):
    """‖δ‖₁ ≤ eps · D: the mean of the vertices of ball and box that the gradients have pointed to so far."""

    def start(self) -> Tensor:
        """Uniform in the ball; the first step forgets it, so that it may leave [0, 1] as in the released code."""
        values = math.prod(self.x.shape[1:])
        return l1_start(self, values, self.eps / 255 * values).view_as(self.x)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """The variables are δ."""
        return self.x + z

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """To the mean of this vertex and those before."""
        room = torch.where(gradient > 0, 1 - self.x, self.x)
        corner = vertex(gradient.flatten(1), room.flatten(1), self.eps / 255 * math.prod(z.shape[1:]))
        return z + (corner.view_as(z) - z) / (step + 1)


def l1_start(attack: Attack, values: int, radius: float) -> Tensor:
    """Uniform in the ℓ1 ball (B, values): exponential deviates over their sum and one more's, signs at random."""
    size_BD = -attack.uniform(len(attack.x), values + 1).clamp_min(1e-38).log()
    sign_BD = attack.uniform(len(attack.x), values, low=-1).sign()
    return radius * sign_BD * size_BD[:, 1:] / size_BD.sum(1, keepdim=True)


def vertex(gradient_BD: Tensor, room_BD: Tensor, radius: float) -> Tensor:
    """Where the gradient grows most within the ℓ1 ball and a box (B, D).

    The values of largest gradient go as far as their ``room_BD`` until ``radius`` is used up, the last one in part.
    """
    order_BD = gradient_BD.abs().argsort(1, descending=True)
    room_BD = room_BD.gather(1, order_BD).double()  # sums of thousands of float32 would lose the last one's digits
    moved_BD = (radius - (room_BD.cumsum(1) - room_BD)).clamp_min(0).minimum(room_BD)
    return torch.zeros_like(gradient_BD).scatter(1, order_BD, moved_BD.to(gradient_BD.dtype)) * gradient_BD.sign()
