"""Fast adversarial training (Wong, Rice and Kolter 2020): FGSM from a random start.

The start is uniform in the ℓ∞ ball; one step of the gradient's sign follows, longer than the radius, so that the
corners of the ball are reached from within it; then back into the ball and [0, 1].
"""

from __future__ import annotations

import math
from typing import Literal

from advss_defenses.pgd import PGD


class FGSMRS(PGD):
    """Fast adversarial training: one signed step from a random start.

    May overfit catastrophically: from one epoch to the next the network withstands its one step and nothing stronger,
    the more likely the larger eps and step and the longer the training; the epoch that is kept is the best by
    validation RA under PGD, so what was reached before is not lost.

    Args:
        eps: radius of the ℓ∞ ball around each image, pixels in [0, 1].
        step: length of the step, in multiples of eps.
        clean_weight: weight of the loss at the unperturbed inputs, the attacked having the rest; auto is 0.5 in
            pretraining and 0, as in the method's paper, in fine-tuning.
        attack_mode: how the network stands while it is attacked: as it trains or in eval mode. Running statistics
            never move.
    """

    name = "fgsm-rs"

    def __init__(
        self,
        *,
        eps: float = 8 / 255,
        step: float = 1.25,
        clean_weight: float | Literal["auto"] = "auto",
        attack_mode: Literal["train", "eval"] = "train",
    ) -> None:
        if not 0 < step < math.inf:
            raise ValueError(f"step must be above 0 and finite, got {step}; it is in multiples of eps")
        super().__init__(
            norm="linf",
            eps=eps,
            # in a ball of radius 0 any step comes back to the image, and one of 1 leads as far as any longer one
            step_size=min(step * eps or step, 1),
            steps=1,
            clean_weight=clean_weight,
            attack_mode=attack_mode,
        )
