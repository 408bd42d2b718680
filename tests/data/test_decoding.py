from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from advss.data.decoding import Decoder
from advss.errors import UsageError

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


def test_photographs_are_turned_as_their_exif_says() -> None:
    upper = np.zeros((16, 16, 3), dtype=np.uint8)
    upper[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half a circle
    buffer = io.BytesIO()
    Image.fromarray(upper).save(buffer, "JPEG", quality=100, exif=exif)
    decoded = _decode(buffer.getvalue())[0, 0].float()
    assert float(decoded[:8].mean()) < 5
    assert float(decoded[8:].mean()) > 250


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


def test_negative_size() -> None:
    with pytest.raises(UsageError, match=r"--data\.size -1: expected a side in pixels"):
        Decoder(size=-1)
