"""A few images beside their adversarial examples, to look at: what PGD changes, and what the classifier says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from advss.evaluations.pictures import Page, draw_examples
from advss.evaluations.pictures.examples import MOST_IMAGES
from advss.measuring import Answers, Measured, Victim
from advss_evaluations.pgd import PGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Gallery(PGD):
    """A page of 12 images beside their adversarial examples under PGD, whose options it has; no accuracy."""

    name = "gallery"
    most = MOST_IMAGES

    def title(self) -> str:
        """``gallery of PGD-20 ℓ∞ 8/255``."""
        return f"gallery of {super().title()}"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """The images, their examples, and the classifier's probabilities for both; the wrong ones are attacked, too."""
        examples_BCHW = self.attack(model, x_BCHW, label_B, self.threat, generator, every=True).examples_BCHW
        with torch.no_grad():
            clean_BK, attacked_BK = (model(images).float().softmax(1) for images in (x_BCHW, examples_BCHW))
        return {"x": x_BCHW, "examples": examples_BCHW, "clean": clean_BK, "attacked": attacked_BK}

    def figures(self, measured: Measured) -> dict[str, Any]:
        """None: 12 images tell no accuracy."""
        return {}

    def draw(self, measured: Measured) -> dict[str, Figure]:
        """The page."""
        found = measured.answers
        page = Page(
            x=found["x"],
            examples=found["examples"],
            label=measured.label,
            clean=found["clean"],
            attacked=found["attacked"],
            classes=measured.classes,
            title=super().title(),
        )
        return {"examples": draw_examples(page)}
