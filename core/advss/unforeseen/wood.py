"""An attack of ImageNet-UA: rings of wood are drawn over the image, and their centres are moved about.

Letters: B images, S their side, s that of the variables.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.unforeseen.attack import Attack

FLATTER = 8  # root of the sine: thin dark rings on the image itself


class Wood(Attack):
    """Variables (B, 1, s, s), each |z| ≤ eps, are added to the distance from the image's centre; eps = 0 has the rings.

    Where the sine is exactly 0, such as in the centre at first, its root has no gradient, and these variables stay.

    Args:
        x_BCHW: images.
        rings: from the centre to a side.
        resolution: s.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, rings: int, resolution: int, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.rings, self.resolution = rings, resolution
        line = 2 * torch.arange(self.side, device=self.x.device, dtype=self.x.dtype) / self.side - 1
        self.distance_SS = (line**2 + line[:, None] ** 2).sqrt()

    def start(self) -> Tensor:
        """0."""
        return self.x.new_zeros(len(self.x), 1, self.resolution, self.resolution)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Images times the rings."""
        moved = F.interpolate(z, (self.side, self.side), mode="bilinear", align_corners=False)
        waves = (math.pi * self.rings * (self.distance_SS + moved)).sin()
        return (self.x * waves.abs() ** (1 / FLATTER)).clamp(0, 1)
