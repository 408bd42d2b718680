"""How often logits are right."""

from __future__ import annotations

from torch import Tensor


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of ``labels`` (...) that ``logits`` (..., K) rank first; a scalar without gradient.

    Where the largest logit is not finite none is first; -inf may stand for what cannot be chosen.
    """
    scores = logits.detach()
    return ((scores.argmax(-1) == labels) & scores.amax(-1).isfinite()).float().mean()
