"""PGD adversarial training (Madry et al. 2018), eq. (1) of the paper: min over θ of the loss at its own worst inputs.

The inner maximum is sought by projected gradient ascent from a random start. The training loss mixes the loss at the
unperturbed and at the attacked inputs: half and half in pretraining, the attacked alone in fine-tuning, as released.
"""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from advss.attacks import maximise
from advss.hookspecs import Defense, Loss, Objective
from advss_defenses.threat import check_ascent, check_clean_weight


class PGD(Defense):
    """PGD adversarial training.

    Args:
        norm: shape of the ball around each image.
        eps: its radius, pixels in [0, 1].
        step_size: length of one ascent step, pixels in [0, 1].
        steps: number of ascent steps.
        random_start: start uniformly in the ball rather than at the image.
        clean_weight: weight of the loss at the unperturbed inputs, the attacked having the rest; auto is 0.5 in
            pretraining and 0 in fine-tuning.
        attack_mode: how the network stands while it is attacked: as it trains (released) or in eval mode. Running
            statistics never move.
    """

    name = "pgd"

    def __init__(
        self,
        *,
        norm: Literal["linf", "l2"] = "linf",
        eps: float = 8 / 255,
        step_size: float = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        clean_weight: float | Literal["auto"] = "auto",
        attack_mode: Literal["train", "eval"] = "train",
    ) -> None:
        check_ascent(norm=norm, eps=eps, step_size=step_size, steps=steps)
        check_clean_weight(clean_weight)
        self.norm: Literal["linf", "l2"] = norm
        self.eps, self.step_size, self.steps, self.random_start = eps, step_size, steps, random_start
        self.clean_weight = clean_weight
        self.attack_mode: Literal["train", "eval"] = attack_mode

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Inputs that maximise the objective, the diversity term included (eq. 3)."""
        with objective.attacking(self.attack_mode):
            return maximise(
                lambda inputs: objective(inputs).total,
                objective.inputs,
                generator,
                norm=self.norm,
                eps=self.eps,
                step_size=self.step_size,
                steps=self.steps,
                start="uniform" if self.random_start else "none",
            )

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """Weighted clean and adversarial loss; the diversity term belongs to the attacked inputs only."""
        weight = self.clean_weight if self.clean_weight != "auto" else (0.5 if objective.stage == "pretrain" else 0.0)
        if weight == 0:
            return objective(inputs)
        clean = objective(objective.inputs, penalty=False)
        adversarial = objective(inputs)
        value = weight * clean.value + (1 - weight) * adversarial.value
        return Loss(value, adversarial.logits, adversarial.metrics, adversarial.penalty)
