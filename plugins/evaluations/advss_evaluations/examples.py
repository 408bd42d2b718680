"""Adversarial examples, as ``advss transfer`` tries them on other models (the paper's section 4.5)."""

from __future__ import annotations

from torch import Generator, Tensor

from advss.measuring import Answers, Victim
from advss_evaluations.pgd import PGD, told


class Examples(PGD):
    """PGD as in pgd, and what it makes of every image: ``x`` among the answers, a file as large as the images.

    The model is wrong about exactly the examples of the images that are not robust: what it has wrong unperturbed is
    attacked, too, once, and stands for itself where the attack would make it right.
    """

    name = "examples"

    def title(self) -> str:
        """``examples of PGD-20 ℓ∞ 8/255``."""
        return f"examples of {super().title()}"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """As PGD, drawn as by it, and the examples (B, C, H, W) in [0, 1]."""
        found = self.attack(model, x_BCHW, label_B, self.threat, generator, every=True)
        return {**told(found, model, x_BCHW, label_B), "x": found.examples_BCHW}
