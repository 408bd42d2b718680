"""Sets of images, in memory or read when asked for.

Letters: N images, B images of one read, 3 colours, S the side in pixels.
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


class Images(ABC):
    """N square RGB images, uint8, addressed by place 0 to N-1."""

    side: int  # in pixels

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, places_B: Tensor) -> Tensor:
        """The images at ``places_B`` (int64) as uint8 (B, 3, S, S), on the device of this set."""

    @abstractmethod
    def select(self, places_B: Tensor) -> Images:
        """The set of the images at ``places_B`` alone, in that order; nothing is copied."""

    @property
    def nbytes(self) -> int:
        """Size of all images when decoded."""
        return len(self) * 3 * self.side**2


class InMemory(Images):
    """Images held as one uint8 tensor, of which ``rows`` says which belong to the set and in which order."""

    def __init__(self, pixels_N3SS: Tensor, rows: Tensor | None = None) -> None:
        self.pixels = pixels_N3SS
        self.rows = torch.arange(len(pixels_N3SS), device=pixels_N3SS.device) if rows is None else rows
        self.side = pixels_N3SS.shape[-1]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, places_B: Tensor) -> Tensor:
        """As :meth:`Images.read`."""
        # index_select copies whole images; plain indexing walks element by element and is 20 times slower on a CPU
        return self.pixels.index_select(0, self.rows.index_select(0, places_B))

    def select(self, places_B: Tensor) -> InMemory:
        """As :meth:`Images.select`."""
        return InMemory(self.pixels, self.rows[places_B])

    def to(self, device: torch.device) -> InMemory:
        """This set on ``device``; only its own images travel."""
        if self.pixels.device == device:
            return self
        return InMemory(self.pixels.index_select(0, self.rows).to(device))


class OnDisk(Images):
    """Images that ``reader`` decodes when they are asked for: sets too large to hold.

    Args:
        reader: from places among all stored images (B,) to uint8 (B, 3, S, S).
        rows: which stored images belong to the set, in which order.
        side: S, which every image must have.
    """

    def __init__(self, reader: Callable[[Tensor], Tensor], rows: Tensor, *, side: int) -> None:
        self.reader = reader
        self.rows = rows
        self.side = side

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, places_B: Tensor) -> Tensor:
        """As :meth:`Images.read`."""
        return self.reader(self.rows[places_B])

    def select(self, places_B: Tensor) -> OnDisk:
        """As :meth:`Images.select`."""
        return OnDisk(self.reader, self.rows[places_B], side=self.side)
