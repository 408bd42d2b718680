"""What certificates of many images come to: certified accuracy at each radius, its mean radius, and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advss.evaluations.chance import against_chance
from advss.figures import LOOKS, new_figure, save_figure
from advss.models.smoothed import ABSTAIN

STEP, MOST_STEPS = 0.05, 1000  # of the curve's radii, pixels in [0, 1]
MOST_SHOWN = 6  # columns of a table 80 characters wide


@dataclass(frozen=True)
class Certified:
    """One test image and what was certified of it."""

    index: int  # its place in the whole test set
    label: int
    predicted: int  # ABSTAIN where no class was certain
    radius: float  # ℓ2, pixels in [0, 1]; 0 where it abstains
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the certified class is the label."""
        return self.predicted == self.label


def summary(images: Sequence[Certified], *, largest: float, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of a certificate's file.

    Args:
        images: at least one.
        largest: the largest radius that can be certified; the curve ends beyond it.
        classes: names of the classes.

    Returns:
        ``images``, their count; ``clean_accuracy`` of the smoothed classifier, where abstaining is wrong;
        ``abstained``, the share of images; ``acr``, the average certified radius, a wrong image's being 0 (Zhai et al.
        2020); ``radius`` and ``accuracy``, the curve; ``seconds``; and what
        :func:`advss.evaluations.chance.against_chance` says of the classes certified.
    """
    radii = grid(largest)
    predicted_N, label_N = (torch.tensor([getattr(i, name) for i in images]) for name in ("predicted", "label"))
    return {
        "images": len(images),
        "clean_accuracy": accuracy_at(images, 0.0),
        "abstained": sum(image.predicted == ABSTAIN for image in images) / len(images),
        "acr": sum(image.radius for image in images if image.right) / len(images),
        "radius": radii,
        "accuracy": [accuracy_at(images, radius) for radius in radii],
        "seconds": round(sum(image.seconds for image in images), 2),
        **against_chance(predicted_N, label_N, classes),
    }


def accuracy_at(images: Sequence[Certified], radius: float) -> float:
    """Share of the images that are right within at least ``radius``: the certified accuracy."""
    return sum(image.right and image.radius >= radius for image in images) / len(images)


def grid(largest: float) -> list[float]:
    """Radii from 0 to just beyond ``largest``, a twentieth apart, or as many tens of it as a huge σ asks for."""
    step = STEP * 10 ** max(0, math.ceil(math.log10(largest / (STEP * MOST_STEPS))))
    radii = [0.0]
    while radii[-1] <= largest:
        radii.append(round(len(radii) * step, 10))
    return radii


def shown(content: Mapping[str, Any]) -> list[tuple[float, float]]:
    """At most ``MOST_SHOWN`` radii that can be certified, 0 first, with the accuracy there, from :func:`summary`."""
    attainable = list(zip(content["radius"], content["accuracy"], strict=True))[:-1]
    every = 5  # 0, 0.25, 0.5
    while len(attainable[::every]) > MOST_SHOWN:
        every *= 2
    return attainable[::every]


def draw_certified(images: Sequence[Certified], path: Path, *, largest: float, title: str) -> tuple[Path, Path]:
    """Draw certified accuracy over the radius: a step down at the radius of each image that is right; both files."""
    radii = sorted(image.radius for image in images if image.right)
    left = [count / len(images) for count in range(len(radii), -1, -1)]
    figure = new_figure(width=6, height=3.8)
    axes = figure.subplots()
    axes.step([0, *radii, largest], [left[0], *left], where="pre", color=LOOKS[0].colour)
    axes.axvline(largest, color=LOOKS[1].colour, linestyle="--", label="largest that n and α can certify")
    axes.set(xlabel="ℓ2 radius, pixels in [0, 1]", ylabel="certified accuracy", title=title, ylim=(0, 1.02))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, path)
