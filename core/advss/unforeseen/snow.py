"""Attacks by snow, flakes whose brightness is ascended: Kang et al. and ImageNet-UA.

Letters: B images, S their side, L layers of snow, N flakes' shapes, k the side of one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.unforeseen.attack import Attack, laid, snowy, within_l2
from advss.unforeseen.elastic import gaussian

POWER = 4  # of what a flake's variable is to its brightness
BUDGET, REGION = 0.2, 8  # the most that the variables of a region of 8 x 8 are in the mean


class Snow(Attack):
    """Kang et al.: variables (B, 7, S/4, S/4) in [0, 1], whatever eps, which the snow is multiplied by.

    One shape a layer for the whole chunk. Without snow the image is a quarter on its way to a pale grey.
    """

    layers, pale, side_of_flake = 7, 0.25, 13

    def __init__(self, x_BCHW: Tensor, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        shapes_Lkk = flakes(self, self.layers, side=self.side_of_flake, shortest=2)
        shapes_Lkk = shapes_Lkk.flip(2) if bool(self.uniform(1) < 0.5) else shapes_Lkk
        around_L3 = gaussian(3, self.uniform(self.layers, low=0.41, high=0.6), like=self.x)
        blur_L133 = (around_L3[:, :, None] * around_L3[:, None])[:, None]
        self.shapes_1Lkk = F.conv2d(shapes_Lkk[None], blur_L133, padding=1, groups=self.layers)
        self.base = snowy(self.x, self.pale)

    def start(self) -> Tensor:
        """Few of them bright."""
        return (-self.uniform(len(self.x), self.layers, self.side // 4, self.side // 4) / BUDGET).exp()

    def project(self, z: Tensor) -> Tensor:
        """Regions that are too bright are dimmed."""
        z = z.clamp(1e-9, 1)
        mean = F.avg_pool2d(z, REGION).repeat_interleave(REGION, 2).repeat_interleave(REGION, 3)
        return z * (BUDGET / mean).clamp_max(1)

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """What the last step gives is not projected, as in the released code."""
        moved = z + self.step_size * gradient.sign()
        return moved if step == self.steps - 1 else self.project(moved)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Layers stand on every fourth row and column, each shifted; their snow is added up."""
        bright, rows = z**POWER, torch.zeros(len(z), self.layers, self.side, self.side, dtype=z.dtype, device=z.device)
        for layer in range(4):
            rows[:, layer, ::4, layer::4] = bright[:, layer]
        for layer in range(4, self.layers):
            rows[:, layer, layer - 3 :: 4, ::4] = bright[:, layer]
        return (self.base + self.eps * laid(rows, self.shapes_1Lkk)[:, None]).clamp(0, 1)


class SnowUA(Attack):
    """ImageNet-UA: variables (B, 5, S, S), bounded by eps in ℓ2, all of an image together, at few places.

    Shapes of an image's own. Without snow the image is .15 on its way to a pale grey.

    Args:
        x_BCHW: images.
        flake: side of a shape.
        grid: one place in grid · grid has a flake.
        blur: side of the Gaussian that shapes are blurred by; 1 is none.
        given: as of every attack.
    """

    layers, pale, early = 5, 0.15, 5.0

    def __init__(self, x_BCHW: Tensor, *, flake: int, grid: int, blur: int, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        count = len(self.x) * self.layers
        shapes_BLkk = flakes(self, count, side=flake, shortest=1).view(len(self.x), self.layers, flake, flake)
        turned_B111 = self.uniform(len(self.x), 1, 1, 1) < 0.5
        self.shapes_BLkk = torch.where(turned_B111, shapes_BLkk.flip(3), shapes_BLkk)
        wide_N = self.uniform(count, low=10, high=15)
        if blur > 1:
            self.shapes_BLkk = _blurred(self.shapes_BLkk.flatten(0, 1), blur, wide_N).view_as(self.shapes_BLkk)
        self.mask = self.uniform(len(self.x), self.layers, self.side, self.side) < 1 / grid**2
        self.base = snowy(self.x, self.pale)

    def start(self) -> Tensor:
        """Projected before what has no flake is set to 0, as in the released code."""
        z = (-self.uniform(len(self.x), self.layers, self.side, self.side) / self.early).exp()
        return self.project(z) * self.mask

    def project(self, z: Tensor) -> Tensor:
        """Into the ℓ2 ball; the steps go along the sign nevertheless."""
        return within_l2(z, self.eps)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """The layers' snow is added up."""
        snow_BSS = laid((z * self.mask) ** POWER, self.shapes_BLkk)
        return (self.base + snow_BSS[:, None]).clamp(0, 1)


def flakes(attack: Attack, count: int, *, side: int, shortest: int) -> Tensor:
    """Lines through the middle of squares (count, side, side), from the upper left to the lower right, anti-aliased.

    Args:
        attack: which draws them.
        count: how many.
        side: odd.
        shortest: an end is at least so far from the middle in rows and in columns.
    """
    middle = side // 2
    down_N, across_N = (shortest + attack.whole(count, below=middle - shortest + 1) for _ in range(2))
    width_N = 1 + 2 * torch.bucketize(attack.uniform(count), attack.x.new_tensor([0.6, 0.9]))  # 1, 3 or 5
    long_N, short_N = torch.maximum(down_N, across_N), torch.minimum(down_N, across_N)
    slope_N11 = (short_N / long_N).to(attack.x.dtype)[:, None, None]
    place = torch.arange(middle + 1, device=attack.x.device)
    row, column = torch.meshgrid(place, place, indexing="ij")
    along_Nqq = torch.where((across_N >= down_N)[:, None, None], column, row)
    aside_Nqq = row + column - along_Nqq
    half_N11 = width_N[:, None, None] * (1 + slope_N11).sqrt() / 4
    quarter_Nqq = (1 + half_N11 - (aside_Nqq - slope_N11 * along_Nqq).abs()).clamp(0, 1)
    quarter_Nqq = quarter_Nqq * (along_Nqq <= long_N[:, None, None])
    whole_Nkk = quarter_Nqq.new_zeros(count, side, side)
    whole_Nkk[:, middle:, middle:] = quarter_Nqq
    whole_Nkk[:, : middle + 1, : middle + 1] = quarter_Nqq.flip(1, 2)
    return whole_Nkk


def _blurred(shapes_Nkk: Tensor, size: int, wide_N: Tensor) -> Tensor:
    """Each shape by a Gaussian of its own; beyond its rim it is mirrored."""
    around = gaussian(size, wide_N, like=shapes_Nkk)
    window = (around[:, :, None] * around[:, None])[:, None]
    framed = F.pad(shapes_Nkk[None], [size // 2] * 4, mode="reflect")
    return F.conv2d(framed, window, groups=len(shapes_Nkk))[0]
