"""Whether confidence is accuracy: reliability diagram and expected calibration error (Guo et al. 2017, eq. 3).

Letters: N images, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advss.figures import LOOKS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15  # as in the paper
DARK, _, LIGHT, _ = LOOKS


def calibration_error(confidence_N: Tensor, right_N: Tensor, bins: int = BINS) -> float:
    """Mean distance of accuracy and confidence over equal bins of confidence, by their images: eq. (3), in [0, 1].

    Args:
        confidence_N: the largest probability of each image.
        right_N: whether the image is right, bool.
        bins: of equal width; one holds its upper end and not its lower.

    Raises:
        ValueError: there are no images, or a confidence is no probability.
    """
    images_B, accuracy_B, confidence_B = _by_bin(confidence_N, right_N, bins)
    return float((images_B * (accuracy_B - confidence_B).abs()).sum() / images_B.sum())


def draw_reliability(kinds: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Draw accuracy over confidence, a column a kind, and below how many images have which confidence.

    The hatched gap of a bin goes from its accuracy to its mean confidence: weighted by images, the gaps are the ECE.

    Args:
        kinds: by kind, the confidences (N,) and whether the images (N,) are right. What is not finite is left out.
    """
    figure = new_figure(width=3.6 * len(kinds) + 0.4, height=5)
    panels = figure.subplots(2, len(kinds), squeeze=False, sharex=True, sharey="row", height_ratios=(2.2, 1))
    for place, (kind, (confidence_N, right_N)) in enumerate(kinds.items()):
        upper, lower = panels[:, place]
        known_N = confidence_N.isfinite()
        left = int((~known_N).sum())
        upper.set_title(f"{kind}, {left} without confidence left out" if left else kind, fontsize="medium")
        if known_N.any():
            _accuracies(upper, confidence_N[known_N], right_N[known_N])
            _confidences(lower, confidence_N[known_N], right_N[known_N])
        upper.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
        upper.set(xlim=(0, 1), ylim=(0, 1.3), yticks=[0, 0.25, 0.5, 0.75, 1])
        lower.set(xlabel="confidence", ylim=(0, 160), yticks=[0, 50, 100])
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("images, %")
    return figure


def _by_bin(confidence_N: Tensor, right_N: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, accuracy and mean confidence of each bin, float64; both 0 in an empty one."""
    confidence_N = confidence_N.double()
    if not len(confidence_N) or not ((confidence_N >= 0) & (confidence_N <= 1 + 1e-6)).all():
        raise ValueError("expected at least one image, and confidences from 0 to 1")
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    bin_N = torch.bucketize(confidence_N, edges)
    images_B = torch.bincount(bin_N, minlength=bins).double()
    right_B = torch.bincount(bin_N, right_N.double(), minlength=bins)
    sum_B = torch.bincount(bin_N, confidence_N, minlength=bins)
    return images_B, right_B / images_B.clamp(min=1), sum_B / images_B.clamp(min=1)


def _accuracies(axes: Any, confidence_N: Tensor, right_N: Tensor) -> None:
    """A bar a bin, and its gap."""
    images_B, accuracy_B, confidence_B = _by_bin(confidence_N, right_N, BINS)
    bins, width = images_B.nonzero()[:, 0], 1 / BINS
    middle, heights = ((bins + 0.5) * width).numpy(), accuracy_B[bins].numpy()
    axes.bar(middle, heights, width, color=LIGHT.colour, edgecolor="white", label="accuracy")
    gap = {"facecolor": "none", "edgecolor": DARK.colour, "hatch": "////", "linewidth": 0.8}
    ece = 100 * calibration_error(confidence_N, right_N)
    axes.bar(
        middle,
        (confidence_B - accuracy_B)[bins].numpy(),
        width,
        bottom=heights,
        label=f"gap to confidence, ECE {ece:.1f} %",
        **gap,
    )
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def _confidences(axes: Any, confidence_N: Tensor, right_N: Tensor) -> None:
    """How many images have which confidence, and the two means."""
    images_B, _, _ = _by_bin(confidence_N, right_N, BINS)
    middle, share = ((torch.arange(BINS) + 0.5) / BINS).numpy(), (100 * images_B / images_B.sum()).numpy()
    axes.bar(middle, share, 1 / BINS, color=LIGHT.colour, edgecolor="white")
    means = (("accuracy", right_N.double().mean(), "-"), ("confidence", confidence_N.double().mean(), "--"))
    for name, mean, line in means:
        style = {"color": "black", "linestyle": line, "linewidth": 1.2}
        axes.axvline(float(mean), ymax=100 / 160, label=f"mean {name} {mean:.3f}", **style)
    axes.legend(frameon=False, loc="upper left", fontsize="small")
