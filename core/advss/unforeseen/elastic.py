"""Attacks that bend an image, by a field of flow that is bounded: Kang et al. and ImageNet-UA.

Flow is in units of the grid, in which an image is 2 wide. Letters: B images, S their side, s that of a coarser field.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.unforeseen.attack import Attack, within_l2

WINDOW = {32: 5, 224: 25}  # pixels of the Gaussian, by side
DEVIATION = 3 / 224  # of the side


class Elastic(Attack):
    """Kang et al.: variables (B, 2, S, S), each at most eps pixels, are smoothed by a Gaussian of 3/224 of the side.

    The corners of grid and image are aligned, as they were in the PyTorch that the code was written for: without flow
    the image is itself. Bounded is the flow before it is smoothed.
    """

    def __init__(self, x_BCHW: Tensor, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.eps, self.step_size = self.eps * 2 / self.side, self.step_size * 2 / self.side
        self.window = gaussian(WINDOW[self.side], DEVIATION * self.side, like=self.x)

    def start(self) -> Tensor:
        """Uniform within the bound."""
        return self.eps * self.uniform(len(self.x), 2, self.side, self.side, low=-1)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Bilinear; 0 outside of the image."""
        reach = len(self.window) // 2
        flow = F.pad(z, [reach] * 4, mode="reflect").flatten(0, 1)[:, None]
        flow = F.conv2d(F.conv2d(flow, self.window[None, None, :, None]), self.window[None, None, None])
        return bent(self.x, flow.view_as(z), aligned=True)


class ElasticUA(Attack):
    """ImageNet-UA: variables (B, 2, s, s), bounded by eps in ℓ2, all of an image together, are upsampled.

    Args:
        x_BCHW: images.
        factor: by how much they are upsampled.
        zoom: corners are not aligned, as in the released code, so that the image is (S - 1) / S as large without flow.
        given: as of every attack.
    """

    def __init__(self, x_BCHW: Tensor, *, factor: int, zoom: bool = True, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        self.factor, self.zoom = factor, zoom

    def start(self) -> Tensor:
        """Uniform in [-1, 1], then shortened."""
        coarse = self.side // self.factor
        return self.project(self.uniform(len(self.x), 2, coarse, coarse, low=-1))

    def project(self, z: Tensor) -> Tensor:
        """Into the ℓ2 ball; the steps go along the sign nevertheless."""
        return within_l2(z, self.eps)

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Bicubic upsampling of the flow, bilinear of the image; 0 outside of it."""
        flow = F.interpolate(z, scale_factor=float(self.factor), mode="bicubic", align_corners=False)
        return bent(self.x, flow, aligned=not self.zoom)


def bent(x_BCHW: Tensor, flow_B2SS: Tensor, *, aligned: bool) -> Tensor:
    """Images that are read where the flow points to, along x and y."""
    line = torch.linspace(-1, 1, x_BCHW.shape[-1], device=x_BCHW.device, dtype=x_BCHW.dtype)
    still_2SS = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    grid_BSS2 = (still_2SS + flow_B2SS).permute(0, 2, 3, 1)
    return F.grid_sample(x_BCHW, grid_BSS2, mode="bilinear", padding_mode="zeros", align_corners=aligned)


def gaussian(size: int, deviation: float | Tensor, *, like: Tensor) -> Tensor:
    """A Gaussian at ``size`` places around its middle (..., size), with sum 1; one for each of several deviations."""
    place = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    wide = torch.as_tensor(deviation, device=like.device, dtype=like.dtype)
    high = (-(place**2) / (2 * wide[..., None] ** 2)).exp()
    return high / high.sum(-1, keepdim=True)
