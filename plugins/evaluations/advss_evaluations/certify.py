"""Certified accuracy: l2 balls in which nothing changes the smoothed classifier's answer (Cohen et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from advss.attacks.threat import LARGEST, in_pixels, whole
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim
from advss.models.smoothed import SmoothedClassifier, fewest_copies, largest_radius

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Certify(Evaluation):
    """Certified accuracy by l2 radius, under randomized smoothing.

    Args:
        sigma: standard deviation of the noise, pixels in [0, 1]; null is what the model was fine-tuned on.
        n0: noisy copies of an image that choose its class.
        n: further noisy copies that bound the probability of that class.
        alpha: chance, for each image, that its radius is too large.
        limit: certify this many of the test images at most, as many of each class, whatever the seed; 0 takes all.
        batch_size: noisy copies at once; halved when memory runs out.
        other_sigma: certify at a sigma that the model was not fine-tuned on.
    """

    name = "certify"
    chunk = 1  # an image's noise is its own

    def __init__(
        self,
        *,
        sigma: float | None = None,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        limit: int = 100,
        batch_size: int = 1000,
        other_sigma: bool = False,
    ) -> None:
        self.sigma = sigma if sigma is None else in_pixels("sigma", sigma, most=LARGEST["noise"])
        self.n0, self.n, self.batch_size = whole("n0", n0), whole("n", n), whole("batch_size", batch_size)
        self.alpha, self.most, self.other_sigma = alpha, limit, other_sigma
        if limit < 0:
            raise ValueError(f"limit must be a number of test images, or 0 for all, got {limit}")
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must be above 0 and below 0.5, got {alpha:g}")
        if n < (fewest := fewest_copies(alpha)):
            raise ValueError(
                f"n must be at least {fewest}, got {n}: so few copies can certify nothing at alpha {alpha:g}, though "
                "all agree"
            )

    def title(self) -> str:
        """``smoothing σ 0.25, n 10,000, α 0.001``; without σ where the model says it."""
        sigma = "" if self.sigma is None else f" σ {self.sigma:g},"
        return f"smoothing{sigma} n {self.n:,}, α {self.alpha:g}"

    def check(self, model: Victim) -> None:
        """σ is what the model was fine-tuned on, or meant."""
        if self.sigma is None and not model.noise:
            raise ValueError(
                "the model was fine-tuned without noise, so no sigma follows from it; certify it all the same by "
                "--certify.sigma 0.25 --certify.other_sigma, or fine-tune with a defense that trains on noise"
            )
        if self.other_sigma or self._sigma(model) == model.noise:
            return
        seen = f"on noise of sigma {model.noise:g}; leave --certify.sigma out, or" if model.noise else "without noise;"
        raise ValueError(
            f"--certify.sigma {self.sigma:g}: the model was fine-tuned {seen} add --certify.other_sigma to mean it"
        )

    def known_by(self, options: Mapping[str, Any], model: Victim) -> Mapping[str, Any]:
        """σ as it is, n0, n and α; the noise is the same in batches of any size."""
        return {"sigma": self._sigma(model), **{name: options[name] for name in ("n0", "n", "alpha")}}

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """The class that is certified, ``ABSTAIN`` where none is, and within which radius; whether it is the label."""
        smoothed = SmoothedClassifier(model, classes=len(model.classes), sigma=self._sigma(model))
        found = [
            smoothed.certify(
                x_CHW, n0=self.n0, n=self.n, alpha=self.alpha, generator=generator, batch_size=self.batch_size
            )
            for x_CHW in x_BCHW
        ]
        predicted_B = torch.tensor([predicted for predicted, _ in found])
        radius_B = torch.tensor([radius for _, radius in found], dtype=torch.float64)
        return {
            "clean_accuracy": predicted_B == label_B.cpu(),
            "predicted": predicted_B,
            "radius": radius_B,
            "sigma": torch.full_like(radius_B, smoothed.sigma),
        }

    def figures(self, measured: Measured) -> dict[str, Any]:
        """The curve, its accuracies at round radii, and what stands in :func:`advss.evaluations.certified.summary`."""
        from advss.evaluations.certified import summary  # SciPy, which choosing an evaluation does without

        sigma, largest = self._largest(measured)
        return {"sigma": sigma, **summary(measured, largest=largest)}

    def in_words(self, name: str) -> str:
        """``certified at r = 0.25``."""
        from advss.evaluations.certified import AT

        if name.startswith(AT):
            return f"certified at r = {name.removeprefix(AT)}"
        return "σ" if name == "sigma" else super().in_words(name)

    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        """Certified accuracy over the radius."""
        from advss.evaluations.certified import drawn

        sigma, largest = self._largest(measured)
        title = f"σ {sigma:g}, n {self.n:,}, α {self.alpha:g}, {len(measured.label)} images"
        return {"certified": drawn(measured, largest=largest, title=title)}

    def _sigma(self, model: Victim) -> float:
        """What was asked for, but that of the model where they are the same but for rounding."""
        same = self.sigma is None or math.isclose(self.sigma, model.noise)
        return model.noise if same or self.sigma is None else self.sigma

    def _largest(self, measured: Measured) -> tuple[float, float]:
        """σ, and the largest radius that can be certified with it."""
        sigma = float(measured.answers["sigma"][0])
        return sigma, largest_radius(sigma, self.n, self.alpha)
