"""The images that the variables make, against NumPy and SciPy in float64, written from the definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize, signal
from torch import Generator, Tensor

from advss.unforeseen import Attack
from advss.unforeseen.jpeg import LUMINANCE
from advss.unforeseen.pixels import vertex
from advss.unforeseen.snow import flakes

Make = Callable[..., Attack]
Array = NDArray[np.float64]
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def array(x: Tensor) -> Array:
    """In float64."""
    found: Array = x.detach().double().numpy()
    return found


def alike(attack: Attack, z: Tensor, expected: Array, *, step: int = 1, atol: float = 1e-5) -> None:
    """The images of the variables are these."""
    np.testing.assert_allclose(array(attack.apply(z, step)), expected, atol=atol)


def blocks(plane: Array, change: Callable[[Array, int], Array]) -> Array:
    """A plane whose 8 x 8 blocks are decoded from what ``change`` makes of their coefficients, in order of rows."""
    out, side = np.zeros_like(plane), len(plane)
    for number, (row, column) in enumerate(itertools.product(range(0, side, 8), repeat=2)):
        at = np.s_[row : row + 8, column : column + 8]
        out[at] = fft.idctn(change(fft.dctn(plane[at] - 128, norm="ortho"), number), norm="ortho") + 128
    return out


def rgb(y: Array, blue: Array, red: Array) -> Array:
    blue, red = blue - 128, red - 128
    image = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue])
    return np.clip(image / 255, 0, 1)


@pytest.mark.parametrize(("step", "times"), [(0, 0.25), (1, 1.0)])
def test_jpeg_is_that_of_the_standard_without_rounding(make: Make, colours: Tensor, step: int, times: float) -> None:
    attack = make("kang jpeg_linf", colours, eps=0.25)
    z = attack.start()
    chroma = np.full((8, 8), 99.0)
    chroma[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
    expected = []
    for image, own in zip(array(colours), array(z) * times, strict=True):
        y, blue, red = np.tensordot(TO_YCC, 255 * image, 1) + np.array([0, 128, 128])[:, None, None]
        planes = list[Array]()
        for plane, table, start in ((y, np.array(LUMINANCE), 0), (blue, chroma, 16), (red, chroma, 20)):
            small = plane if start == 0 else plane.reshape(16, 2, 16, 2).mean((1, 3))

            def change(c: Array, n: int, table: Array = table, start: int = start, own: Array = own) -> Array:
                return np.asarray((c / table + own.reshape(24, 8, 8)[start + n] / 2) * table)

            decoded = blocks(small, change)
            planes.append(decoded if start == 0 else np.kron(decoded, np.ones((2, 2))).astype(np.float64))
        expected.append(rgb(*planes))
    alike(attack, z, np.stack(expected), step=step)


def test_the_table_of_luminance_is_pillows_at_quality_50() -> None:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "JPEG", quality=50)
    tables: Any = Image.open(data).quantization  # type: ignore[attr-defined]
    assert tables[0] == [value for row in LUMINANCE for value in row]


def test_jpeg_of_ua_adds_to_the_coefficients(make: Make, colours: Tensor) -> None:
    attack = make("ua jpeg", colours)
    z = attack.start() - 0.003
    expected = []
    for image, own in zip(array(colours), 255 * array(z).reshape(-1, 3, 16, 8, 8), strict=True):
        planes = np.tensordot(TO_YCC, 255 * image, 1) + np.array([0, 128, 128])[:, None, None]
        expected.append(rgb(*(blocks(p, lambda c, n, o=o: c + o[n]) for p, o in zip(planes, own, strict=True))))  # type: ignore[misc]
    alike(attack, z, np.stack(expected))


def read(image: Array, rows: Array, columns: Array, mode: str) -> Array:
    return np.stack([ndimage.map_coordinates(plane, [rows, columns], order=1, mode=mode) for plane in image])


def test_elastic_reads_along_a_smoothed_flow(make: Make, colours: Tensor) -> None:
    attack = make("kang elastic", colours, eps=2)
    z = attack.start()
    place = np.arange(5) - 2
    window = np.exp(-(place**2) / (2 * (3 * 32 / 224) ** 2))
    rows, columns = np.mgrid[:32, :32].astype(float)
    expected = []
    for image, flow in zip(array(colours), array(z), strict=True):
        for axis in (1, 2):
            flow = ndimage.correlate1d(flow, window / window.sum(), axis, mode="mirror")
        expected.append(read(image, rows + flow[1] * 15.5, columns + flow[0] * 15.5, "grid-constant"))
    alike(attack, z, np.stack(expected), atol=3e-5)


def cubic(values: Array, at: Array) -> Array:
    """Keys' interpolation with a = -.75 along the last axis; the rim goes on as it is."""
    out = np.zeros((*values.shape[:-1], len(at)))
    for number, where in enumerate(at):
        left = math.floor(where)
        for tap in range(left - 1, left + 3):
            d, a = abs(where - tap), -0.75
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            weight = near if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            out[..., number] += weight * values[..., min(max(tap, 0), values.shape[-1] - 1)]
    return out


def test_elastic_of_ua_reads_along_an_upsampled_flow(make: Make, colours: Tensor) -> None:
    attack = make("ua elastic", colours)
    z = attack.start()
    at = (np.arange(32) + 0.5) / 2 - 0.5
    fine = cubic(cubic(array(z), at).swapaxes(2, 3), at).swapaxes(2, 3)
    line = np.linspace(-1, 1, 32)
    expected = [
        read(image, ((line[:, None] + v + 1) * 32 - 1) / 2, ((line + u + 1) * 32 - 1) / 2, "grid-constant")
        for image, (u, v) in zip(array(colours), fine, strict=True)
    ]
    alike(attack, z, np.stack(expected), atol=3e-5)


def test_fog_is_diamond_square_on_a_torus(make: Make, colours: Tensor) -> None:
    attack = make("kang fog", colours, eps=128)
    z = attack.start()
    expected = []
    for image, own in zip(array(colours), array(z), strict=True):
        height, used, reach, step = np.zeros((64, 64)), 0, 100.0, 64
        while step > 1:
            half, n = step // 2, 64 // step
            fields = own[used : used + 3 * n * n].reshape(3, n, n)
            used += 3 * n * n
            moves = (2 * fields - 1) * reach

            def at(row: int, column: int, height: Array = height) -> float:
                return float(height[row % 64, column % 64])

            cells = list(itertools.product(range(n), repeat=2))
            for i, j in cells:
                r, c = i * step, j * step
                around = at(r, c) + at(r + step, c) + at(r, c + step) + at(r + step, c + step)
                height[r + half, c + half] = around / 4 + moves[0, i, j]
            for i, j in cells:
                r, c = i * step, j * step  # a centre is taken from two squares up, or to the left
                above = at(r + half, c + half) + at(r + half - 2 * step, c + half) + at(r, c) + at(r, c + step)
                left = at(r + half, c + half) + at(r + half, c + half - 2 * step) + at(r, c) + at(r + step, c)
                height[r, c + half], height[r + half, c] = above / 4 + moves[1, i, j], left / 4 + moves[2, i, j]
            step, reach = half, reach / 2
        assert used == len(own)
        fog = ((height - height.min()) / (height.max() - height.min()))[16:48, 16:48]
        top = image.max((1, 2), keepdims=True)
        expected.append((image + 128 / 255 * fog) / (top + 128 / 255))
    alike(attack, z, np.stack(expected), atol=3e-5)


def wave(angle: float, frequency: float, wide: float) -> Array:
    y, x = np.mgrid[-0.5:0.5:23j, -0.5:0.5:23j]
    across = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray(np.exp(-(x**2 + y**2) / 2 / (wide + 0.001) ** 2) * np.cos(2 * np.pi * frequency * across))


def test_gabor_is_evened_noise_of_an_images_own_kernel(make: Make, colours: Tensor) -> None:
    attack = make("kang gabor", colours, eps=25, seed=3)
    z, draws = attack.start(), Generator().manual_seed(3)
    sides = 1 + torch.randint(10, (5,), generator=draws)
    wide, angle, frequency = (torch.rand(5, generator=draws).double() for _ in range(3))
    expected = []
    for b, image in enumerate(array(colours)):
        turns = [np.pi * (float(angle[b]) + i / int(sides[b])) for i in range(int(sides[b]))]
        kernel = sum(wave(turn, 3 + 2.75 * float(frequency[b]), 0.1 + 0.3 * float(wide[b])) for turn in turns)
        noise = signal.correlate2d(array(z)[b, 0], kernel, mode="same")
        apart = noise - noise.mean()
        evened = noise.mean() + apart * 1.001 / (0.001 + np.abs(apart) / np.abs(apart).max())
        stretched = (evened - evened.min()) / (evened.max() - evened.min())
        expected.append(np.clip(image + 25 / 255 * stretched, 0, 1))
    alike(attack, z, np.stack(expected), atol=2e-4)


def test_gabor_stands_at_one_of_14_places(make: Make, colours: Tensor) -> None:
    attack: Any = make("kang gabor", colours.repeat(8, 1, 1, 1))
    assert float(attack.drawn.double().mean()) == pytest.approx(1 / 14, abs=0.006)
    swapped: Any = make("kang gabor", colours, slips=("gabor-places",))
    z = swapped.start()
    moved = swapped.ascend(z, torch.ones_like(z), 0)
    assert not moved[swapped.drawn].any()
    assert moved[~swapped.drawn].all()


def test_gabor_of_ua_has_a_kernel_of_every_step(make: Make, colours: Tensor) -> None:
    attack = make("ua gabor", colours, seed=3)
    z, draws = attack.start(), Generator().manual_seed(3)
    angle, frequency = (torch.rand(81, generator=draws).double() for _ in range(2))
    made = []
    for step in (0, 80):
        turns = [np.pi * (float(angle[step]) + i / 3) for i in range(3)]
        first, *others = (wave(turn, 3 + 2.75 * float(frequency[step]), 3) for turn in turns)
        kernel = first + sum(others) / 3
        noise = np.stack([[signal.correlate2d(plane, kernel, mode="same") for plane in image] for image in array(z)])
        made.append(np.clip(array(colours) + noise, 0, 1))
        alike(attack, z, made[-1], step=step, atol=3e-5)
    assert np.abs(made[0] - made[1]).max() > 0.01
    assert float((z != 0).double().mean()) == pytest.approx(0.1, abs=0.01)


def line(down: int, across: int, width: int, side: int) -> Array:
    """A line from the middle to an end, anti-aliased along the shorter way, and mirrored through the middle."""
    middle, long, short = side // 2, max(down, across), min(down, across)
    slope, out = short / long, np.zeros((side, side))
    for along in range(long + 1):
        for aside in range(middle + 1):
            value = 1 + width * math.sqrt(1 + slope) / 4 - abs(aside - along * slope)
            row, column = (aside, along) if across >= down else (along, aside)
            for sign in (1, -1):
                out[middle + sign * row, middle + sign * column] = min(max(value, 0), 1)
    return out


def test_flakes_are_mirrored_lines(make: Make, colours: Tensor) -> None:
    attack = make("kang snow", colours)
    attack.generator, draws = Generator().manual_seed(5), Generator().manual_seed(5)
    made = flakes(attack, 60, side=13, shortest=2)
    down, across = (2 + torch.randint(5, (60,), generator=draws) for _ in range(2))
    chance = torch.rand(60, generator=draws)
    width = torch.where(chance <= 0.6, 1, torch.where(chance <= 0.9, 3, 5))
    assert set(down.tolist()) == set(across.tolist()) == {2, 3, 4, 5, 6}
    for shape, i, j, wide in zip(array(made), down.tolist(), across.tolist(), width.tolist(), strict=True):
        np.testing.assert_allclose(shape, line(i, j, wide, 13), atol=1e-6)


def test_snow_falls_on_seven_shifted_grids(make: Make, colours: Tensor) -> None:
    attack: Any = make("kang snow", colours, eps=0.25)
    z = attack.start()
    shapes, expected = array(attack.shapes_1Lkk)[0], []
    for base, own in zip(array(attack.base), array(z), strict=True):
        snow = np.zeros((32, 32))
        for layer in range(7):
            sparse = np.zeros((32, 32))
            row, column = (0, layer) if layer < 4 else (layer - 3, 0)
            sparse[row::4, column::4] = own[layer] ** 4
            snow += signal.correlate2d(sparse, shapes[layer], mode="same")
        expected.append(np.clip(base + 0.25 * snow, 0, 1))
    alike(attack, z, np.stack(expected))


def test_shapes_of_snow_are_blurred(make: Make, colours: Tensor) -> None:
    attack: Any = make("kang snow", colours, seed=4)
    draws = Generator().manual_seed(4)
    down, across = (2 + torch.randint(5, (7,), generator=draws) for _ in range(2))
    chance = torch.rand(7, generator=draws)
    flip, wide = torch.rand(1, generator=draws) < 0.5, 0.41 + 0.19 * torch.rand(7, generator=draws)
    for layer, shape in enumerate(array(attack.shapes_1Lkk)[0]):
        width = 1 if chance[layer] <= 0.6 else 3 if chance[layer] <= 0.9 else 5
        sharp = line(int(down[layer]), int(across[layer]), width, 13)
        sharp = sharp[:, ::-1] if flip else sharp
        window = np.exp(-np.array([1, 0, 1]) / (2 * float(wide[layer]) ** 2))
        expected = signal.convolve2d(sharp, np.outer(window, window) / window.sum() ** 2, mode="same")
        np.testing.assert_allclose(shape, expected, atol=1e-5)


def test_snow_of_ua_is_of_an_images_own_shapes(make: Make, colours: Tensor) -> None:
    attack: Any = make("ua snow", colours)
    z = attack.start() * 20
    expected = []
    for base, own, shapes in zip(array(attack.base), array(z), array(attack.shapes_BLkk), strict=True):
        layers = [signal.correlate2d(v**4, k, mode="same") for v, k in zip(own, shapes, strict=True)]
        expected.append(np.clip(base + sum(layers), 0, 1))
    alike(attack, z, np.stack(expected))
    assert float(attack.mask.double().mean()) == pytest.approx(0.01, abs=0.003)
    for shape in array(attack.shapes_BLkk).reshape(-1, 3, 3):  # at this size a line is always the diagonal
        straight = shape if shape[0, 0] else shape[:, ::-1]
        assert straight[0, 0] == straight[1, 1] == straight[2, 2] == 1


def test_pixel_blends_each_block_with_its_first(make: Make, colours: Tensor) -> None:
    attack = make("ua pixel", colours)
    z = attack.start()
    share, x = np.kron(array(z), np.ones((4, 4))), array(colours)
    alike(attack, z, x * (1 - share) + np.kron(x[:, :, ::4, ::4], np.ones((4, 4))) * share)
    assert np.ptp(np.linalg.norm(array(z).reshape(5, -1), axis=1)) < 1e-6


def test_wood_rings_go_round_the_middle(make: Make, colours: Tensor) -> None:
    attack = make("ua wood", colours)
    z = 0.05 * torch.rand(5, 1, 16, 16, generator=Generator().manual_seed(0))
    at = np.meshgrid(*[(np.arange(32) + 0.5) / 2 - 0.5] * 2, indexing="ij")
    moved = np.stack([ndimage.map_coordinates(own[0], at, order=1, mode="nearest") for own in array(z)])[:, None]
    line = (np.arange(32) - 16) / 16
    rings = np.abs(np.sin(np.pi * 5 * (np.hypot(*np.meshgrid(line, line)) + moved))) ** 0.125
    alike(attack, z, array(colours) * rings, atol=1e-3)  # the eighth root makes much of a rounding near 0


def test_glitch_moves_lines_of_each_channel(make: Make, colours: Tensor) -> None:
    attack = make("ua glitch", colours)
    z = attack.start() - 0.02
    rows, columns = np.mgrid[:32, :32].astype(float)
    expected = np.zeros((5, 3, 32, 32))
    for b, c in itertools.product(range(5), range(3)):
        slip = np.repeat(array(z)[b, c], 2)[:, None] * 16
        at = [rows - 0.5, columns - 0.5 + slip]
        expected[b, c] = ndimage.map_coordinates(array(colours)[b, c], at, order=1, mode="reflect")
    alike(attack, z, expected, atol=3e-5)


def test_kaleidoscope_paints_shapes_and_rims(make: Make, colours: Tensor) -> None:
    attack: Any = make("ua kaleidoscope", colours)
    z = attack.start()
    inside, expected = array(attack.inside_BNSS) > 0, []
    for b, image in enumerate(array(colours)):
        added, grey = array(z)[b, :15].reshape(5, 3), np.abs(array(z)[b, 15:]).reshape(32, 32)
        colour = array(attack.colour_BN3)[b] + added
        painted = image * np.where(inside[b].any(0), 0.2, 1) + np.einsum("nhw,nc->chw", inside[b], colour)
        rims = [ndimage.binary_dilation(one, np.ones((5, 5))) & ~one for one in inside[b]]
        expected.append(np.clip(np.where(np.any(rims, 0), grey, painted), 0, 1))
    alike(attack, z, np.stack(expected))


def test_shapes_of_kaleidoscope_are_as_large_as_said(make: Make) -> None:
    attack: Any = make("ua kaleidoscope", torch.zeros(400, 3, 32, 32))
    areas = attack.inside_BNSS.sum((2, 3)).flatten()
    corners = [(x, y) for x in range(-3, 4) for y in range(-3, 4) if x * x + y * y < 4]
    discs = areas == len(corners)  # the only shape of which few pixels are cut by the border
    assert len(corners) == 9
    assert float(discs.double().mean()) > 0.2
    assert areas.max() <= 24  # an equilateral triangle of side 6 has 15.6, a square of side 4 has 16
    assert float(areas.mean()) == pytest.approx((9 * (30 / 32) ** 2 + 15.6 + 16) / 3, abs=1.2)


def test_colours_of_kaleidoscope_are_those_of_hsv(make: Make, colours: Tensor) -> None:
    import colorsys

    attack: Any = make("ua kaleidoscope", colours)
    attack.generator, draws = Generator().manual_seed(2), Generator().manual_seed(2)
    made = array(attack._colours(5, 4))
    hue, saturation, value = (array(torch.rand(5, 4, 1, generator=draws))[..., 0] for _ in range(3))
    for at in itertools.product(range(5), range(4)):
        expected = colorsys.hsv_to_rgb(hue[at], 0.7 + 0.3 * saturation[at], 0.8 + 0.2 * value[at])
        np.testing.assert_allclose(made[at], expected, atol=1e-5)


@pytest.mark.parametrize("radius", [0.3, 1.7, 100.0])
def test_a_vertex_is_where_a_linear_program_is_largest(radius: float) -> None:
    draws = Generator().manual_seed(0)
    gradient, room = torch.randn(3, 12, generator=draws), torch.rand(3, 12, generator=draws)
    found = array(vertex(gradient, room, radius))
    for way, most, point in zip(array(gradient), array(room), found, strict=True):
        solved = optimize.linprog(-np.abs(way), A_ub=np.ones((1, 12)), b_ub=[radius], bounds=[(0, m) for m in most])
        assert way @ point == pytest.approx(-solved.fun, rel=1e-6)
        assert np.abs(point).sum() <= radius + 1e-6
        assert (np.abs(point) <= most + 1e-7).all()
