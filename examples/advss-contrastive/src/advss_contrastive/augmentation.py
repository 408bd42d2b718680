"""SimCLR's augmentations (Chen et al. 2020, appendix A), each image its own, in one pass on the images' device.

Resized crop and mirroring are one resampling; then brightness, contrast, saturation and hue in this order, with the
chance .8, and grey with the chance .2. Two things are simpler than in torchvision: the order of the four is not drawn,
and hue turns colours about the grey axis of RGB, not in HSV.

B images, C channels, H W sides.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

STRETCH = math.log(4 / 3) / 2  # of a crop's sides: their ratio is between 3/4 and 4/3
JITTERED, GREY = 0.8, 0.2  # chances
LUMA = (0.299, 0.587, 0.114)


def augmented(x_BCHW: Tensor, generator: Generator, *, crop: float, flip: float, jitter: float) -> Tensor:
    """A view of each image in [0, 1], likewise in [0, 1]; colours change in images of three channels only.

    Args:
        x_BCHW: the images.
        generator: of all draws, on the images' device.
        crop: smallest share of the area that a view shows.
        flip: chance of mirroring.
        jitter: strength of the change of colours.
    """
    x_BCHW = cropped(x_BCHW, generator, smallest=crop, flip=flip)
    if x_BCHW.shape[1] != len(LUMA):
        return x_BCHW
    chosen_B = _uniform(x_BCHW, 0, 1, generator) < JITTERED
    x_BCHW = jittered(x_BCHW, generator, strength=jitter).where(chosen_B, x_BCHW)
    chosen_B = _uniform(x_BCHW, 0, 1, generator) < GREY
    return grey(x_BCHW).where(chosen_B, x_BCHW)


def cropped(x_BCHW: Tensor, generator: Generator, *, smallest: float, flip: float) -> Tensor:
    """A random part of each image, of an area in [smallest, 1], resized to the image's size and mirrored or not."""
    side = _uniform(x_BCHW, smallest, 1, generator).sqrt()
    stretch = _uniform(x_BCHW, -STRETCH, STRETCH, generator).exp().clamp(side, 1 / side)  # so that both sides fit
    width, height = side * stretch, side / stretch
    right = (1 - width) * _uniform(x_BCHW, -1, 1, generator)
    down = (1 - height) * _uniform(x_BCHW, -1, 1, generator)
    sign = torch.where(_uniform(x_BCHW, 0, 1, generator) < flip, -1.0, 1.0)
    zero = torch.zeros_like(width)
    theta_B23 = torch.cat([sign * width, zero, right, zero, height, down], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta_B23, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def jittered(x_BCHW: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Brightness, contrast and saturation times 1 ± strength, and hue turned by up to strength/4 of a circle."""
    brightness, contrast, saturation = (_uniform(x_BCHW, 1 - strength, 1 + strength, generator) for _ in range(3))
    x_BCHW = (x_BCHW * brightness).clamp(0, 1)
    x_BCHW = grey(x_BCHW).mean((2, 3), keepdim=True).lerp(x_BCHW, contrast).clamp(0, 1)
    x_BCHW = grey(x_BCHW).lerp(x_BCHW, saturation).clamp(0, 1)
    return turned(x_BCHW, _uniform(x_BCHW, -strength / 4, strength / 4, generator)).clamp(0, 1)


def grey(x_BCHW: Tensor) -> Tensor:
    """Each pixel's luma, in every channel."""
    luma_C11 = x_BCHW.new_tensor(LUMA).view(-1, 1, 1)
    return (x_BCHW * luma_C11).sum(1, keepdim=True).expand_as(x_BCHW)


def turned(x_BCHW: Tensor, turn_B111: Tensor) -> Tensor:
    """Colours turned about the grey axis; a third of a turn makes red green, green blue and blue red."""
    angle = 2 * math.pi * turn_B111
    mean = x_BCHW.mean(1, keepdim=True)
    across = (x_BCHW.roll(1, 1) - x_BCHW.roll(-1, 1)) / math.sqrt(3)  # Rodrigues: the axis times the colour
    return mean + angle.cos() * (x_BCHW - mean) + angle.sin() * across


def _uniform(like: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """A draw for each image, (B, 1, 1, 1)."""
    return like.new_empty((len(like), 1, 1, 1)).uniform_(low, high, generator=generator)
