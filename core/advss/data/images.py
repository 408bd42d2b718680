"""Sets of images, in memory or read when asked for.

Letters: N images, B images of one read, 3 colours, S the side in pixels, P the side of what is stored, at least S.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(pixels: Tensor) -> Tensor:
    """Levels 0 to 255 as float32 in [0, 1]."""
    return pixels.float().div_(255)


def resized(pixels_B3SS: Tensor, side: int) -> Tensor:
    """Levels uint8 at another side, bilinear over all the pixels that a new one covers; 0 leaves them as they are."""
    if side in (0, pixels_B3SS.shape[-1]):
        return pixels_B3SS
    levels = F.interpolate(pixels_B3SS.float(), (side, side), mode="bilinear", antialias=True)
    return levels.round_().clamp_(0, 255).to(torch.uint8)


def centre(pixels_B3PP: Tensor, side: int) -> Tensor:
    """The squares (B, 3, S, S) in the middle; themselves where they are of that side."""
    whole = pixels_B3PP.shape[-1]
    if side == whole:
        return pixels_B3PP
    first = round((whole - side) / 2)  # as torchvision rounds
    return pixels_B3PP[..., first : first + side, first : first + side].contiguous()


class Images(ABC):
    """N square RGB images, uint8, addressed by place 0 to N-1; they are the centres of what is stored."""

    side: int  # S
    whole_side: int  # P

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def whole(self, places_B: Tensor) -> Tensor:
        """What is stored at ``places_B`` (int64) as uint8 (B, 3, P, P), on the device of this set."""

    def read(self, places_B: Tensor) -> Tensor:
        """The images at ``places_B`` (int64) as uint8 (B, 3, S, S), on the device of this set."""
        return centre(self.whole(places_B), self.side)

    @abstractmethod
    def select(self, places_B: Tensor) -> Images:
        """The set of the images at ``places_B`` alone, in that order; nothing is copied."""


class InMemory(Images):
    """Images held as one uint8 tensor.

    Args:
        pixels_N3PP: what is stored.
        rows: which of them belong to the set, in which order; None is all.
        side: S; None is P.
    """

    def __init__(self, pixels_N3PP: Tensor, rows: Tensor | None = None, *, side: int | None = None) -> None:
        self.pixels = pixels_N3PP
        self.rows = torch.arange(len(pixels_N3PP), device=pixels_N3PP.device) if rows is None else rows
        self.whole_side = pixels_N3PP.shape[-1]
        self.side = side or self.whole_side

    def __len__(self) -> int:
        return len(self.rows)

    def whole(self, places_B: Tensor) -> Tensor:
        """As :meth:`Images.whole`."""
        # index_select copies whole images; plain indexing walks element by element and is 20 times slower on a CPU
        return self.pixels.index_select(0, self.rows.index_select(0, places_B))

    def select(self, places_B: Tensor) -> InMemory:
        """As :meth:`Images.select`."""
        return InMemory(self.pixels, self.rows[places_B], side=self.side)

    def to(self, device: torch.device) -> InMemory:
        """This set on ``device``; only its own images travel."""
        if self.pixels.device == device:
            return self
        return InMemory(self.pixels.index_select(0, self.rows).to(device), side=self.side)


class OnDisk(Images):
    """Images that ``reader`` decodes when they are asked for: sets too large to hold.

    Args:
        reader: from places among all stored images (B,) to uint8 (B, 3, P, P).
        rows: which stored images belong to the set, in which order.
        side: S.
        whole_side: P, which every stored image must have; None is S.
    """

    def __init__(
        self, reader: Callable[[Tensor], Tensor], rows: Tensor, *, side: int, whole_side: int | None = None
    ) -> None:
        self.reader = reader
        self.rows = rows
        self.side = side
        self.whole_side = whole_side or side

    def __len__(self) -> int:
        return len(self.rows)

    def whole(self, places_B: Tensor) -> Tensor:
        """As :meth:`Images.whole`."""
        return self.reader(self.rows[places_B])

    def select(self, places_B: Tensor) -> OnDisk:
        """As :meth:`Images.select`."""
        return OnDisk(self.reader, self.rows[places_B], side=self.side, whole_side=self.whole_side)
