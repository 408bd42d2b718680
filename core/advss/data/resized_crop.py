"""Random resized crops, each image its own (Szegedy et al. 2015), drawn and resized as torchvision does.

Letters: B images, C channels, T tries, P the side of what is cropped, S of what comes out.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

TRIES = 10
RATIOS = (3 / 4, 4 / 3)  # of width and height


def drawn_boxes(count: int, side: int, area: float, generator: Generator) -> Tensor:
    """Top, left, height and width (4, B) int64 of the crops of squares of a side.

    The share of the area is uniform from ``area`` to 1, and the logarithm of width by height is uniform; what does not
    fit is drawn again, and after ten tries the whole image is taken.
    """
    where = generator.device
    share_TB, ratio_TB, corner_2B = (
        torch.rand(rows, count, generator=generator, device=where) for rows in (TRIES, TRIES, 2)
    )
    pixels_TB = torch.lerp(torch.full_like(share_TB, area), torch.ones_like(share_TB), share_TB) * side**2
    low, high = map(math.log, RATIOS)
    stretch_TB = (low + (high - low) * ratio_TB).exp()
    sides_2TB = torch.stack([pixels_TB / stretch_TB, pixels_TB * stretch_TB]).sqrt().round().long()
    fits_TB = ((sides_2TB >= 1) & (sides_2TB <= side)).all(0)
    first_B = fits_TB.int().argmax(0)  # the first of the largest
    sides_2B = sides_2TB.gather(1, first_B.expand(2, 1, count)).squeeze(1)
    sides_2B = torch.where(fits_TB.any(0), sides_2B, side)
    free_2B = side - sides_2B
    return torch.cat([torch.minimum((corner_2B * (free_2B + 1)).long(), free_2B), sides_2B])


def resized_crops(images_BCPP: Tensor, boxes_4B: Tensor, mirrored_B: Tensor, side: int) -> Tensor:
    """The crops at a side (B, C, S, S), bilinear and antialiased, mirrored where asked; of floats in [0, 1].

    Differentiable in the images; what rounding takes out of [0, 1] is brought back, and its gradient passes.
    """
    top, left, height, width = boxes_4B
    rows_BSP = _weights(top, height, side, images_BCPP.shape[-1])
    columns_BSP = _weights(left, width, side, images_BCPP.shape[-1])
    columns_BSP = torch.where(mirrored_B[:, None, None], columns_BSP.flip(1), columns_BSP)
    crops_BCSS = rows_BSP[:, None] @ images_BCPP @ columns_BSP[:, None].mT
    return crops_BCSS + (crops_BCSS.clamp(0, 1) - crops_BCSS).detach()


def _weights(start_B: Tensor, length_B: Tensor, side: int, whole: int) -> Tensor:
    """What each of the P pixels of a line counts in each of the S that its part from ``start`` is resized to."""
    pixel_P = torch.arange(whole, device=start_B.device)
    scale_B11 = (length_B / side)[:, None, None]
    middle_BS1 = start_B[:, None, None] + (torch.arange(side, device=start_B.device)[:, None] + 0.5) * scale_B11
    weights_BSP = (1 - (pixel_P + 0.5 - middle_BS1).abs() / scale_B11.clamp_min(1)).clamp_min(0)
    inside_BP = (pixel_P >= start_B[:, None]) & (pixel_P < (start_B + length_B)[:, None])
    weights_BSP = weights_BSP * inside_BP[:, None]
    return weights_BSP / weights_BSP.sum(2, keepdim=True)
