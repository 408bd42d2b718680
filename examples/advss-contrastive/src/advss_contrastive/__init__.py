"""Adversarial contrastive learning (ACL: Jiang, Chen, Chen and Wang 2020): SimCLR (Chen et al. 2020) under attack.

Two augmented views of an image are each other's positive, all other views of the batch the negatives. In the paper's
best variant, dual stream (DS), NT-Xent of the attacked pair and NT-Xent of the clean pair are averaged, and each pair
has BatchNorm layers of its own; those of the attacked pair are fine-tuned.

B batch, N = 2B views, C channels, H W the image's sides, D width of a projection.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, BranchNorm, Encoder, Loss, PretextTask, Views, accuracy, branch, hookimpl
from advss_contrastive.augmentation import augmented

advss_api = (1, 0)
Pair = Literal["adversarial", "clean"]


class Contrastive(PretextTask):
    """Find an image's other view among all views of the batch.

    The clean pair has a loss of its own, so the paper's defense is ``pgd`` with ``--defense.clean_weight 0`` (and 5
    steps). Without logits: a defense that compares predictions, such as trades, cannot be used.

    Args:
        stream: losses of the attacked and of the clean pair (the paper's DS), or of the attacked pair alone (its A2A).
        temperature: by which cosines are divided.
        dimensions: width of a projection.
        crop: smallest share of the image's area that a view shows; 1 shows all of it.
        flip: chance that a view is mirrored left to right.
        jitter: strength of the change of brightness, contrast and saturation; a quarter of it is the hue's.
    """

    name = "contrastive"
    branches = ("adversarial", "clean")

    def __init__(
        self,
        *,
        stream: Literal["dual", "adversarial"] = "dual",
        temperature: float = 0.5,
        dimensions: int = 128,
        crop: float = 0.2,
        flip: float = 0.5,
        jitter: float = 0.4,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:  # nan too
            raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
        if dimensions < 1:
            raise ValueError(f"dimensions must be at least 1, got {dimensions}")
        if not 0 < crop <= 1:
            raise ValueError(f"crop must be in (0, 1], got {crop}: it is a share of the image's area")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be in [0, 1], got {flip}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], got {jitter}")
        self.stream, self.temperature, self.dimensions = stream, temperature, dimensions
        self.crop, self.flip, self.jitter = crop, flip, jitter

    def build(self, encoder: Encoder) -> None:
        """A last stage of its own and SimCLR's projection: linear, BatchNorm, ReLU, linear, BatchNorm.

        Without the last norm projections begin close together, and under attack they end in one point.
        """
        self.tail = encoder.tail()
        width = encoder.features
        first, last = (nn.Linear(width, out, bias=False) for out in (width, self.dimensions))
        self.project = nn.Sequential(first, self._norm(width), nn.ReLU(), last, self._norm(self.dimensions))

    def _norm(self, width: int) -> BranchNorm:
        return BranchNorm({name: nn.BatchNorm1d(width) for name in self.branches})

    def views(self, batch: Batch, generator: Generator) -> Views:
        """Two views of each image, both attacked; the same two beside them for the clean stream."""
        views_NCHW = augmented(
            batch.raw.repeat(2, 1, 1, 1), generator, crop=self.crop, flip=self.flip, jitter=self.jitter
        )
        first, second = views_NCHW.chunk(2)
        return Views((first, second), {"first": first, "second": second} if self.stream == "dual" else {})

    def freeze(self, encoder: Any, views: Views) -> Views:
        """The clean stream's loss, a constant to an attack."""
        if self.stream != "dual":
            return views
        return Views(views.inputs, {"clean_loss": self.clean_loss(encoder, views.targets)})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        """Mean of both streams' NT-Xent, or the attacked pair's; accuracy is how often the positive is the nearest."""
        value, right = self.contrast(encoder, inputs, "adversarial")
        if self.stream == "dual":
            value = (value + self.clean_loss(encoder, targets)) / 2
        return Loss(value, metrics={"accuracy": right})

    def clean_loss(self, encoder: Encoder, targets: dict[str, Tensor]) -> Tensor:
        """The clean stream's NT-Xent, computed or frozen."""
        if "clean_loss" in targets:
            return targets["clean_loss"]
        return self.contrast(encoder, (targets["first"], targets["second"]), "clean")[0]

    def contrast(self, encoder: Encoder, views: tuple[Tensor, ...], pair: Pair) -> tuple[Tensor, Tensor]:
        """NT-Xent and accuracy of two views (B, C, H, W) of each image, in one pass in the pair's own BatchNorm."""
        assert self.tail is not None
        with branch(pair, encoder, self):
            projected_ND = self.project(self.tail(encoder(torch.cat(views))))
        scores_NN = similarities(projected_ND, self.temperature)
        N = len(scores_NN)
        positive_N = torch.arange(N, device=scores_NN.device).roll(N // 2)
        return F.cross_entropy(scores_NN, positive_N), accuracy(scores_NN, positive_N)


def similarities(projected_ND: Tensor, temperature: float) -> Tensor:
    """Cosines over ``temperature`` in float32, (N, N); -inf of a view with itself."""
    with torch.autocast(projected_ND.device.type, enabled=False):  # else the product is bfloat16 however it is cast
        unit_ND = F.normalize(projected_ND.float(), dim=1)
        return (unit_ND @ unit_ND.T / temperature).fill_diagonal_(-math.inf)


@hookimpl
def advss_pretext_tasks() -> list[type[PretextTask]]:
    """Adversarial contrastive learning."""
    return [Contrastive]
