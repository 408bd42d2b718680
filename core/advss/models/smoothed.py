"""Randomized smoothing (Cohen, Rosenfeld and Kolter 2019): a classifier that answers for a ball around each image.

Letters: B noisy copies of one batch, C channels, H W the image's sides, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import torch
from torch import Generator, Tensor, nn

from advss.attacks.evaluation import NO_ANSWER, answers

ABSTAIN = -1
NORMAL = NormalDist()  # Φ and Φ⁻¹
DRAWN_AT_ONCE = 50  # copies whose noise is one draw: the same whatever the batch, so that it does not change the noise


class SmoothedClassifier:
    """g(x) = argmax_c P[f(x + ε) = c], ε ~ N(0, σ²I), by sampling: section 3.2 of the paper.

    Args:
        base: f, in eval mode: images (B, C, H, W) -> logits (B, K). Noisy pixels leave [0, 1], as the theorem has it.
        classes: K.
        sigma: σ, pixels in [0, 1].
    """

    def __init__(self, base: nn.Module, *, classes: int, sigma: float) -> None:
        self.base, self.classes, self.sigma = base, classes, sigma

    def certify(
        self, x_CHW: Tensor, *, n0: int, n: int, alpha: float, generator: Generator, batch_size: int
    ) -> tuple[int, float]:
        """The function CERTIFY of the paper's section 3.2.2: a class, and the radius within which g answers it.

        Args:
            x_CHW: one image, pixels in [0, 1].
            n0: noisy copies that choose the class.
            n: further copies that bound its probability.
            alpha: chance that what is returned does not hold.
            generator: of the noise, on the image's device.
            batch_size: copies at once; whatever it is, the noise is the same.

        Returns:
            The class and its ℓ2 radius; ``ABSTAIN`` and 0 where p_A ≤ ½.
        """
        top = int(self.count(x_CHW, n0, generator=generator, batch_size=batch_size).argmax())
        counts_K = self.count(x_CHW, n, generator=generator, batch_size=batch_size)
        p_A = lower_bound(int(counts_K[top]), n, alpha)
        return (top, self.sigma * NORMAL.inv_cdf(p_A)) if p_A > 0.5 else (ABSTAIN, 0.0)

    @torch.inference_mode()
    def count(self, x_CHW: Tensor, n: int, *, generator: Generator, batch_size: int) -> Tensor:
        """How many of ``n`` noisy copies f puts into each class: (K,) int64; the paper's SAMPLEUNDERNOISE.

        A copy whose logits are not finite is in none, and counts among the ``n`` all the same.
        """
        counts_K = torch.zeros(self.classes, dtype=torch.int64, device=x_CHW.device)
        for copies_BCHW in self._noisy(x_CHW, n, generator, batch_size):
            answer_B = answers(self.base(copies_BCHW))
            counts_K += torch.bincount(answer_B[answer_B != NO_ANSWER], minlength=self.classes)
        return counts_K

    def _noisy(self, x_CHW: Tensor, n: int, generator: Generator, batch_size: int) -> Iterator[Tensor]:
        """``n`` noisy copies in batches, all in one buffer."""
        size = min(n, math.ceil(batch_size / DRAWN_AT_ONCE) * DRAWN_AT_ONCE)
        buffer_BCHW = x_CHW.new_empty(size, *x_CHW.shape)
        for done in range(0, n, size):
            copies_BCHW = buffer_BCHW[: n - done]
            for start in range(0, len(copies_BCHW), DRAWN_AT_ONCE):
                copies_BCHW[start : start + DRAWN_AT_ONCE].normal_(0, self.sigma, generator=generator)
            copies_BCHW.add_(x_CHW)
            for start in range(0, len(copies_BCHW), batch_size):
                yield copies_BCHW[start : start + batch_size]


def lower_bound(hits: int, n: int, alpha: float) -> float:
    """The one-sided lower Clopper–Pearson bound, at level 1 - ``alpha``, of what happened ``hits`` times in ``n``."""
    from scipy.stats import binomtest  # half a second, which nobody waits for who certifies nothing

    interval = binomtest(hits, n, alternative="greater").proportion_ci(confidence_level=1 - alpha, method="exact")
    return float(interval.low)


def largest_radius(sigma: float, n: int, alpha: float) -> float:
    """σ·Φ⁻¹(α^(1/n)): the radius of an image of whose ``n`` copies none is misclassified; none has a larger one."""
    return sigma * NORMAL.inv_cdf(alpha ** (1 / n))


def fewest_copies(alpha: float) -> int:
    """The smallest n that can certify anything: α^(1/n) > ½."""
    return math.floor(math.log2(1 / alpha)) + 1
