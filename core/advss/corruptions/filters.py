"""Filters in float64 that several corruptions share, with the borders that their definitions name.

Letters: B images, C channels, H W their sides, S a side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Callable[[Tensor, int], Tensor]  # of whole places, inside or not, and a side: places inside


def nearest(place: Tensor, side: int) -> Tensor:
    """Beyond the border stands its own pixel."""
    return place.clamp(0, side - 1)


def reflected(place: Tensor, side: int) -> Tensor:
    """The border's pixel stands twice: d c b a | a b c d."""
    place = place % (2 * side)
    return torch.minimum(place, 2 * side - 1 - place)


def reflected_101(place: Tensor, side: int) -> Tensor:
    """The border's pixel stands once: d c b | a b c d."""
    period = max(2 * side - 2, 1)
    place = place % period
    return torch.minimum(place, period - place)


def gaussian(x_BCHW: Tensor, sd: float, *, truncate: float = 4, border: Border = nearest) -> Tensor:
    """Gaussian filter of a standard deviation in pixels, cut after ``truncate`` of them; 0 changes nothing."""
    radius = int(truncate * sd + 0.5)
    if radius == 0:
        return x_BCHW
    place = torch.arange(-radius, radius + 1, dtype=x_BCHW.dtype, device=x_BCHW.device)
    weight = torch.exp(-(place**2) / (2 * sd**2))
    weight = weight / weight.sum()
    return correlate(correlate(x_BCHW, weight[:, None], border), weight[None], border)


def correlate(x_BCHW: Tensor, kernel_hw: Tensor, border: Border) -> Tensor:
    """Correlation of each channel with one kernel of odd sides."""
    x_BCHW = _extended(_extended(x_BCHW, kernel_hw.shape[0] // 2, 2, border), kernel_hw.shape[1] // 2, 3, border)
    flat = x_BCHW.flatten(0, 1)[:, None]
    made = F.conv2d(flat, kernel_hw[None, None])
    return made.reshape(*x_BCHW.shape[:2], *made.shape[2:])


def _extended(x_BCHW: Tensor, by: int, dim: int, border: Border) -> Tensor:
    side = x_BCHW.shape[dim]
    return x_BCHW.index_select(dim, border(torch.arange(-by, side + by, device=x_BCHW.device), side))


def bilinear(x_BCHW: Tensor, row_BHW: Tensor, column_BHW: Tensor, border: Border) -> Tensor:
    """Values at real places, in pixels, interpolated by order 1."""
    (height, width), (top, left) = x_BCHW.shape[2:], (row_BHW.floor(), column_BHW.floor())
    found = torch.zeros((), dtype=x_BCHW.dtype, device=x_BCHW.device)
    for down in (0, 1):
        for right in (0, 1):
            row, column = border(top.long() + down, height), border(left.long() + right, width)
            weight = (1 - (row_BHW - top - down).abs()) * (1 - (column_BHW - left - right).abs())
            place = (row * width + column).flatten(1)[:, None].expand(-1, x_BCHW.shape[1], -1)
            found = found + weight[:, None] * x_BCHW.flatten(2).gather(2, place).reshape(
                *x_BCHW.shape[:2], *row.shape[1:]
            )
    return found
