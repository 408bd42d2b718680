"""The diversity term of the paper's eq. (4): how far the members' input gradients point apart.

Letters: B batch, D pixels of one image (C·H·W), M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from advss.attacks.balls import unit

RIDGE = 1e-5  # added to GᵀG, as released, so that parallel gradients give a finite value


@dataclass(frozen=True)
class Diversity:
    """How the term takes part in training.

    Attributes:
        weight: α of eq. (3); 0 leaves the term out.
        place: in the attack, in the training loss, or in both (released).
        sign: of the term in the training loss: eq. (3) minimises +α·g, which pulls the gradients together.
        every: it counts at every so many optimiser steps.
        pixels: gradients are compared in each task's own pixels (released), or in the image's.
    """

    weight: float = 0.0
    place: Literal["both", "attack", "loss"] = "both"
    sign: Literal["plus", "minus"] = "plus"
    every: int = 1
    pixels: Literal["task", "image"] = "task"

    def in_attack(self, step: int) -> float:
        """The weight of g in what an attack maximises at an optimiser step."""
        return self.weight if self.place != "loss" and step % self.every == 0 else 0.0

    def in_loss(self, step: int) -> float:
        """The weight of g in what is minimised over parameters at an optimiser step."""
        if self.place == "attack" or step % self.every:
            return 0.0
        return self.weight if self.sign == "plus" else -self.weight


def gram(gradients: Sequence[Tensor]) -> Tensor:
    """GᵀG of each image, (B, M, M) float64, G's columns the unit gradients of the M members.

    Args:
        gradients: M tensors (B, ...), one a member.
    """
    units_BDM = torch.stack([unit(g.flatten(1).float()) for g in gradients], dim=2).double()
    return units_BDM.mT @ units_BDM


def log_det(gram_BMM: Tensor) -> Tensor:
    """Batch mean of log det(GᵀG + 1e-5·I), eq. (4).

    Args:
        gram_BMM: GᵀG in float64: in float32 the determinant is off by 1e-3 where gradients are parallel.

    Returns:
        A float32 scalar: M·log(1 + 1e-5) for orthogonal gradients, towards -inf as they align.
    """
    ridge = RIDGE * torch.eye(gram_BMM.shape[-1], dtype=gram_BMM.dtype, device=gram_BMM.device)
    g: Tensor = torch.linalg.slogdet(gram_BMM + ridge).logabsdet.mean()
    return g.float()


def described(keys: Sequence[str], gram_BMM: Tensor) -> dict[str, Tensor]:
    """g, and for each pair of members the batch mean of their gradients' cosine and of its absolute value."""
    cosine_BMM = gram_BMM.detach()
    metrics = {"diversity": log_det(cosine_BMM)}
    for (i, one), (j, other) in combinations(enumerate(keys), 2):
        metrics[f"cosine:{one}/{other}"] = cosine_BMM[:, i, j].mean().float()
        metrics[f"abs_cosine:{one}/{other}"] = cosine_BMM[:, i, j].abs().mean().float()
    return metrics
