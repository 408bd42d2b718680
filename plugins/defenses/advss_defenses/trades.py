"""TRADES (Zhang et al. 2019): clean loss plus β times the divergence between clean and attacked predictions.

    min over θ of  ℓ(x) + β · max over δ of KL(p(x) ‖ p(x + δ))

The paper's two released fine-tuning variants are ``beta: 1`` with ``attack: ce`` (PGD on the loss itself, uniform
start) and with ``attack: kl`` (start x + 0.001·N(0, 1)), 10 steps and the network attacked as it trains, both. TRADES's
own code attacks by KL in eval mode; its ℓ2 steps are an optimiser's, these are PGD's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from advss.attacks import Norm, Threat, maximise
from advss.attacks.gradient import Criterion
from advss.errors import UsageError
from advss.hookspecs import Defense, Loss, Objective


class Trades(Defense):
    """TRADES: the clean loss and the divergence of predictions under attack, for tasks that give logits.

    Args:
        norm: shape of the ball around each image.
        eps: its radius, pixels in [0, 1]; null is the norm's usual one, 8/255, 0.5 or 12.
        step_size: length of one ascent step, pixels in [0, 1]; null is the norm's usual one, 2/255, 0.1 or
            2.4.
        steps: number of ascent steps.
        top_share: of l1 alone, the share of the coordinates that one step moves, those of the largest gradient; null is
            0.01.
        beta: weight of the divergence; 0 is standard training.
        attack: what the attack ascends: the divergence, from a Gaussian start of 0.001, or the loss as PGD does, from
            a uniform one.
        attack_mode: how the network stands while it is attacked: as it trains (the paper's code) or in eval mode
            (TRADES's). Running statistics never move.
    """

    name = "trades"

    def __init__(
        self,
        *,
        norm: Norm = "linf",
        eps: float | None = None,
        step_size: float | None = None,
        steps: int = 10,
        top_share: float | None = None,
        beta: float = 6.0,
        attack: Literal["kl", "ce"] = "kl",
        attack_mode: Literal["train", "eval"] = "train",
    ) -> None:
        self.threat = Threat(norm=norm, eps=eps, step_size=step_size, steps=steps, top_share=top_share)
        if not 0 <= beta < math.inf:  # nan too
            raise ValueError(f"beta must be at least 0 and finite, got {beta}")
        self.beta = beta
        self.ascends: Literal["kl", "ce"] = attack
        self.attack_mode: Literal["train", "eval"] = attack_mode

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Inputs that maximise the divergence or the loss, the diversity term included.

        Raises:
            UsageError: the task gives no logits.
        """
        if self.beta == 0:
            return objective.inputs
        with objective.attacking(self.attack_mode):
            return maximise(
                self._ascended(objective),
                objective.inputs,
                generator,
                self.threat,
                start="uniform" if self.ascends == "ce" else "gaussian",
            )

    def _ascended(self, objective: Objective) -> Criterion:
        """What the attack maximises; the clean predictions that it diverges from are computed once."""
        if self.ascends == "ce":
            return lambda inputs: _with_logits(objective(inputs)).total
        with torch.no_grad():
            clean = _with_logits(objective(objective.inputs, penalty=False))

        def diverging(inputs: tuple[Tensor, ...]) -> Tensor:
            loss = objective(inputs)
            return divergence(clean, loss) + loss.penalty

        return diverging

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """Clean loss + β·KL(clean ‖ attacked), gradients through both; the diversity term is at the attacked inputs."""
        if self.beta == 0:
            return objective(inputs)
        clean = _with_logits(objective(objective.inputs, penalty=False))
        attacked = objective(inputs)
        kl = divergence(clean, attacked)
        value = clean.value + self.beta * kl
        return replace(attacked, value=value, metrics=attacked.metrics | {"kl": kl.detach()})


def divergence(clean: Loss, attacked: Loss) -> Tensor:
    """KL(p_clean ‖ p_attacked) of their logits (B, ..., K): mean over B, summed over all else, weighted and added."""
    # log_target: else the gradient is nan where a probability underflows
    parts = [
        F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="batchmean", log_target=True)
        for p, q in zip(clean.logits, attacked.logits, strict=True)
    ]
    weights = clean.weights or (1.0,) * len(parts)
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


def _with_logits(loss: Loss) -> Loss:
    if not loss.logits:
        raise UsageError("defense trades needs logits to compare, and the task, or one of several, gives none; use pgd")
    return loss
