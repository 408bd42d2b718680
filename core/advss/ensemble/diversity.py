"""The diversity term of the paper's eq. (4): how far the members' input gradients point apart.

Letters: B batch, D pixels of one image (C·H·W), M members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-5  # added to GᵀG, as released, so that parallel gradients give a finite value


def log_det(gradients: Sequence[Tensor]) -> Tensor:
    """Batch mean of log det(GᵀG + 1e-5·I), G's columns the unit gradients of the M members (eq. 4).

    Args:
        gradients: M tensors (B, ...), one a member.

    Returns:
        A float32 scalar: M·log(1 + 1e-5) for orthogonal gradients, towards -inf as they align. The M×M part is
        computed in float64: in float32 it is off by 1e-3 where gradients are parallel.
    """
    units_BDM = torch.stack([F.normalize(g.flatten(1).float(), dim=1, eps=1e-10) for g in gradients], dim=2).double()
    gram_BMM = units_BDM.mT @ units_BDM
    eye = torch.eye(len(gradients), dtype=torch.float64, device=gram_BMM.device)
    g: Tensor = torch.linalg.slogdet(gram_BMM + RIDGE * eye).logabsdet.mean()
    return g.float()
