"""What every data source offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from advss.data.decoding import Decoder, Encoded
from advss.data.images import ImageSet, InMemory

Split = Literal["train", "test"]


class Source(ABC):
    """A set of labelled images. The keyword-only, typed parameters of ``__init__`` are its options (``--data.OPTION``).

    Labels come first and alone, so that a subset is chosen before any image is decoded. Each method raises
    :class:`advss.errors.UsageError` for data that are missing or unreadable, naming the file or folder.
    """

    name: ClassVar[str]

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels."""

    @abstractmethod
    def labels(self, split: Split) -> Tensor:
        """Labels (N,) int64, 0 to K-1."""

    @abstractmethod
    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """The images at ``places_B`` (int64, of 0 to N-1) as uint8 RGB (B, 3, S, S)."""

    def load(self, split: Split) -> ImageSet:
        """Everything of ``split``, in memory."""
        labels = self.labels(split)
        return ImageSet(InMemory(self.images(split, torch.arange(len(labels)))), labels, self.classes())


class EncodedSource(Source):
    """A source of image files, which are decoded when they are asked for.

    Args:
        size: side in pixels of the images, see :class:`advss.data.decoding.Decoder`.
    """

    def __init__(self, *, size: int) -> None:
        self._decoder = Decoder(size=size)

    @abstractmethod
    def encoded(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """From 0 to B-1 to the encoded image at that one of ``places_B``."""

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """As :meth:`Source.images`."""
        return self._decoder(len(places_B), self.encoded(split, places_B))

    def check(self, split: Split, places_B: Tensor) -> None:
        """Raise for what the beginnings of the images at ``places_B`` show to be broken or of another side."""
        self._decoder.check(len(places_B), self.encoded(split, places_B))
