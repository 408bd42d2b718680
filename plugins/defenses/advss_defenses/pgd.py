"""PGD adversarial training (Madry et al. 2018), eq. (1) of the paper: min over θ of the loss at its own worst inputs.

The inner maximum is sought by projected gradient ascent from a random start. The training loss mixes the loss at the
unperturbed and at the attacked inputs: half and half in pretraining, the attacked alone in fine-tuning, as released.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Generator, Tensor

from advss.attacks import Norm, Threat, maximise
from advss.hookspecs import Defense, Loss, Objective


class PGD(Defense):
    """PGD adversarial training.

    Args:
        norm: shape of the ball around each image.
        eps: its radius, pixels in [0, 1]; null is the norm's usual one, 8/255, 0.5 or 12.
        step_size: length of one ascent step, pixels in [0, 1]; null is the norm's usual one, 2/255, 0.1 or
            2.4.
        steps: number of ascent steps.
        top_share: of l1 alone, the share of the coordinates that one step moves, those of the largest gradient; null is
            0.01.
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
        norm: Norm = "linf",
        eps: float | None = None,
        step_size: float | None = None,
        steps: int = 10,
        top_share: float | None = None,
        random_start: bool = True,
        clean_weight: float | Literal["auto"] = "auto",
        attack_mode: Literal["train", "eval"] = "train",
    ) -> None:
        self.threat = Threat(norm=norm, eps=eps, step_size=step_size, steps=steps, top_share=top_share)
        if clean_weight != "auto" and not 0 <= clean_weight < 1:
            raise ValueError(f"clean_weight must be in [0, 1) or auto, got {clean_weight}")
        self.random_start, self.clean_weight = random_start, clean_weight
        self.attack_mode: Literal["train", "eval"] = attack_mode

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Inputs that maximise the objective, the diversity term included (eq. 3)."""
        with objective.attacking(self.attack_mode):
            return maximise(
                lambda inputs: objective(inputs).total,
                objective.inputs,
                generator,
                self.threat,
                start="uniform" if self.random_start else "none",
            )

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        """Weighted clean and adversarial loss; the diversity term belongs to the attacked inputs only."""
        weight = self.clean_weight if self.clean_weight != "auto" else (0.5 if objective.stage == "pretrain" else 0.0)
        if weight == 0:
            return objective(inputs)
        clean = objective(objective.inputs, penalty=False)
        adversarial = objective(inputs)
        return replace(adversarial, value=weight * clean.value + (1 - weight) * adversarial.value)
