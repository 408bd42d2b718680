"""Crops and flips, each image its own.

Letters: B images, C channels, S the side, P the side with padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from advss.errors import UsageError


@dataclass(frozen=True)
class Augment:
    """What is drawn anew for each image.

    Raises:
        UsageError: ``crop`` is negative, ``area`` is no share, or both are asked for.
    """

    crop: int = 0  # zero padding in pixels on every side, from which a square of the old side is cropped; 0: none
    flip: bool = False  # mirrored left to right, half of the time
    area: float = 0.0  # least share of what is stored that a random resized crop shows; 0: none

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"crop {self.crop}: expected a padding in pixels, 0 or more")
        if not 0 <= self.area < 1:
            raise UsageError(f"area {self.area}: expected a share of the area, 0 or more and below 1")
        if self.area and self.crop:
            raise UsageError(f"area {self.area} and crop {self.crop}: an image is cropped in one way")

    def __bool__(self) -> bool:
        return self.crop > 0 or self.flip or self.area > 0


def drawn(augment: Augment, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns (2, B) int64 where each crop begins, 0 to twice the padding, and whether it is mirrored (B,)."""
    where = generator.device
    corners_2B = torch.randint(0, 2 * augment.crop + 1, (2, count), generator=generator, device=where)
    if not augment.flip:
        return corners_2B, torch.zeros(count, dtype=torch.bool, device=where)
    return corners_2B, torch.randint(0, 2, (count,), generator=generator, device=where).bool()


def augmented(pixels_BCSS: Tensor, corners_2B: Tensor, mirrored_B: Tensor, *, padding: int) -> Tensor:
    """The images padded by zeros, cropped at ``corners_2B`` to their old side, then mirrored where asked; any dtype."""
    B, C, S, _ = pixels_BCSS.shape
    P = S + 2 * padding
    padded_BCN = F.pad(pixels_BCSS, (padding,) * 4).view(B, C, P * P)
    step_S = torch.arange(S, device=pixels_BCSS.device)
    column_BS = corners_2B[1, :, None] + torch.where(mirrored_B[:, None], step_S.flip(0), step_S)
    row_BS = corners_2B[0, :, None] + step_S
    source_B1N = (row_BS[:, :, None] * P + column_BS[:, None, :]).view(B, 1, S * S)
    return padded_BCN.gather(2, source_B1N.expand(B, C, S * S)).view(B, C, S, S)
