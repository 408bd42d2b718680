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
        kind, middle = self.whole(images, shapes, 1, 1, below=3), self.whole(images, shapes, 2, below=self.side)
        edge = int(1.5 * size / math.sin(math.pi / 3))
        triangle = self._corners((images, shapes), edge, [(0, 0), (1, 0), (0.5, math.sin(math.pi / 3))])
        square = self._corners((images, shapes), size, [(0, 0), (1, 0), (1, 1), (0, 1)])
        found = list[Tensor]()
        for n in range(shapes):  # one after another, as all at once take many times the memory of what is returned
            sides = torch.where(kind[:, n] == 1, _within(triangle[:, n], self.side), _within(square[:, n], self.side))
            found.append(torch.where(kind[:, n] == 0, _disc(middle[:, n], size / 2, self.side), sides))
        return torch.stack(found, 1)

    def _corners(self, draw: tuple[int, int], edge: int, form: list[tuple[float, float]]) -> Tensor:
        """Forms (B, N, P, 2) of an edge, turned at random; the first corner stands off the border by more than that."""
        first = edge + 1 + self.whole(*draw, 2, below=self.side - 2 * edge - 2)
        angle = 2 * math.pi * self.uniform(*draw)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).view(*draw, 2, 2)
        return (first[..., None, :] + edge * self.x.new_tensor(form) @ turn).trunc()

    def _colours(self, images: int, shapes: int) -> Tensor:
        """Bright and full colours (B, N, 3), of hue, saturation and value."""
        hue, saturation, value = (self.uniform(images, shapes, 1) for _ in range(3))
        saturation, value = SATURATION + (1 - SATURATION) * saturation, VALUE + (1 - VALUE) * value
        turn = (6 * hue + self.x.new_tensor([5, 3, 1])) % 6
        return value * (1 - saturation * torch.minimum(turn, 4 - turn).clamp(0, 1))


def _disc(middle_B2: Tensor, radius: float, side: int) -> Tensor:
    """Which pixels (B, S, S) are nearer to a middle than the radius."""
    place = torch.arange(side, device=middle_B2.device)
    across, down = (place - middle_B2[:, axis, None] for axis in (0, 1))
    return down[:, :, None] ** 2 + across[:, None] ** 2 < radius**2


def _within(corner_BP2: Tensor, side: int) -> Tensor:
    """Which pixels (B, S, S) have their middles within convex polygons, whichever way round their corners go."""
    place = torch.arange(side, device=corner_BP2.device, dtype=corner_BP2.dtype) + 0.5
    turns = []
    for start, end in zip(corner_BP2.unbind(1), corner_BP2.roll(-1, 1).unbind(1), strict=True):
        x, y = start[:, :, None, None].unbind(1)
        across, down = (end - start)[:, :, None, None].unbind(1)
        turns.append(across * (place[:, None] - y) - down * (place - x))
    turn_BPSS = torch.stack(turns, 1)
    return (turn_BPSS > 0).all(1) | (turn_BPSS < 0).all(1)
