"""An attack of ImageNet-UA: coloured discs, triangles and squares with rims, whose colours are ascended.

Letters: B images, S their side, N shapes of one, P corners of a polygon.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.unforeseen.attack import Attack

SATURATION, VALUE = 0.7, 0.8  # the least of a colour
RIM = 5  # pixels: a rim is what a square of this side around the shape's pixels reaches


class Kaleidoscope(Attack):
    """Variables (B, 3 N + S·S), each |z| ≤ eps: what is added to the shapes' colours, and the grey of their rims.

    Without them the shapes are there in their first colours, the rims black. Which pixels lie within a triangle or a
    square is asked of the pixels' middles; the released code converts lines, and differs by pixels at their edges.

    Args:
        x_BCHW: images.
        shapes: N.
        size: diameter of a disc, side of a square.
        seen: how much of the image is seen through a shape.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, shapes: int, size: int, seen: float, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.counts = [3 * shapes, self.side**2]
        inside_BNSS = self._shapes(len(self.x), shapes, size)
        around = F.max_pool2d(inside_BNSS.to(self.x.dtype), RIM, stride=1, padding=RIM // 2) > 0
        self.rim_B1SS = (around & ~inside_BNSS).any(1, keepdim=True)
        self.inside_BNSS = inside_BNSS.to(self.x.dtype)
        self.through = self.x * (1 - (1 - seen) * inside_BNSS.any(1, keepdim=True).to(self.x.dtype))
        self.colour_BN3 = self._colours(len(self.x), shapes)

    def start(self) -> Tensor:
        """Uniform in [-eps, eps], of the rims in [0, eps]."""
        colours, rims = (self.uniform(len(self.x), count) for count in self.counts)
        return self.eps * torch.cat([2 * colours - 1, rims], 1)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Colours of shapes that overlap add up; a rim covers everything."""
        added, grey = torch.split(z, self.counts, 1)
        colour_BN3 = self.colour_BN3 + added.view_as(self.colour_BN3)
        filled = self.through + torch.einsum("bnhw,bnc->bchw", self.inside_BNSS, colour_BN3)
        return torch.where(self.rim_B1SS, grey.abs().view(-1, 1, self.side, self.side), filled).clamp(0, 1)

    def _shapes(self, images: int, shapes: int, size: int) -> Tensor:
        """Which pixels each shape holds (B, N, S, S), bool: a disc, a triangle or a square, each as likely."""
        draw, kind = (images, shapes), self.whole(images, shapes, below=3)[..., None, None]
        middle = self.whole(*draw, 2, below=self.side)
        place = torch.arange(self.side, device=self.x.device)
        y, x = torch.meshgrid(place, place, indexing="ij")
        disc = (x - middle[..., :1, None]) ** 2 + (y - middle[..., 1:, None]) ** 2 < (size / 2) ** 2
        edge = int(1.5 * size / math.sin(math.pi / 3))
        triangle = self._polygon(draw, edge, [(0, 0), (1, 0), (0.5, math.sin(math.pi / 3))])
        square = self._polygon(draw, size, [(0, 0), (1, 0), (1, 1), (0, 1)])
        return torch.where(kind == 0, disc, torch.where(kind == 1, triangle, square))

    def _polygon(self, draw: tuple[int, int], edge: int, form: list[tuple[float, float]]) -> Tensor:
        """Convex forms of an edge, turned at random; the first corner stands ``edge`` and a pixel off the border."""
        first = edge + 1 + self.whole(*draw, 2, below=self.side - 2 * edge - 2)
        angle = 2 * math.pi * self.uniform(*draw)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).view(*draw, 2, 2)
        corner_BNP2 = (first[..., None, :] + edge * self.x.new_tensor(form) @ turn + 1e-4).trunc()
        return _within(corner_BNP2, self.side)

    def _colours(self, images: int, shapes: int) -> Tensor:
        """Bright and full colours (B, N, 3), of hue, saturation and value."""
        hue, saturation, value = (self.uniform(images, shapes, 1) for _ in range(3))
        saturation, value = SATURATION + (1 - SATURATION) * saturation, VALUE + (1 - VALUE) * value
        turn = (6 * hue + self.x.new_tensor([5, 3, 1])) % 6
        return value * (1 - saturation * torch.minimum(turn, 4 - turn).clamp(0, 1))


def _within(corner_BNP2: Tensor, side: int) -> Tensor:
    """Which pixels (B, N, S, S) have their middles within convex polygons, whichever way round their corners go."""
    place = torch.arange(side, device=corner_BNP2.device, dtype=corner_BNP2.dtype) + 0.5
    y, x = torch.meshgrid(place, place, indexing="ij")
    left, right = torch.ones((), dtype=torch.bool, device=y.device), torch.ones((), dtype=torch.bool, device=y.device)
    for start, end in zip(corner_BNP2.unbind(2), corner_BNP2.roll(-1, 2).unbind(2), strict=True):
        along, first = (end - start)[..., None, None], start[..., None, None]
        turn = along[..., 0, :, :] * (y - first[..., 1, :, :]) - along[..., 1, :, :] * (x - first[..., 0, :, :])
        left, right = left & (turn > 0), right & (turn < 0)
    return left | right
