"""What every data source offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

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
