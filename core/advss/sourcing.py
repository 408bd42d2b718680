"""A kind of plugin: where images and labels come from.

A part of the contract, which :mod:`advss.hookspecs` gives too. Letters: B images of a batch, N of a split, S a side, K
classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

Split = Literal["train", "valid", "test"]


class DataSource(ABC):
    """Images. Making one reads nothing; what is missing or unreadable then is an advss.errors.UsageError."""

    name: ClassVar[str]
    size: int = 0  # ``--data.size`` or ``.resize``, set by core, which resizes what has another side: any is right then

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the labels; () of no labels. Measuring reads these and "test"."""

    def splits(self) -> tuple[Split, ...]:
        """The splits that there are: without "valid" it is taken from "train", pretraining alone needs no "test"."""
        return ("train", "test")

    def passed_over(self) -> Mapping[str, int]:
        """How many files lie among the images and are not read, by kind (``{".txt": 3}``); told as a run begins."""
        return {}

    @abstractmethod
    def labels(self, split: Split) -> Tensor:
        """Labels (N,) int64, 0 to K-1, or -1 for none, which pretraining takes; asked for before any image is read."""

    @abstractmethod
    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """The images at ``places_B`` (int64, 0 to N-1), uint8 RGB (B, 3, S, S), one S for all; threads call it too."""
