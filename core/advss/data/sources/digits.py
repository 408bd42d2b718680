"""Handwritten digits that come with scikit-learn: 1,797 real images, offline."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from advss.data.selection import choose
from advss.hookspecs import DataSource, Split
from advss.randomness import stream

TEST_IMAGES = 360
SIDE = 32


class Digits(DataSource):
    """The digits 0 to 9, 8x8 grey, resized to 32x32 (bilinear) and repeated over RGB.

    360 images, the same under every seed and in proportion to the classes, are the test set; 1,437 remain.
    """

    name: ClassVar[str] = "digits"

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return tuple("0123456789")

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        return self._stored[1][self._places[split]]

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """As :meth:`DataSource.images`."""
        grey_B188 = self._stored[0][self._places[split][places_B]].unsqueeze(1)
        grey_B1SS = F.interpolate(grey_B188, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return (grey_B1SS * (255 / 16)).round().to(torch.uint8).repeat(1, 3, 1, 1)

    @cached_property
    def _stored(self) -> tuple[Tensor, Tensor]:
        """Grey levels 0 to 16 (1797, 8, 8) float32 and labels (1797,)."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return torch.from_numpy(bunch.images).float(), torch.from_numpy(bunch.target).long()

    @cached_property
    def _places(self) -> dict[Split, Tensor]:
        labels = self._stored[1]
        test = choose(labels, TEST_IMAGES, stream("cpu", self.name, "test"))
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[test] = False
        return {"train": rest.nonzero().squeeze(1), "test": test}
