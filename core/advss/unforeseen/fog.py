"""The attack by fog of Kang et al.: a fractal height map, whose random moves are the variables, is laid over the image.

Letters: B images, S their side, M that of the map, n that of a level's fields.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from advss.attacks.balls import by_image
from advss.unforeseen.attack import Attack

HEIGHT, DECAY = 100.0, 2.0  # of the first level's moves, and what it is divided by from level to level


class Fog(Attack):
    """Variables (B, M² - 1) in [0, 1], whatever eps, which says how thick the fog is; eps = 0 stretches the contrast.

    Args:
        x_BCHW: images of 32 or 224 pixels: the map's middle, 16 pixels from its ends, is as large as they are.
        together: the least and the largest height are those of the whole chunk, as in the released code, so that an
            image hangs on what else is in its chunk; without, of each image's map.
        given: as of every attack; eps is in pixels of 0...255.
    """

    def __init__(self, x_BCHW: Tensor, *, together: bool = False, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.together, self.eps = together, self.eps / 255
        self.levels = int(math.log2(self.side)) + 1
        self.counts = [4**level for level in range(self.levels) for _ in range(3)]
        self.brightest_BC11 = self.x.amax((2, 3), keepdim=True)

    def start(self) -> Tensor:
        """Uniform."""
        return self.uniform(len(self.x), sum(self.counts))

    def project(self, z: Tensor) -> Tensor:
        """A clamp."""
        return z.clamp(0, 1)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Fog is added, and each channel is scaled so that its brightest pixel could not leave [0, 1]."""
        fog = self._stretched(heights(torch.split(z, self.counts, 1)))
        edge = (fog.shape[-1] - self.side) // 2
        fog_B1SS = fog[:, None, edge : edge + self.side, edge : edge + self.side]
        largest = (self.brightest_BC11 + self.eps).clamp_min(1e-12)
        return ((self.x + self.eps * fog_B1SS) / largest).clamp(0, 1)

    def _stretched(self, map_BMM: Tensor) -> Tensor:
        """A map from 0 to 1."""
        low_B, high_B = map_BMM.flatten(1).amin(1), map_BMM.flatten(1).amax(1)
        if self.together:
            low_B, high_B = low_B.amin().expand_as(low_B), high_B.amax().expand_as(high_B)
        return (map_BMM - by_image(low_B, map_BMM)) / by_image((high_B - low_B).clamp_min(1e-12), map_BMM)


def heights(fields: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """A height map (B, M, M) on a torus, by squares and diamonds, of three fields (B, n²) a level.

    Diamonds take the centres of squares two places off, not one, as in the released code.
    """
    corner, height = fields[0].new_zeros(len(fields[0]), 1, 1), HEIGHT
    for level in range(len(fields) // 3):
        square, above, beside = ((2 * v - 1).view_as(corner) * height for v in fields[3 * level : 3 * level + 3])
        right, below = corner.roll(-1, 2), corner.roll(-1, 1)
        centre = (corner + below + right + below.roll(-1, 2)) / 4 + square
        top = (centre + centre.roll(2, 1) + corner + right) / 4 + above
        left = (centre + centre.roll(2, 2) + corner + below) / 4 + beside
        rows = torch.stack([_woven(corner, top), _woven(left, centre)], 2)  # B, n, 2, 2n
        corner, height = rows.flatten(1, 2), height / DECAY
    return corner


def _woven(even: Tensor, odd: Tensor) -> Tensor:
    """Columns of two grids in turn."""
    return torch.stack([even, odd], 3).flatten(2)
