"""Fifteen corruptions by their definitions, in float64 on the images' device; results are truncated to 8 bits.

Source: Hendrycks and Dietterich (2019), as published in github.com/hendrycks/robustness. JPEG and pixelate are of
Pillow, on the CPU. Letters: B images, C channels, H W their sides; c are the numbers of a table.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from advss.corruptions.filters import bilinear, correlate, gaussian, reflected, reflected_101
from advss.corruptions.tables import table_of

Numbers = Sequence[float]
Made = Callable[[Tensor, Numbers, Generator], Tensor]  # of images (B, 3, H, W) in [0, 1], float64


def corrupt(kind: str, severity: int, x_BCHW: Tensor, generator: Generator) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] corrupted, of the type they had; values are multiples of 1/255.

    Args:
        kind: one of ``KINDS``.
        severity: 1 to 5.
        x_BCHW: images, square.
        generator: of all that is drawn, on their device.

    Raises:
        ValueError: images are not square, or have no three channels.
    """
    if x_BCHW.shape[1] != 3 or x_BCHW.shape[2] != x_BCHW.shape[3]:
        raise ValueError(f"images must be square with 3 channels, got {tuple(x_BCHW.shape[1:])}")
    pixels = (x_BCHW.double().contiguous() * 255).round() / 255  # 8 bits; draws hang on no memory layout
    made = KINDS[kind](pixels, table_of(x_BCHW.shape[-1])[kind][severity - 1], generator)
    return (_eight_bits(made) / 255).to(x_BCHW.dtype)


def _eight_bits(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).floor()


def _normal(x: Tensor, generator: Generator) -> Tensor:
    return torch.empty_like(x).normal_(generator=generator)


def _uniform(shape: Sequence[int], x: Tensor, generator: Generator) -> Tensor:
    return torch.empty(*shape, dtype=x.dtype, device=x.device).uniform_(generator=generator)


def _gaussian_noise(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    return x + c[0] * _normal(x, generator)


def _shot_noise(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    return torch.poisson(x * c[0], generator=generator) / c[0]


def _impulse_noise(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    struck, salt = _uniform(x.shape, x, generator) <= c[0], _uniform(x.shape, x, generator) <= 0.5
    return x.where(~struck, salt.to(x.dtype))


def _speckle_noise(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    return x + x * c[0] * _normal(x, generator)


def _gaussian_blur(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    return gaussian(x, c[0])


def _glass_blur(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    """Each pixel takes the value of one near it, from the last on: the published swap of two views is a copy."""
    blurred, side = _eight_bits(gaussian(x, c[0])) / 255, x.shape[-1]
    reach, times = int(c[1]), int(c[2])
    places = range(side - reach, reach, -1)
    shape = (times, max(len(places), 0) ** 2, len(x), 2)
    offset = torch.randint(-reach, reach, shape, generator=generator, device=x.device)
    source_BS = torch.arange(side * side, device=x.device).repeat(len(x), 1)
    for offset_SB2 in offset:
        steps = iter(offset_SB2[..., 1] * side + offset_SB2[..., 0])
        for row in places:
            for column in places:
                own = row * side + column
                source_BS[:, own] = source_BS.gather(1, (own + next(steps))[:, None])[:, 0]
    taken = blurred.flatten(2).gather(2, source_BS[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)
    return gaussian(taken, c[0])


def _defocus_blur(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    radius, sd = c
    reach, rim = (8, 1) if radius <= 8 else (int(radius), 2)
    place = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    disc = (place[:, None] ** 2 + place[None] ** 2 <= radius**2).to(x.dtype)
    weight = torch.exp(-(torch.arange(-rim, rim + 1, dtype=x.dtype, device=x.device) ** 2) / (2 * sd**2))
    soft = correlate((disc / disc.sum())[None, None], torch.outer(weight, weight) / weight.sum() ** 2, reflected_101)
    return correlate(x, soft[0, 0], reflected_101)


def _zoom_blur(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    side, total = x.shape[-1], x.clone()
    factors = np.arange(1, *c)
    for factor in factors:
        cut = math.ceil(side / factor)
        top, wide = (side - cut) // 2, round(cut * factor)
        inner = x[:, :, top : top + cut, top : top + cut]
        large = F.interpolate(inner, size=(wide, wide), mode="bilinear", align_corners=True)
        trim = (wide - side) // 2
        total += large[:, :, trim : trim + side, trim : trim + side]
    return total / (len(factors) + 1)


def _fog(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    side, most = x.shape[-1], x.amax((1, 2, 3), keepdim=True)
    size = next(size for size in (32, 64, 256, 2 ** math.ceil(math.log2(side))) if size >= side)
    return (x + c[0] * _plasma(x, size, c[1], generator)[:, None, :side, :side]) * most / (most + c[0])


def _plasma(x: Tensor, size: int, decay: float, generator: Generator) -> Tensor:
    """Heights (B, size, size) in [0, 1] by diamond-square on a torus."""
    map_BSS, step, wibble = x.new_zeros(len(x), size, size), size, 100.0

    def near(total: Tensor) -> Tensor:  # the published amplitude is the square of wibble
        return total / 4 + wibble**2 * (2 * _uniform(total.shape, x, generator) - 1)

    while step >= 2:
        half = step // 2
        corner = map_BSS[:, ::step, ::step].clone()
        total = corner + corner.roll(-1, 1)
        centre = near(total + total.roll(-1, 2))
        map_BSS[:, half::step, half::step] = centre
        map_BSS[:, ::step, half::step] = near(centre + centre.roll(1, 1) + corner + corner.roll(-1, 2))
        map_BSS[:, half::step, ::step] = near(centre + centre.roll(1, 2) + corner + corner.roll(-1, 1))
        step, wibble = half, wibble / decay
    map_BSS -= map_BSS.amin((1, 2), keepdim=True)
    return map_BSS / map_BSS.amax((1, 2), keepdim=True)


def _brightness(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    value = x.amax(1, keepdim=True)
    more = (value + c[0]).clamp(0, 1)
    return torch.where(value > 0, x / value.where(value > 0, 1) * more, more)  # hue and saturation stay


def _saturate(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    value, span = x.amax(1, keepdim=True), x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    saturation = span / value.where(value > 0, 1)
    more = (saturation * c[0] + c[1]).clamp(0, 1)
    red = x.new_tensor([0, 1, 1])[:, None, None]  # the hue of a grey pixel is 0
    hue = torch.where(span > 0, (value - x) / span.where(span > 0, 1), red)
    return value * (1 - more * hue)


def _contrast(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * c[0] + mean


def _elastic_transform(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    side, (length, sd, shift) = x.shape[-1], (number * x.shape[-1] for number in c)
    centre, third = side // 2, side // 3
    corners = [[centre + third] * 2, [centre + third, centre - third], [centre - third] * 2]  # x and y
    before_32 = x.new_tensor(corners)
    after_B32 = before_32 + shift * (2 * _uniform((len(x), 3, 2), x, generator) - 1)
    # where each pixel of the result lies before: affine, from the three points moved back
    back_B32 = torch.linalg.solve(F.pad(after_B32, (0, 1), value=1), before_32.expand(len(x), 3, 2))
    line = torch.arange(side, dtype=x.dtype, device=x.device)
    row_HW, column_HW = torch.meshgrid(line, line, indexing="ij")
    here = torch.stack([column_HW, row_HW, torch.ones_like(row_HW)], -1)
    there = torch.einsum("hwk,bkd->bhwd", here, back_B32)
    moved = bilinear(x, there[..., 1], there[..., 0], reflected_101)
    field = 2 * _uniform((len(x), 2, side, side), x, generator) - 1
    field = length * gaussian(field, sd, truncate=3, border=reflected)
    return bilinear(moved, row_HW + field[:, 1], column_HW + field[:, 0], reflected)


def _pixelate(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    def of(image: Image.Image) -> Image.Image:
        small = max(int(image.width * c[0]), 1)
        box = Image.Resampling.BOX
        return image.resize((small, small), box).resize(image.size, box)

    return _by_pillow(x, of)


def _jpeg_compression(x: Tensor, c: Numbers, generator: Generator) -> Tensor:
    def of(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(c[0]))
        return Image.open(file)

    return _by_pillow(x, of)


def _by_pillow(x: Tensor, of: Callable[[Image.Image], Image.Image]) -> Tensor:
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([np.asarray(of(Image.fromarray(image))) for image in pixels])
    # a hair above the level, so that it is not truncated to the one below
    return (torch.from_numpy(made).permute(0, 3, 1, 2).to(x) + 1e-6) / 255


KINDS: Mapping[str, Made] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "gaussian_blur": _gaussian_blur,
    "glass_blur": _glass_blur,
    "defocus_blur": _defocus_blur,
    "zoom_blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturate": _saturate,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
