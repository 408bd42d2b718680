"""Each corruption against its definition, computed image by image with numpy, scipy, Pillow and colorsys."""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Generator

from advss.corruptions import KINDS, SEVERITIES, corrupt, table_of

Array = np.ndarray[Any, np.dtype[Any]]
SIDES = (32, 64, 80)  # one of each table; the third is ImageNet's, on images that tests can afford


def _image(side: int) -> Array:
    smooth = ndimage.gaussian_filter(np.random.default_rng(side).random((side, side, 3)), (2, 2, 0))
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    smooth[:2, :2] = 0, 0, 0
    smooth[2:4, :2] = 90, 90, 90
    return np.asarray(smooth)


def _made(kind: str, severity: int, side: int, seed: int = 0) -> Array:
    x = torch.from_numpy(_image(side)).permute(2, 0, 1)[None].float() / 255
    found = corrupt(kind, severity, x, torch.Generator().manual_seed(seed)) * 255
    assert torch.allclose(found, found.round(), atol=1e-3)
    return found[0].permute(1, 2, 0).round().numpy()


def _gauss(x: Array, sd: float) -> Array:
    return ndimage.gaussian_filter(x, (sd, sd, 0), mode="nearest", truncate=4) if sd else x


def _disc(radius: float, sd: float) -> Array:
    reach, rim = (8, 1) if radius <= 8 else (int(radius), 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= radius**2) / np.sum(x**2 + y**2 <= radius**2)
    line = np.exp(-(np.arange(-rim, rim + 1) ** 2) / (2 * sd**2))
    return np.asarray(ndimage.correlate(disc, np.outer(line, line) / line.sum() ** 2, mode="mirror"))


def _defocus(x: Array, c: tuple[float, ...]) -> Array:
    return np.stack([ndimage.correlate(x[..., k], _disc(*c), mode="mirror") for k in range(3)], -1)


def _zoom(x: Array, c: tuple[float, ...]) -> Array:
    side, out, factors = len(x), np.zeros_like(x), np.arange(1, *c)
    for f in factors:
        n = math.ceil(side / f)
        top = (side - n) // 2
        large = ndimage.zoom(x[top : top + n, top : top + n], (f, f, 1), order=1)
        trim = (len(large) - side) // 2
        out += large[trim : trim + side, trim : trim + side]
    return (x + out) / (len(factors) + 1)


def _hsv(of: Callable[[float, float, float], tuple[float, float, float]]) -> Callable[[Array], Array]:
    def turned(pixel: Array) -> Array:
        return np.array(colorsys.hsv_to_rgb(*of(*colorsys.rgb_to_hsv(*pixel))))

    return lambda x: np.apply_along_axis(turned, 2, x)


def _pillow(x: Array, of: Callable[[Image.Image], Image.Image]) -> Array:
    return (np.asarray(of(Image.fromarray(np.uint8(np.round(x * 255))))) + 1e-6) / 255


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _pixelate(image: Image.Image, c: float) -> Image.Image:
    small = int(image.width * c)
    return image.resize((small, small), Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def _one(v: float) -> float:
    return min(max(v, 0), 1)


DETERMINED: dict[str, Callable[[Array, tuple[float, ...]], Array]] = {
    "gaussian_blur": lambda x, c: _gauss(x, c[0]),
    "defocus_blur": _defocus,
    "zoom_blur": _zoom,
    "brightness": lambda x, c: _hsv(lambda h, s, v: (h, s, _one(v + c[0])))(x),
    "saturate": lambda x, c: _hsv(lambda h, s, v: (h, _one(s * c[0] + c[1]), v))(x),
    "contrast": lambda x, c: (x - x.mean((0, 1))) * c[0] + x.mean((0, 1)),
    "pixelate": lambda x, c: _pillow(x, lambda image: _pixelate(image, c[0])),
    "jpeg_compression": lambda x, c: _pillow(x, lambda image: _jpeg(image, c[0])),
}


def _alike(made: Array, definition: Array) -> None:
    """The same levels, but where the last digit of float64 decides which: one level, in few places."""
    levels = np.floor(np.clip(definition, 0, 1) * 255)
    apart = np.abs(made - levels)
    near = np.abs(definition * 255 - np.round(definition * 255)) < 1e-9
    assert apart.max() <= 1
    assert not (apart.astype(bool) & ~near).any()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", DETERMINED)
def test_what_draws_nothing_is_its_definition(kind: str, side: int) -> None:
    for severity in SEVERITIES:
        definition = DETERMINED[kind](_image(side) / 255.0, table_of(side)[kind][severity - 1])
        _alike(_made(kind, severity, side), definition)


def _normal(side: int) -> Array:
    shape = (1, 3, side, side)
    drawn = torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(0))
    return np.asarray(drawn[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("side", SIDES)
def test_normal_noise_is_added_or_multiplied(side: int) -> None:
    x = _image(side) / 255.0
    for severity in SEVERITIES:
        (added,) = table_of(side)["gaussian_noise"][severity - 1]
        (times,) = table_of(side)["speckle_noise"][severity - 1]
        _alike(_made("gaussian_noise", severity, side), x + added * _normal(side))
        _alike(_made("speckle_noise", severity, side), x + x * times * _normal(side))


@pytest.mark.parametrize("side", SIDES)
def test_shot_noise_has_the_moments_of_poisson_counts(side: int) -> None:
    grey = torch.full((1, 3, side, side), 51 / 255)
    for severity in SEVERITIES:
        (photons,) = table_of(side)["shot_noise"][severity - 1]
        found = corrupt("shot_noise", severity, grey, torch.Generator().manual_seed(0)).double()
        levels = np.minimum(np.floor(np.arange(2000) / photons * 255), 255) / 255
        counts = np.arange(2000)
        logs = counts * np.log(0.2 * photons) - 0.2 * photons - np.array([math.lgamma(n + 1) for n in counts])
        mean = float((np.exp(logs) * levels).sum())
        sd = math.sqrt(float((np.exp(logs) * (levels - mean) ** 2).sum()))
        assert abs(float(found.mean()) - mean) < 5 * sd / math.sqrt(found.numel())
        assert float(found.std()) == pytest.approx(sd, rel=0.1)


@pytest.mark.parametrize("side", SIDES)
def test_impulse_noise_strikes_its_share_half_of_it_white(side: int) -> None:
    grey = torch.full((4, 3, side, side), 51 / 255)
    for severity in SEVERITIES:
        (amount,) = table_of(side)["impulse_noise"][severity - 1]
        found = corrupt("impulse_noise", severity, grey, torch.Generator().manual_seed(0))
        white, black, count = int((found == 1).sum()), int((found == 0).sum()), found.numel()
        for struck in (white, black):
            assert abs(struck - count * amount / 2) < 5 * math.sqrt(count * amount / 2)
        assert white + black + int(((found - 0.2).abs() < 1e-6).sum()) == count


@pytest.mark.parametrize("side", SIDES)
def test_glass_blur_copies_pixel_after_pixel(side: int) -> None:
    for severity in SEVERITIES:
        sd, reach, times = table_of(side)["glass_blur"][severity - 1]
        d, n = int(reach), int(times)
        x = np.floor(np.clip(_gauss(_image(side) / 255.0, sd), 0, 1) * 255) / 255
        shape = (n, (side - 2 * d) ** 2, 1, 2)
        drawn = torch.randint(-d, d, shape, generator=torch.Generator().manual_seed(0)).numpy()
        for turn in range(n):
            offsets = iter(drawn[turn, :, 0])
            for h in range(side - d, d, -1):
                for w in range(side - d, d, -1):
                    dx, dy = next(offsets)
                    x[h, w] = x[h + dy, w + dx]
        _alike(_made("glass_blur", severity, side), _gauss(x, sd))


def _plasma(size: int, decay: float, draws: Generator) -> Array:
    m, step, wibble = np.zeros((size, size)), size, 100.0
    while step >= 2:
        h, cells = step // 2, size // step
        for down, right, around in (
            (h, h, ((-h, -h), (-h, h), (h, -h), (h, h))),
            (0, h, ((-h, 0), (h, 0), (0, -h), (0, h))),
            (h, 0, ((-h, 0), (h, 0), (0, -h), (0, h))),
        ):
            drawn = torch.empty(1, cells, cells, dtype=torch.float64).uniform_(generator=draws)[0].numpy()
            for r in range(cells):
                for c in range(cells):
                    row, column = r * step + down, c * step + right
                    near = sum(m[(row + i) % size, (column + j) % size] for i, j in around)
                    m[row, column] = near / 4 + wibble * (2 * wibble * drawn[r, c] - wibble)
        step, wibble = h, wibble / decay
    m -= m.min()
    return np.asarray(m / m.max())


@pytest.mark.parametrize(("side", "size"), [(32, 32), (64, 64), (80, 256)])
def test_fog_is_diamond_square(side: int, size: int) -> None:
    x = _image(side) / 255.0
    for severity in SEVERITIES if side < 80 else (1, 5):
        much, decay = table_of(side)["fog"][severity - 1]
        heights = _plasma(size, decay, torch.Generator().manual_seed(0))[:side, :side, None]
        _alike(_made("fog", severity, side), (x + much * heights) * x.max() / (x.max() + much))


def _uniform(shape: tuple[int, ...], draws: Generator) -> Array:
    return np.asarray(2 * torch.empty(shape, dtype=torch.float64).uniform_(generator=draws).numpy() - 1)


@pytest.mark.parametrize("side", SIDES)
def test_elastic_transform_is_affine_then_a_smooth_field(side: int) -> None:
    for severity in SEVERITIES:
        length, sd, shift = (side * c for c in table_of(side)["elastic_transform"][severity - 1])
        draws = torch.Generator().manual_seed(0)
        centre, third = side // 2, side // 3
        before = np.array([[centre + third] * 2, [centre + third, centre - third], [centre - third] * 2], float)
        after = before + shift * _uniform((1, 3, 2), draws)[0]
        ones = np.ones((3, 1))
        forth = np.linalg.lstsq(np.hstack([before, ones]), after, rcond=None)[0].T  # (2, 3), of x and y
        back = np.linalg.inv(np.vstack([forth, [0, 0, 1]]))
        row, column = np.mgrid[:side, :side].astype(float)
        xs = back[0, 0] * column + back[0, 1] * row + back[0, 2]
        ys = back[1, 0] * column + back[1, 1] * row + back[1, 2]
        x = _image(side) / 255.0
        x = np.stack([ndimage.map_coordinates(x[..., k], [ys, xs], order=1, mode="mirror") for k in range(3)], -1)
        dx, dy = (
            length * ndimage.gaussian_filter(f, sd, mode="reflect", truncate=3)
            for f in _uniform((1, 2, side, side), draws)[0]
        )
        places = [row + dy, column + dx]
        x = np.stack([ndimage.map_coordinates(x[..., k], places, order=1, mode="reflect") for k in range(3)], -1)
        _alike(_made("elastic_transform", severity, side), x)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_the_generators(kind: str) -> None:
    assert (_made(kind, 5, 32, seed=1) == _made(kind, 5, 32, seed=1)).all()
    differs = bool((_made(kind, 5, 32, seed=1) != _made(kind, 5, 32, seed=2)).any())
    assert differs == (kind not in DETERMINED)


def test_tables_go_by_the_side() -> None:
    assert [table_of(side)["jpeg_compression"][0] for side in (8, 32, 33, 64, 65, 224)] == [
        (80,), (80,), (65,), (65,), (25,), (25,)
    ]  # fmt: skip


def test_images_that_are_not_square_or_grey_are_refused() -> None:
    for shape in ((1, 1, 8, 8), (1, 3, 8, 9)):
        with pytest.raises(ValueError, match="images must be square with 3 channels, got"):
            corrupt("fog", 1, torch.zeros(shape), torch.Generator())
