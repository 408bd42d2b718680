"""PGD with random starts (Madry et al. 2018), as robust accuracy is measured: by image, on one of three losses.

Letters: B images, S of them attacked in a restart, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Generator, Tensor, nn

from advss.attacks import losses
from advss.attacks.balls import around
from advss.attacks.evaluation import answers
from advss.attacks.passes import Passes
from advss.attacks.threat import Threat, whole
from advss.attacks.victim import as_victim

Loss = Literal["ce", "margin", "dlr"]
LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": losses.odds,
    "margin": losses.margin,
    "dlr": losses.dlr,
}
DLR_CLASSES = 3  # its ratio compares with the third logit


class Attacked(NamedTuple):
    """What PGD finds of B images; classes are ``NO_ANSWER`` where a logit is not finite.

    Attributes:
        clean_B: int64, the class answered for the unperturbed image.
        attacked_B: int64, the class answered for the example.
        robust_B: bool, right unperturbed (δ = 0 lies in the ball) and after every restart.
        examples_BCHW: of an image that fell, what felled it; of a robust one, the last restart's; of one that is wrong
            unperturbed, itself, or, where ``every`` image was to be attacked, what is wrong too.
    """

    clean_B: Tensor  # noqa: N815
    attacked_B: Tensor  # noqa: N815
    robust_B: Tensor  # noqa: N815
    examples_BCHW: Tensor  # noqa: N815


@dataclass(frozen=True, kw_only=True)
class PGD:
    """PGD with restarts; ``PGD(restarts=2)(model, ...)`` attacks.

    Where an image's own logit is more than 8 above the others, all are divided until it is 8: large logits hide no
    direction from cross-entropy. Small ones blur it, as in any PGD; the other two losses have no scale.

    Attributes:
        restarts: runs, each from a point drawn in the ball, against what still stands. With ``ce`` every second one is
            on ``margin``.
        loss: ``ce``, cross-entropy; ``margin``, the largest other logit less the own (Carlini and Wagner 2017);
            ``dlr``, the margin over the difference between first and third logit (Croce and Hein 2020).

    Raises:
        ValueError: an option that makes no attack; its name comes first.
    """

    restarts: int = 1
    loss: Loss = "ce"

    def __post_init__(self) -> None:
        whole("restarts", self.restarts)
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {self.loss!r}")

    def __call__(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        label_B: Tensor,
        threat: Threat,
        generator: Generator,
        *,
        every: bool = False,
    ) -> Attacked:
        """Attack a chunk of images, each of which is answered alike whichever others stand and however memory runs out.

        Args:
            model: images to logits; it is in eval mode meanwhile, and afterwards as it was.
            x_BCHW: images in [0, 1].
            label_B: their classes.
            threat: the ball, and number and length of the steps.
            generator: of the starts, on the images' device; each restart draws for all B images.
            every: in the first restart, attack what is wrong unperturbed, too; it stands for itself where that would
                make it right. So the model is wrong about exactly the examples of the images that are not robust.

        Raises:
            ValueError: ``dlr``, and the model has fewer than 3 classes.
        """
        x_BCHW = x_BCHW.detach()
        with as_victim(model):
            asked = Passes(model)
            logits_BK = asked.logits(x_BCHW)
            self.check(logits_BK.shape[1])
            clean_B = answers(logits_BK)
            found = Attacked(clean_B, clean_B.clone(), clean_B == label_B, x_BCHW.clone())
            for restart in range(self.restarts):
                place_S = (found.robust_B | (every and restart == 0)).nonzero()[:, 0]
                if not len(place_S):
                    break
                start = around(x_BCHW, threat).start(generator)[place_S]
                label_S = label_B[place_S]
                loss = self._loss(restart, label_S, logits_BK[place_S])
                tried = _climbed(asked, x_BCHW[place_S], start, threat, loss)
                _tell(found, place_S, label_S, tried, answers(asked.logits(tried)))
        return found

    def check(self, classes: int) -> None:
        """Raise ValueError where a model of so few classes cannot be attacked."""
        if self.loss == "dlr" and classes < DLR_CLASSES:
            raise ValueError(
                f"loss dlr needs at least {DLR_CLASSES} classes, the model has {classes}: choose ce or margin"
            )

    def _loss(self, restart: int, label_S: Tensor, logits_SK: Tensor) -> Callable[[Tensor, slice], Tensor]:
        """What a restart's run ascends, from labels and the logits of the unperturbed images."""
        name: Loss = "margin" if self.loss == "ce" and restart % 2 else self.loss
        temperature_S = losses.temperature(losses.margin(logits_SK, label_S))

        def loss(logits_BK: Tensor, part: slice) -> Tensor:
            return LOSSES[name](logits_BK / temperature_S[part, None], label_S[part])

        return loss


def _climbed(
    asked: Passes, clean: Tensor, x: Tensor, threat: Threat, loss: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """``x``, so many steps on."""
    ball = around(clean, threat)
    for _ in range(threat.steps):
        _, _, gradient = asked.ascent(x, loss)
        x = ball.ascend(x, gradient)
    return x


def _tell(found: Attacked, place_S: Tensor, label_S: Tensor, tried: Tensor, answer_S: Tensor) -> None:
    """Write down what was tried on the images at these places, and what was answered."""
    wrong_S = answer_S != label_S
    kept_S = found.robust_B[place_S] | wrong_S
    found.examples_BCHW[place_S[kept_S]] = tried[kept_S]
    found.attacked_B[place_S[kept_S]] = answer_S[kept_S]
    found.robust_B[place_S[wrong_S]] = False
