"""CIFAR-10-C: the test images of CIFAR-10 under corruptions (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from advss.errors import UsageError, did_you_mean
from advss.hookspecs import DataSource, Split

IMAGES = 10_000  # of each severity; a file holds severities 1 to 5 in a row
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10C(DataSource):
    """10,000 corrupted test images of CIFAR-10, from the ``.npy`` files; there are no training images.

    Args:
        root: folder that holds ``labels.npy`` and one ``.npy`` a corruption.
        corruption: name of the file without its ending.
        severity: 1 to 5.

    Raises:
        UsageError: ``severity`` is another number.
    """

    name: ClassVar[str] = "cifar10c"

    def __init__(self, *, root: Path, corruption: str = "gaussian_noise", severity: int = 3) -> None:
        if not 1 <= severity <= 5:
            raise UsageError(f"--data.severity {severity}: expected 1 to 5")
        self.root = root
        self.corruption = corruption
        self._rows = slice((severity - 1) * IMAGES, severity * IMAGES)

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return CLASSES

    def splits(self) -> tuple[Split, ...]:
        """As :meth:`DataSource.splits`."""
        return ("test",)

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        if split == "train":
            raise UsageError("cifar10c has test images only: train on cifar10 and evaluate on cifar10c")
        return torch.from_numpy(self._stored("labels")[self._rows].astype(np.int64))

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """As :meth:`DataSource.images`."""
        return (
            torch.from_numpy(self._stored(self.corruption)[self._rows][places_B.numpy()])
            .permute(0, 3, 1, 2)
            .contiguous()
        )

    def _stored(self, name: str) -> Any:
        path = self.root / f"{name}.npy"
        if not path.is_file():
            known = [file.stem for file in self.root.glob("*.npy") if file.stem != "labels"]
            raise UsageError(f"no '{path}'{did_you_mean(name, known)}")
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not a readable .npy file ({error})") from error
        if len(stored) < self._rows.stop:
            raise UsageError(f"{path}: {len(stored)} rows, expected {5 * IMAGES}")
        return stored
