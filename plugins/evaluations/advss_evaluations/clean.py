"""TA: accuracy on unperturbed images (the paper's section 5, "standard accuracy")."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from advss.attacks.evaluation import answers
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Victim


class Clean(Evaluation):
    """Accuracy on clean images."""

    name = "clean"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """The class answered, ``NO_ANSWER`` where a logit is not finite, and how sure the model is of it."""
        with torch.no_grad():
            logits_BK = model(x_BCHW)
        answer_B = answers(logits_BK)
        return {"ta": answer_B == label_B, "answer": answer_B, "confidence": logits_BK.softmax(1).amax(1)}
