"""TA: accuracy on unperturbed images (the paper's section 5, "standard accuracy")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from advss.attacks.evaluation import answers
from advss.evaluations.pictures import calibration_errors, draw_answers
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWERS = ("answer", "confidence")


class Clean(Evaluation):
    """Accuracy on clean images."""

    name = "clean"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """The class answered, ``NO_ANSWER`` where a logit is not finite, and how sure the model is of it."""
        with torch.no_grad():
            logits_BK = model(x_BCHW)
        answer_B = answers(logits_BK)
        return {"ta": answer_B == label_B, "answer": answer_B, "confidence": logits_BK.float().softmax(1).amax(1)}

    def figures(self, measured: Measured) -> dict[str, Any]:
        """The expected calibration error, ``ece``."""
        return calibration_errors({"ece": ANSWERS}, measured)

    def draw(self, measured: Measured) -> dict[str, Figure]:
        """Confusion matrix, accuracy by class, reliability diagram."""
        return draw_answers({"clean": ANSWERS}, measured)
