"""A source's labels and images in the form that the contract asks for: a source may be anyone's.

Letters: N images, B images of one read, P the side of what is stored, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from advss.data.images import Images, InMemory, OnDisk, resized
from advss.data.sources.base import EncodedSource
from advss.errors import UsageError
from advss.hookspecs import DataSource, Split

PIECE = 128  # images read at once; large photographs take a second or two of several cores
RESIDENT_BYTES = 4 * 2**30  # a split whose decoded images take more is read from disk batch by batch


def read_labels(source: DataSource, split: Split) -> Tensor:
    """Labels (N,) int64 of a split, -1 where there is none.

    Raises:
        UsageError: they cannot be read, or are of another form.
    """
    with _reading(source, split):
        labels = source.labels(split)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UsageError(f"{source.name}: labels('{split}') must be int64 (N,), got {_form(labels)}")
    if len(labels) == 0:
        raise UsageError(f"{source.name}: the {split} set is empty")
    if labels.min() < -1:
        least = int(labels.min())
        raise UsageError(f"{source.name}: labels('{split}') must count from 0, or be -1 for none, got {least}")
    return labels


def read_side(source: DataSource, split: Split, place: Tensor) -> int:
    """The side in pixels of the image at ``place`` (1,)."""
    return _read(source, split, place).shape[-1]


def read_images(
    source: DataSource, split: Split, places: Tensor, stored: int, tick: Callable[[int], None], *, side: int
) -> Images:
    """The images at ``places``, in memory, or where they are too many read when they are asked for.

    Args:
        source: gives them at the side ``stored``.
        split: of the source.
        places: in the split.
        stored: P.
        tick: is told of so many more that were read, or looked at.
        side: of the images, the centres of what is stored.
    """
    read = partial(_read, source, split, side=stored)
    pieces = torch.split(places, PIECE)
    if len(places) * 3 * stored**2 > RESIDENT_BYTES:
        if isinstance(source, EncodedSource):
            for piece in pieces:
                source.check(split, piece)
                tick(len(piece))
        return OnDisk(read, places, side=side, whole_side=stored)
    pixels_N3PP = torch.empty(len(places), 3, stored, stored, dtype=torch.uint8)
    for rows, piece in zip(torch.split(pixels_N3PP, PIECE), pieces, strict=True):
        rows.copy_(read(piece))
        tick(len(piece))
    return InMemory(pixels_N3PP, side=side)


def _read(source: DataSource, split: Split, places_B: Tensor, *, side: int | None = None) -> Tensor:
    """As :meth:`DataSource.images`, in the form that it asks for, at the side that is asked of the source."""
    with _reading(source, split):
        images = source.images(split, places_B)
    found = tuple(images.shape) if isinstance(images, Tensor) and images.dtype == torch.uint8 else ()
    own = side if side and not source.size else (found[-1] if found else 0)
    if found != (len(places_B), 3, own, own):
        wanted = f"uint8 ({len(places_B)}, 3, {side or 'S'}, {side or 'S'})"
        raise UsageError(f"{source.name}: images('{split}', places) must be {wanted}, got {_form(images)}")
    return resized(images, source.size).contiguous()


@contextmanager
def _reading(source: DataSource, split: Split) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of a plugin's that does not say what its user can mend
        raise UsageError(f"--data {source.name}: cannot read the {split} images: {error}") from error


def _form(found: object) -> str:
    """What a value is, in a few words."""
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
    return type(found).__name__
