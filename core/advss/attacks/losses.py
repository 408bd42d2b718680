"""What attacks make grow, by image, and the scale of the logits that it is seen at.

Letters: B images, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Cross-entropy sees nothing but the nearest class, and in the end nothing, where logits are large. So an image whose
# margin is larger has its logits divided until it is this: then p is 0.9997, and scaling all logits changes little.
SATURATED = 8.0
TINY = 1e-12  # logits that are equal make a ratio no nan


def temperature(margin_B: Tensor) -> Tensor:
    """What to divide each image's logits by, (B,), so that its margin, unperturbed and given here, is 8 at most."""
    return (margin_B.abs() / SATURATED).clamp_min(1)


def odds(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """Cross-entropy as log(1/p - 1): it orders points alike and its gradient has the same direction, even at p = 1."""
    own_B1 = label_B[:, None]
    return logits_BK.scatter(1, own_B1, -torch.inf).logsumexp(1) - logits_BK.gather(1, own_B1)[:, 0]


def margin(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """The largest other logit less the own (Carlini and Wagner 2017): above 0 where the answer is wrong."""
    own_B1 = label_B[:, None]
    return logits_BK.scatter(1, own_B1, -torch.inf).amax(1) - logits_BK.gather(1, own_B1)[:, 0]


def dlr(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020): the margin over what lies between first and third logit."""
    sorted_B3 = logits_BK.topk(3, dim=1).values
    return margin(logits_BK, label_B) / (sorted_B3[:, 0] - sorted_B3[:, 2]).clamp_min(TINY)


def targeted(logits_BK: Tensor, label_B: Tensor, target_B: Tensor) -> Tensor:
    """The margin to the target over what lies between the first logit and the middle of the third and the fourth."""
    margin_B1 = logits_BK.gather(1, target_B[:, None]) - logits_BK.gather(1, label_B[:, None])
    sorted_B4 = logits_BK.topk(4, dim=1).values
    return margin_B1[:, 0] / (sorted_B4[:, 0] - sorted_B4[:, 2:].mean(1)).clamp_min(TINY)
