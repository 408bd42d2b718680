"""Attacks on the coefficients of JPEG: Kang et al. in ℓ∞, ℓ2 and ℓ1, and ImageNet-UA.

Nothing is rounded, so all that is done to the coefficients is linear: what the variables add is decoded and added to
the image, which needs no coefficients of its own. Letters: B images, S their side, D variables of one, P planes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from advss.attacks.balls import by_image, unit
from advss.unforeseen.attack import Attack, within_l2
from advss.unforeseen.pixels import l1_start, vertex

BLOCK = 8
FURTHEST = 2.0  # a coefficient's variable goes no further in ℓ2 and ℓ1
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)  # quality 50 of the standard
CHROMINANCE = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # the rest is 99
FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))  # of full-range Y Cb Cr


class JPEG(Attack):
    """Kang et al.: variables (B, D) move the quantised coefficients of luminance and of halved chroma by half of them.

    So 1 is half a quantisation step. At eps = 0 an image is what halving its chroma leaves.

    Args:
        x_BCHW: images whose sides are multiples of 16.
        chroma: halve the image's own chroma, as the released code does; without, eps = 0 leaves the image as it is.
        first: the first gradient is taken where the variables are eps times what they are, as in the released code.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, chroma: bool = True, first: bool = True, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.first, self.base = first, _halved(self.x) if chroma else self.x
        tables = [_table(LUMINANCE, like=self.x), *[_table(CHROMINANCE, like=self.x)] * 2]
        self.count = [(self.side // size) ** 2 * BLOCK**2 for size in (BLOCK, 2 * BLOCK, 2 * BLOCK)]
        scales = [t.flatten().repeat(n // BLOCK**2) for t, n in zip(tables, self.count, strict=True)]
        self.scale_D = torch.cat(scales) / 2

    def apply(self, z: Tensor, step: int) -> Tensor:
        """What the variables add is decoded."""
        z = z * self.eps if self.first and step == 0 else z
        light, blue, red = torch.split(z * self.scale_D, self.count, 1)
        halves = [
            _plane(chroma, self.side // 2).repeat_interleave(2, 1).repeat_interleave(2, 2) for chroma in (blue, red)
        ]
        planes_BPSS = torch.stack([_plane(light, self.side), *halves], 1)
        return (self.base + _mixed(TO_RGB, planes_BPSS) / 255).clamp(0, 1)


class JPEGLinf(JPEG):
    """max |v| ≤ eps."""

    def start(self) -> Tensor:
        """Uniform in the ball."""
        return self.eps * self.uniform(len(self.x), sum(self.count), low=-1)


class JPEGL2(JPEG):
    """‖v‖₂ ≤ eps, then |v| ≤ 2; steps along the unit gradient."""

    def start(self) -> Tensor:
        """Uniform in the ball."""
        way = torch.randn(len(self.x), sum(self.count), device=self.x.device, generator=self.generator)
        radius_B = self.eps * self.uniform(len(self.x)) ** (1 / sum(self.count))
        return unit(way.to(self.x.dtype)) * by_image(radius_B, way)

    def project(self, z: Tensor) -> Tensor:
        """First into the ball, then into the box."""
        return within_l2(z, self.eps).clamp(-FURTHEST, FURTHEST)

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """An image without a gradient stays."""
        return self.project(z + self.step_size * unit(gradient))


class JPEGL1(JPEG):
    """‖v‖₁ ≤ eps, by Frank-Wolfe in the box |v| ≤ 2.

    A vertex goes as far as the box leaves room from where the variables are, not from 0, as in the released code.
    """

    def start(self) -> Tensor:
        """Uniform in the ball."""
        return l1_start(self, sum(self.count), self.eps)

    def ascend(self, z: Tensor, gradient: Tensor, step: int) -> Tensor:
        """To the mean of this vertex and those before."""
        room_BD = torch.where(gradient > 0, FURTHEST - z, FURTHEST + z)
        return z + (vertex(gradient, room_BD, self.eps) - z) / (step + 1)


class JPEGUA(Attack):
    """ImageNet-UA: variables (B, 3, S·S) are added to the coefficients, pixels in [0, 1], of full chroma; |z| ≤ eps."""

    def start(self) -> Tensor:
        """Uniform in [0, eps]."""
        return self.eps * self.uniform(len(self.x), 3, self.side**2)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """What the variables add is decoded."""
        return (self.x + _mixed(TO_RGB, _plane(z, self.side))).clamp(0, 1)


def _plane(coefficients: Tensor, side: int) -> Tensor:
    """The plane (..., side, side) of the coefficients (..., side · side) of its blocks, row by row."""
    cells = side // BLOCK
    wave = _cosines(like=coefficients)
    blocks = wave.T @ coefficients.view(*coefficients.shape[:-1], cells, cells, BLOCK, BLOCK) @ wave
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def _cosines(*, like: Tensor) -> Tensor:
    """The orthonormal DCT of length 8 as a matrix: frequency by place."""
    place = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    wave = (math.pi / BLOCK * (place + 0.5) * place[:, None]).cos() * math.sqrt(2 / BLOCK)
    return torch.cat([wave[:1] / math.sqrt(2), wave[1:]])


def _halved(x_BCHW: Tensor) -> Tensor:
    """Images whose chroma is the mean of 2 x 2 pixels."""
    planes = _mixed(FROM_RGB, x_BCHW)
    chroma = torch.nn.functional.avg_pool2d(planes[:, 1:], 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return _mixed(TO_RGB, torch.cat([planes[:, :1], chroma], 1))


def _mixed(matrix: tuple[tuple[float, ...], ...], planes_BPSS: Tensor) -> Tensor:
    """Colours as another space has them, but for what is added to chroma there and taken off it again."""
    return torch.einsum("op,bphw->bohw", planes_BPSS.new_tensor(matrix), planes_BPSS)


def _table(rows: tuple[tuple[int, ...], ...], *, like: Tensor) -> Tensor:
    """A table of 8 x 8 quantisation steps."""
    table = like.new_full((BLOCK, BLOCK), 99)
    table[: len(rows), : len(rows)] = like.new_tensor(rows)
    return table
