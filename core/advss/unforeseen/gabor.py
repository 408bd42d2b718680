"""Attacks by Gabor noise, waves under a Gaussian at random places: Kang et al. and ImageNet-UA.

Letters: B images, S their side, k the side of a kernel, N waves of one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from advss.attacks.balls import by_image
from advss.unforeseen.attack import Attack, laid

KERNEL = 23
FREQUENCY = (3.0, KERNEL / 4)  # periods across a kernel


class Gabor(Attack):
    """Kang et al.: variables (B, 1, S, S), each |z| ≤ 1, at 1 of 14 places; their noise is stretched to [0, eps].

    Args:
        x_BCHW: images.
        swapped: steps change the other 13 places, and those that were drawn are 0 from then on, as in the released
            code.
        given: as of every attack; eps is in pixels of 0...255.
    """

    share, most_waves = 1 / 14, 10

    def __init__(self, x_BCHW: Tensor, *, swapped: bool = False, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        count = len(self.x)
        waves_B = 1 + self.whole(count, below=self.most_waves)
        wide_B, angle_B = self.uniform(count, low=0.1, high=0.4), math.pi * self.uniform(count)
        frequency_B = self.uniform(count, low=FREQUENCY[0], high=FREQUENCY[1])
        place_N = torch.arange(self.most_waves, device=self.x.device)
        angle_BN = angle_B[:, None] + math.pi * place_N / waves_B[:, None]
        waves_BNkk = _waves(angle_BN, frequency_B[:, None], wide_B[:, None])
        chosen_BN11 = (place_N < waves_B[:, None])[:, :, None, None]
        self.kernel_B1kk = (waves_BNkk * chosen_BN11).sum(1, keepdim=True)
        self.drawn = self.uniform(count, 1, self.side, self.side) < self.share
        self.free = ~self.drawn if swapped else self.drawn

    def start(self) -> Tensor:
        """Uniform in [-1, 1] at the places that were drawn."""
        return self.uniform(len(self.x), 1, self.side, self.side, low=-1) * self.drawn

    def project(self, z: Tensor) -> Tensor:
        """All other places are 0."""
        return z.clamp(-1, 1) * self.free

    def apply(self, z: Tensor, step: int) -> Tensor:
        """The noise is never below 0."""
        noise = laid(z, self.kernel_B1kk)[:, None]
        return (self.x + self.eps / 255 * _evened(noise)).clamp(0, 1)


class GaborUA(Attack):
    """ImageNet-UA: variables (B, 3, S, S), each |z| ≤ eps, at a tenth of the places of each channel.

    One kernel for the whole chunk, turned anew at every step and for the last image.
    """

    share, wide = 0.1, 3.0

    def __init__(self, x_BCHW: Tensor, *, waves: int, **given: Any) -> None:
        super().__init__(x_BCHW, **given)
        images = self.steps + 1
        angle_I, frequency_I = self.uniform(images), self.uniform(images, low=FREQUENCY[0], high=FREQUENCY[1])
        place_N = torch.arange(waves, device=self.x.device)
        angle_IN = math.pi * (angle_I[:, None] + place_N / waves)
        kernels = _waves(angle_IN, frequency_I[:, None], torch.full_like(frequency_I, self.wide)[:, None])
        self.kernel_Ikk = kernels[:, 0] + kernels[:, 1:].sum(1) / waves  # the first wave is not divided
        self.mask = self.uniform(*self.x.shape) < self.share

    def start(self) -> Tensor:
        """The same for all places of the chunk, uniform in [0, eps]."""
        return self.eps * self.uniform(1) * self.mask

    def apply(self, z: Tensor, step: int) -> Tensor:
        """Noise of each channel's own."""
        noise = laid((z * self.mask).flatten(0, 1)[:, None], self.kernel_Ikk[step][None, None])
        return (self.x + noise.view_as(self.x)).clamp(0, 1)


def _waves(angle: Tensor, frequency: Tensor, wide: Tensor) -> Tensor:
    """Kernels (..., k, k), each a cosine along an angle under a Gaussian."""
    line = torch.linspace(-0.5, 0.5, KERNEL, device=angle.device, dtype=angle.dtype)
    y, x = torch.meshgrid(line, line, indexing="ij")
    angle, frequency, wide = (value[..., None, None] for value in (angle, frequency, wide))
    along = x * angle.cos() + y * angle.sin()
    return (-(x**2 + y**2) / (2 * (wide + 0.001) ** 2)).exp() * (2 * math.pi * frequency * along).cos()


def _evened(noise: Tensor) -> Tensor:
    """Noise whose values are nearly of one size, stretched to [0, 1] by image; neither has a gradient of its own."""
    mean_B = noise.detach().flatten(1).mean(1)
    apart = noise - by_image(mean_B, noise)
    size = apart.detach().abs()
    size = size / by_image(size.flatten(1).amax(1).clamp_min(1e-12), size)
    evened = by_image(mean_B, noise) + apart * (1.001 / (0.001 + size))
    low_B, high_B = evened.detach().flatten(1).aminmax(dim=1)
    return (evened - by_image(low_B, noise)) / by_image((high_B - low_B).clamp_min(1e-12), noise)
