"""MART (Wang, Zou, Yi, Bailey, Ma and Gu 2020): adversarial training that heeds what is misclassified unattacked.

    BCE(p(x'), y) + β · KL(p(x) ‖ p(x')) · (1 − p_y(x)),   BCE = −log p_y(x') − log(1 − max over k ≠ y of p_k(x'))

x' maximises the loss itself. The objective's own loss at x' is −log p_y, of a classifier; the margin and the weighted
divergence are added to it, for every logits that have labels, so that pretext tasks are defended as classifiers are.

Letters: N rows of logits, K classes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from advss.attacks import Norm, Threat, maximise
from advss.errors import UsageError
from advss.hookspecs import Defense, Loss, Objective, hookimpl

advss_api = (1, 0)


class MART(Defense):
    """Misclassification-aware adversarial training, for tasks that give logits and labels.

    Args:
        norm: shape of the ball around each image.
        eps: its radius, pixels in [0, 1]; null is the norm's usual one, 8/255, 0.5 or 12.
        step_size: length of one ascent step, pixels in [0, 1]; null is the norm's usual one, 2/255, 0.1 or
            2.4.
        steps: number of ascent steps.
        beta: weight of the divergence; released: 5, the paper's ResNet-18: 5, its WideResNet: 6.
        attack_mode: how the network stands while it is attacked: in eval mode (released), or as it trains.
    """

    name = "mart"

    def __init__(
        self,
        *,
        norm: Norm = "linf",
        eps: float | None = None,
        step_size: float | None = None,
        steps: int = 10,
        beta: float = 5.0,
        attack_mode: Literal["train", "eval"] = "eval",
    ) -> None:
        self.threat = Threat(norm=norm, eps=eps, step_size=step_size, steps=steps)
        if not 0 <= beta < math.inf:  # nan too
            raise ValueError(f"beta must be at least 0 and finite, got {beta}")
        self.beta = beta
        self.attack_mode: Literal["train", "eval"] = attack_mode

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Inputs that maximise the objective, from a Gaussian start of 0.001, as released."""
        with objective.attacking(self.attack_mode):
            start, ascended = objective.inputs, lambda inputs: objective(inputs).total
            return maximise(ascended, start, generator, self.threat, start="gaussian")

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """The objective's loss at the attacked inputs, its margin and β times its weighted divergence.

        Raises:
            UsageError: a task gives no labels.
        """
        attacked, clean = objective(inputs), objective(objective.inputs, penalty=False)
        if not attacked.labels:
            raise UsageError(
                "defense mart needs labels, and the task, or one of several, gives none; use pgd or trades"
            )
        parts = zip(attacked.logits, clean.logits, attacked.labels, strict=True)
        margins, divergences = zip(*(_terms(*part) for part in parts), strict=True)
        margin, kl = _weighted(margins, attacked.weights), _weighted(divergences, attacked.weights)
        metrics = attacked.metrics | {"margin": margin.detach(), "weighted_kl": kl.detach()}
        return replace(attacked, value=attacked.value + margin + self.beta * kl, metrics=metrics)


def _terms(attacked: Tensor, clean: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Margin and weighted divergence of logits (B, ..., K): means over B, sums over all else."""
    known = label >= 0
    attacked_NK, clean_NK, label_N = attacked[known], clean[known], label[known]
    log_q, log_p = attacked_NK.log_softmax(1), clean_NK.log_softmax(1)
    others = torch.ones_like(log_q).scatter_(1, label_N[:, None], 0).bool()
    # log(1 - max q) as the log of the other probabilities' sum, which does not cancel
    best = log_q.masked_fill(~others, -math.inf).argmax(1, keepdim=True)
    rest = torch.ones_like(others).scatter_(1, best, False)
    margin_N = -log_q.masked_fill(~rest, -math.inf).logsumexp(1)
    wrong_N = -torch.expm1(log_p.gather(1, label_N[:, None])).squeeze(1)
    kl_N = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1) * wrong_N
    return margin_N.sum() / len(label), kl_N.sum() / len(label)


def _weighted(terms: tuple[Tensor, ...], weights: tuple[float, ...]) -> Tensor:
    return torch.stack([w * term for w, term in zip(weights or (1.0,) * len(terms), terms, strict=True)]).sum()


@hookimpl
def advss_defenses() -> list[type[Defense]]:
    """Misclassification-aware adversarial training."""
    return [MART]
