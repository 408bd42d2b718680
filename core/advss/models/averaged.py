"""Several classifiers as one, their predictions averaged as probabilities (the paper's section 4.5, Table 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AveragedClassifier(nn.Module):
    """Images in [0, 1] (B, C, H, W) -> logs (B, K), float32, of the mean of the members' probabilities.

    Logs of probabilities are logits: their softmax is the mean itself, so an attack on cross-entropy goes through the
    average to every member. Members may have different backbones; each takes the images and gives logits of K classes.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logs_MBK = torch.stack([member(x_BCHW).float().log_softmax(1) for member in self.members])
        return logs_MBK.logsumexp(0) - math.log(len(self.members))
