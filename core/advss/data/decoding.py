"""Encoded image files to pixels, many at a time."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from advss.errors import UsageError

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
PIECE = 64  # at most so many images at once for a thread
WORKERS = min(16, os.cpu_count() or 1)

# what Pillow is known to raise on broken files
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_DEEP = ("I", "F")  # modes of more than 8 bits a channel, which Pillow would clip

_TURNED = {  # EXIF's orientation: what brings the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Background = Literal["white", "black"]
Encoded = tuple[str, Path | bytes]  # a name for messages, and where the image is or what it is


class Decoder:
    """Decodes images, as a viewer shows them, to one common square.

    Args:
        size: side in pixels: the shorter side is resized to it (bilinear) and the centre cropped; 0 takes the images as
            they are, which must then all be squares of one side.
        background: what is seen where an image is transparent.
    """

    def __init__(self, *, size: int, background: Background = "white") -> None:
        self.size = size
        self.background = background
        self.side = size  # of every image; the first one decides when no size is asked for

    def __call__(self, count: int, encoded: Callable[[int], Encoded]) -> Tensor:
        """Images 0 to ``count``-1 of ``encoded`` as uint8 (count, 3, S, S).

        Raises:
            UsageError: an image that cannot be read, or one of another shape; it is named.
        """
        if not self.side:
            self.side = self._pixels(*encoded(0)).shape[0]
        out = np.empty((count, 3, self.side, self.side), dtype=np.uint8)

        def decode_one(i: int) -> None:
            out[i] = self._pixels(*encoded(i)).transpose(2, 0, 1)

        _each(count, decode_one)
        return torch.from_numpy(out)

    def check(self, count: int, encoded: Callable[[int], Encoded]) -> None:
        """Read the beginnings of images 0 to ``count``-1 alone; errors as of decoding, as far as they show there."""

        def check_one(i: int) -> None:
            name, content = encoded(i)
            with _opened(name, content) as image:
                if not self.size:
                    self._check_side(name, *image.size)

        _each(count, check_one)

    def _pixels(self, name: str, content: Path | bytes) -> NDArray[np.uint8]:
        with _opened(name, content) as image:
            rgb = _opaque(_upright(image), self.background)
            if self.size and rgb.size != (self.size, self.size):
                rgb = _centred(rgb, self.size)
            pixels = np.asarray(rgb)
        self._check_side(name, *rgb.size)
        return pixels

    def _check_side(self, name: str, width: int, height: int) -> None:
        if height != width or (self.side and height != self.side):
            wanted = f"{self.side}x{self.side} like the others" if self.side else "a square"
            raise UsageError(f"{name}: {width}x{height} pixels, expected {wanted}; `--data.size N` brings all to NxN")


def _centred(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to ``size`` and the centre cropped, with torchvision's rounding: the same pixels."""
    sides = [size * side // min(image.size) for side in image.size]
    left, top = (round((side - size) / 2) for side in sides)
    resized = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say, whatever its format."""
    image.load()  # PNG may carry them behind its pixels; TIFF is turned by Pillow itself as it is loaded
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _BROKEN:  # viewers show an image whose EXIF data are damaged as it is stored
        return image
    return image.transpose(_TURNED[orientation]) if orientation in _TURNED else image


def _opaque(image: Image.Image, background: Background) -> Image.Image:
    """The image as RGB, over ``background`` where it is transparent."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def _opened(name: str, content: Path | bytes) -> Iterator[Image.Image]:
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        # naming the formats spares Pillow trying all it knows: a third of the time of a 32-pixel image
        with Image.open(file, formats=_formats()) as image:
            if image.mode.startswith(_DEEP):
                raise UsageError(f"{name}: mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
            yield image
    except UsageError:
        raise
    except UnidentifiedImageError as error:
        raise UsageError(f"{name}: damaged, or none of {', '.join(_formats())}; mend or remove it") from error
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise UsageError(f"{name}: not a readable image ({error}); mend or remove it") from error


def _each(count: int, work: Callable[[int], None]) -> None:
    """``work`` for 0 to ``count``-1, by threads; the first error is raised."""
    piece = min(PIECE, count // (4 * WORKERS) + 1)

    def work_on(start: int) -> None:
        for i in range(start, min(start + piece, count)):
            work(i)

    list(_threads().map(work_on, range(0, count, piece)))  # listing the results raises


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="advss-decode")


@cache
def _formats() -> list[str]:
    return list(dict.fromkeys(SUFFIXES.values()))
