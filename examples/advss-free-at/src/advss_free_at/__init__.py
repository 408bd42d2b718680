"""Free adversarial training (Shafahi et al. 2019): one backward pass updates the weights and the perturbation alike.

Each batch is trained on m times in a row. In every one of these steps the gradient of the training loss by the inputs,
which comes with the gradient by the weights, moves the perturbation for the next (the paper's Algorithm 1):

    δ ← clip(δ + ε · sign(∇ℓ(x + δ)), −ε, ε)

δ is carried over from batch to batch, one for each place in it, and begins at 0.
"""

from __future__ import annotations

from torch import Generator, Tensor

from advss.attacks import Threat, maximise
from advss.hookspecs import Defense, Objective, hookimpl

advss_api = (1, 0)


class FreeAT(Defense):
    """Free adversarial training.

    Args:
        eps: radius of the ℓ∞ ball around each image, pixels in [0, 1].
        replays: training steps on each batch, the paper's m; divide the epochs by it.
        steps: ascent steps of the PGD that pretraining is validated with, where nothing is carried.
    """

    name = "free-at"

    def __init__(self, *, eps: float = 8 / 255, replays: int = 8, steps: int = 10) -> None:
        if replays < 1:
            raise ValueError(f"replays must be at least 1, got {replays}")
        self.threat, self.replays = Threat(eps=eps, step_size=eps / 4 or 1, steps=steps), replays

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        """Where the perturbation leads that was carried here; in validation PGD's inputs."""
        if objective.carried:
            return tuple((x + d).clamp(0, 1) for x, d in zip(objective.inputs, objective.carried, strict=True))
        with objective.attacking():
            return maximise(lambda inputs: objective(inputs).total, objective.inputs, generator, self.threat)

    def carry(self, objective: Objective, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The perturbation one step of the gradient's sign further, within the ball."""
        eps = self.threat.eps
        return tuple((d + eps * g.sign()).clamp(-eps, eps) for d, g in zip(objective.carried, grads, strict=True))


@hookimpl
def advss_defenses() -> list[type[Defense]]:
    """Free adversarial training."""
    return [FreeAT]
