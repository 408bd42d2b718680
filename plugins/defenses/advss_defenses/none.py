"""Standard training (ST): ε = 0 in the paper's eq. (1). Pretraining under it is P2, fine-tuning F1 and F3."""

from __future__ import annotations

from advss.hookspecs import Defense


class NoDefense(Defense):
    """Standard training: the loss at the unperturbed inputs."""

    name = "none"
    adversarial = False
