"""Attacks of ImageNet-UA that move pixels: large pixels that are blended in, and lines that slip sideways.

Letters: B images, S their side, n large pixels or lines along a side, p the side of a large pixel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.attacks.balls import unit
from advss.unforeseen.attack import Attack, within_l2


class Pixel(Attack):
    """Variables (B, 3, n, n) in [0, 1], bounded by eps in ℓ2: how far each block is its upper left pixel's colour.

    Steps go along the unit gradient.

    Args:
        x_BCHW: images whose sides are multiples of ``size``.
        size: p.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, size: int, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.size = size

    def start(self) -> Tensor:
        """Of a length that is one draw for the chunk, uniform in [0, eps]."""
        count = self.side // self.size
        return (self.eps * self.uniform(1) * unit(self.uniform(len(self.x), 3, count, count))).clamp(0, 1)

    def project(self, z: Tensor) -> Tensor:
        """First into the ball, then into [0, 1]."""
        return within_l2(z, self.eps).clamp(0, 1)

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """An image without a gradient stays."""
        return self.project(z + self.step_size * unit(gradient))

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Each pixel is blended with the upper left one of its block."""
        share, large = _enlarged(z, self.size), _enlarged(self.x[..., :: self.size, :: self.size], self.size)
        return (self.x * (1 - share) + large * share).clamp(0, 1)


class Glitch(Attack):
    """Variables (B, 3, n), each |z| ≤ eps: how far each line of each channel slips, in halves of the side.

    Args:
        x_BCHW: images whose sides are multiples of ``lines``.
        lines: n.
        shift: lines that do not slip are moved and blurred by half a pixel, as in the released code.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, lines: int, shift: bool = True, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.lines = lines
        place = torch.arange(self.side, device=self.x.device, dtype=self.x.dtype) + (0 if shift else 0.5)
        self.place_S = 2 * place / self.side - 1

    def start(self) -> Tensor:
        """Uniform in [0, eps]."""
        return self.eps * self.uniform(len(self.x), 3, self.lines)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Bilinear; what slips out comes in again, mirrored."""
        slip_NS1 = z.flatten(0, 1).repeat_interleave(self.side // self.lines, 1)[:, :, None]
        across_NSS = self.place_S + slip_NS1
        grid_NSS2 = torch.stack([across_NSS, self.place_S[:, None].expand_as(across_NSS)], 3)
        planes_N1SS = self.x.flatten(0, 1)[:, None]
        moved = F.grid_sample(planes_N1SS, grid_NSS2, mode="bilinear", padding_mode="reflection", align_corners=False)
        return moved.view_as(self.x)


def _enlarged(z: Tensor, size: int) -> Tensor:
    return z.repeat_interleave(size, 2).repeat_interleave(size, 3)
