from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from advss.data.decoding import Background, Decoder
from advss.errors import UsageError

Pixels = NDArray[np.uint8]
NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def _file(pixels: NDArray[np.uint8] | NDArray[np.uint16], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _decode(*contents: bytes | Path, size: int = 0) -> Tensor:
    return Decoder(size=size)(len(contents), lambda i: (f"image {i}", contents[i]))


def test_pixels_are_those_of_the_file() -> None:
    assert np.array_equal(_decode(_file(NOISE[:12, :12]))[0].permute(1, 2, 0).numpy(), NOISE[:12, :12])


def test_order_is_kept_over_many_images() -> None:
    shades = [np.full((4, 4, 3), i, dtype=np.uint8) for i in range(250)]
    assert _decode(*map(_file, shades))[:, 0, 0, 0].tolist() == list(range(250))


def test_grey_is_repeated() -> None:
    decoded = _decode(_file(NOISE[:12, :12, 0]))[0].numpy()
    assert all(np.array_equal(channel, NOISE[:12, :12, 0]) for channel in decoded)


def test_size_crops_the_centre_after_the_shorter_side_is_resized() -> None:
    # 12 x 20 at size 12: nothing to resize, 4 columns fall on each side
    assert np.array_equal(_decode(_file(NOISE), size=12)[0].permute(1, 2, 0).numpy(), NOISE[:, 4:16])


def test_size_halves_by_an_average_that_keeps_the_mean() -> None:
    ramp = np.tile(np.arange(0, 160, 8, dtype=np.uint8)[None, :, None], (20, 1, 3))
    halved = _decode(_file(ramp), size=10)[0, 0, 5].numpy().astype(float)
    # between the borders a linear ramp stays linear: 8 a pixel becomes 16, from the middle of the first two
    assert np.abs(halved[1:-1] - (4 + 16 * np.arange(1, 9))).max() <= 1


# ---------------------------------------------------------------- as a viewer shows them
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF 2.3, tag 0x112: where row 0 and column 0 are seen
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.transpose(1, 0, 2),  # left, top
    6: lambda stored: stored[::-1].transpose(1, 0, 2),  # right, top
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),  # left, bottom
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_as_their_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    plain, tagged = io.BytesIO(), io.BytesIO()
    Image.fromarray(NOISE[:12, :12]).save(plain, kind, **options)
    Image.fromarray(NOISE[:12, :12]).save(tagged, kind, exif=exif, **options)
    stored = np.asarray(Image.open(plain))
    assert np.array_equal(_decode(tagged.getvalue())[0].permute(1, 2, 0).numpy(), UPRIGHT[orientation](stored))


def test_damaged_exif_data_hide_no_image() -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE[:12, :12]).save(buffer, "PNG", exif=b"Exif\0\0no tags at all")
    assert np.array_equal(_decode(buffer.getvalue())[0].permute(1, 2, 0).numpy(), NOISE[:12, :12])


COLOURS, ALPHA = NOISE[:12, :12], NOISE[:12, 8:, :1]
INDEX = COLOURS[..., 0] % 16  # into the first 16 entries of the palette, of which entry i has opacity 17 i


def _palette() -> Image.Image:
    image = Image.fromarray(INDEX, "P")
    image.putpalette(COLOURS.reshape(-1)[:48].tobytes())
    return image


TRANSPARENT: dict[str, tuple[Image.Image, dict[str, Any], Pixels, Pixels]] = {  # with colours and opacity as expected
    "RGBA": (Image.fromarray(np.dstack([COLOURS, ALPHA])), {}, COLOURS, ALPHA),
    "black drawing": (Image.fromarray(np.dstack([0 * COLOURS, ALPHA])), {}, 0 * COLOURS, ALPHA),
    "LA": (Image.fromarray(np.dstack([COLOURS[..., :1], ALPHA])), {}, COLOURS[..., :1], ALPHA),
    "palette": (
        _palette(),
        {"transparency": bytes(range(0, 256, 17))},
        COLOURS.reshape(-1, 3)[:16][INDEX],
        17 * INDEX[..., None],
    ),
    "one grey level": (
        Image.fromarray(INDEX),
        {"transparency": 3},
        INDEX[..., None],
        np.where(INDEX == 3, 0, 255).astype(np.uint8)[..., None],
    ),
}


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
@pytest.mark.parametrize("case", TRANSPARENT)
def test_transparent_images_are_seen_over_the_background(case: str, background: Background, level: int) -> None:
    image, options, colours, alpha = TRANSPARENT[case]
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    opacity = alpha / 255
    expected = colours * opacity + level * (1 - opacity)
    decoder = Decoder(size=0, background=background)
    found = decoder(1, lambda i: (case, buffer.getvalue()))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 0.5


# ---------------------------------------------------------------- what cannot be read
@pytest.mark.parametrize("damage", [b"", b"not an image", _file(NOISE)[:60], _file(NOISE)[:-300]])
def test_damaged_image_is_named(damage: bytes) -> None:
    good = _file(NOISE[:12, :12])
    with pytest.raises(UsageError, match=r"^image 1: .*mend or remove it$"):
        _decode(good, damage, good)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image 0: not a readable image"):
        _decode(tmp_path / "gone.png")


def test_image_that_is_no_square() -> None:
    with pytest.raises(UsageError, match=r"image 0: 20x12 pixels, expected a square; `--data\.size N`"):
        _decode(_file(NOISE))


def test_images_of_different_sides() -> None:
    with pytest.raises(UsageError, match=r"image 1: 10x10 pixels, expected 12x12 like the others; `--data\.size N`"):
        _decode(_file(NOISE[:12, :12]), _file(NOISE[:10, :10]))


def test_16_bit_image() -> None:
    with pytest.raises(UsageError, match="image 0: mode I;16 has more than 8 bits a channel"):
        _decode(_file(np.zeros((8, 8), dtype=np.uint16)))


def test_check_finds_another_side_without_decoding() -> None:
    contents = [_file(NOISE[:12, :12]), _file(NOISE[:10, :10])]
    decoder = Decoder(size=0)
    decoder(1, lambda i: ("image 0", contents[0]))
    with pytest.raises(UsageError, match="image 1: 10x10 pixels"):
        decoder.check(2, lambda i: (f"image {i}", contents[i]))
