"""RA: accuracy under projected gradient ascent (Madry et al. 2018), the paper's measure of robustness (section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Generator, Tensor

from advss.attacks import Norm, Threat
from advss.attacks import pgd as attack
from advss.attacks.evaluation import confidence
from advss.evaluations.pictures import calibration_errors, draw_answers
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN, ATTACKED = ("answer", "confidence"), ("attacked", "attacked_confidence")


class PGD(Evaluation):
    """Accuracy under PGD with random restarts.

    An image counts as robust when it is right unperturbed and withstands every restart.

    Args:
        norm: shape of the ball around each image; null is --eval-norm.
        eps: its radius, pixels in [0, 1]; null is --eval-eps.
        step_size: length of one ascent step, pixels in [0, 1]; null is --eval-step-size.
        steps: number of ascent steps; null is --eval-steps.
        top_share: of l1 alone, the share of the coordinates that one step moves; null is --eval-top-share.
        restarts: random starts; null is --eval-restarts.
        loss: what ascends; null is --eval-loss.
    """

    name = "pgd"

    def __init__(
        self,
        *,
        norm: Norm | None = None,
        eps: float | None = None,
        step_size: float | None = None,
        steps: int | None = None,
        top_share: float | None = None,
        restarts: int | None = None,
        loss: Literal["ce", "margin", "dlr"] | None = None,
    ) -> None:
        self.threat = Threat(
            norm=norm or "linf", eps=eps, step_size=step_size, steps=20 if steps is None else steps, top_share=top_share
        )
        self.attack = attack.PGD(restarts=1 if restarts is None else restarts, loss=loss or "ce")

    def title(self) -> str:
        """``PGD-20 ×2 ℓ∞ 8/255``; on which loss, where it is not cross-entropy."""
        restarts, loss = self.attack.restarts, self.attack.loss
        times = f" ×{restarts}" if restarts > 1 else ""
        return f"PGD-{self.threat.steps}{times} {'' if loss == 'ce' else f'{loss} '}{self.threat}"

    def check(self, model: Victim) -> None:
        """There are as many classes as the loss needs."""
        self.attack.check(len(model.classes))

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """Which images are right, clean and under attack; the classes answered, and how sure the model is of them."""
        return told(self.attack(model, x_BCHW, label_B, self.threat, generator), model, x_BCHW, label_B)

    def figures(self, measured: Measured) -> dict[str, Any]:
        """The expected calibration error, ``ece`` and ``attacked_ece``."""
        return calibration_errors({"ece": CLEAN, "attacked_ece": ATTACKED}, measured)

    def in_words(self, name: str) -> str:
        """``ECE`` is the calibration error."""
        return "ECE under attack" if name == "attacked_ece" else super().in_words(name)

    def draw(self, measured: Measured) -> dict[str, Figure]:
        """Confusion matrices, accuracy by class, reliability diagrams, clean beside attacked."""
        return draw_answers({"clean": CLEAN, self.title(): ATTACKED}, measured)


def told(found: attack.Attacked, model: Victim, x_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """What is kept of each image: right clean (``ta``) and under attack (``ra``), classes answered, and how surely."""
    return {
        "ta": found.clean_B == label_B,
        "ra": found.robust_B,
        "answer": found.clean_B,
        "confidence": confidence(model, x_BCHW),
        "attacked": found.attacked_B,
        "attacked_confidence": confidence(model, found.examples_BCHW),
    }
