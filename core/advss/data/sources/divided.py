"""Sources of image files in splits, of which the test split may be taken from the training split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from advss.data.decoding import Background, Encoded
from advss.data.selection import choose
from advss.data.sources.base import EncodedSource
from advss.errors import UsageError
from advss.hookspecs import Split
from advss.randomness import stream

HOW = "`--data.test-share 0.2` takes a part of the training images for it"


class DividedSource(EncodedSource):
    """Image files as they are stored in splits, and a test split made of training images where there is none.

    Args:
        background: as of :class:`EncodedSource`.
        test_share: of the training images that are tested on instead, by class and the same under every seed; 0: none.

    Raises:
        UsageError: ``test_share`` is no share.
    """

    def __init__(self, *, background: Background, test_share: float) -> None:
        super().__init__(background=background)
        if not 0 <= test_share < 1:
            raise UsageError(f"--data.test-share {test_share}: expected a share of the images, 0 or more and below 1")
        self.test_share = test_share

    @abstractmethod
    def stores(self, split: Split) -> bool:
        """Whether files of this split are there."""

    @abstractmethod
    def stored_labels(self, split: Split) -> Tensor:
        """Labels (N,) int64 of the files of a split."""

    @abstractmethod
    def stored(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`EncodedSource.encoded`, of the files of a split."""

    def splits(self) -> tuple[Split, ...]:
        """As :meth:`DataSource.splits`."""
        others: tuple[Split, ...] = ("valid", "test")
        return ("train", *(split for split in others if self.stores(split) or (split == "test" and self.test_share)))

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        if split == "valid" or not self.test_share:
            return self.stored_labels(split)
        return self.stored_labels("train")[self._shares[split]]

    def encoded(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`EncodedSource.encoded`."""
        if split == "valid" or not self.test_share:
            return self.stored(split, places_B)
        return self.stored("train", self._shares[split][places_B])

    @cached_property
    def _shares(self) -> dict[Split, Tensor]:
        """Places among the training files of those that are trained on, and tested on."""
        labels = self.stored_labels("train")
        if self.stores("test"):
            raise UsageError(f"--data.test-share {self.test_share}: there are test images already; leave it out")
        count = round(self.test_share * len(labels))
        if count in (0, len(labels)):
            raise UsageError(
                f"--data.test-share {self.test_share}: {count} of {len(labels)} images; choose another share"
            )
        test = choose(labels, count, stream("cpu", "test-share"))
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[test] = False
        return {"train": rest.nonzero().squeeze(1), "test": test}
