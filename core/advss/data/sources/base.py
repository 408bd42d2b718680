"""Sources of image files, which are decoded when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from advss.data.decoding import Background, Decoder, Encoded
from advss.hookspecs import DataSource, Split


class EncodedSource(DataSource):
    """A source of image files, which are decoded when they are asked for, at the side that ``--data.size`` asks for.

    Args:
        background: what is seen where an image is transparent.
    """

    def __init__(self, *, background: Background = "white") -> None:
        self._background = background

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(size=self.size, background=self._background)

    @abstractmethod
    def encoded(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """From 0 to B-1 to the encoded image at that one of ``places_B``."""

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """As :meth:`DataSource.images`."""
        return self._decoder(len(places_B), self.encoded(split, places_B))

    def check(self, split: Split, places_B: Tensor) -> None:
        """Raise for what the beginnings of the images at ``places_B`` show to be broken or of another side."""
        self._decoder.check(len(places_B), self.encoded(split, places_B))
