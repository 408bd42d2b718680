"""CIFAR-10, CIFAR-100 and STL-10, as torchvision stores them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from advss.errors import UsageError
from advss.hookspecs import DataSource, Split


class TorchvisionSource(DataSource):
    """A set that torchvision reads.

    Args:
        root: folder that holds torchvision's files, or will.
        download: fetch what is missing.
    """

    title: ClassVar[str]

    def __init__(self, *, root: Path = Path("data"), download: bool = False) -> None:
        self.root = root
        self.download = download
        self._opened: dict[Split, tuple[Tensor, Tensor]] = {}
        self._classes: tuple[str, ...] = ()

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        if not self._classes:
            self._open("train")
        return self._classes

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        return self._open(split)[1]

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        """As :meth:`DataSource.images`."""
        return self._open(split)[0].index_select(0, places_B)

    @abstractmethod
    def _read(self, split: Split) -> Any:
        """The data set of torchvision, with ``data``, ``classes`` and ``targets`` or ``labels``."""

    @abstractmethod
    def _tensors(self, stored: Any) -> tuple[Tensor, Tensor]:
        """Its images uint8 (N, 3, S, S) and labels int64 (N,)."""

    def _open(self, split: Split) -> tuple[Tensor, Tensor]:
        if split not in self._opened:
            stored = self._checked(lambda: self._read(split))
            self._opened[split] = self._tensors(stored)
            self._classes = tuple(stored.classes)
        return self._opened[split]

    def _checked(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (RuntimeError, OSError) as error:
            if self.download:
                raise UsageError(f"{self.title} could not be fetched into '{self.root}': {error}") from error
            raise UsageError(
                f"{self.title} is not in '{self.root}', or incomplete: `--data.root FOLDER` says where it is, "
                "`--data.download true` fetches it"
            ) from error


def _needing(stored: type[Any], split: Split, *, unlabelled: bool = False) -> type[Any]:
    """A set of torchvision that asks for the files of one split, not for all that its archive holds."""
    wanted = [file for file in stored.train_list if unlabelled or not file[0].startswith("unlabeled")]
    files = {
        "train_list": wanted if split == "train" else [],
        "test_list": stored.test_list if split == "test" else [],
    }
    return type(stored.__name__, (stored,), files)


class Cifar10(TorchvisionSource):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels, 10 classes."""

    name: ClassVar[str] = "cifar10"
    title: ClassVar[str] = "CIFAR-10"

    def _read(self, split: Split) -> Any:
        from torchvision.datasets import CIFAR10

        return _needing(CIFAR10, split)(self.root, train=split == "train", download=self.download)

    def _tensors(self, stored: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(stored.targets)


class Cifar100(Cifar10):
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels, 100 classes."""

    name: ClassVar[str] = "cifar100"
    title: ClassVar[str] = "CIFAR-100"

    def _read(self, split: Split) -> Any:
        from torchvision.datasets import CIFAR100

        return _needing(CIFAR100, split)(self.root, train=split == "train", download=self.download)


class Stl10(TorchvisionSource):
    """STL-10: 5,000 training and 8,000 test images of 96x96 pixels, 10 classes, and 100,000 images without label.

    Args:
        root: folder that holds torchvision's files, or will.
        download: fetch what is missing.
        unlabelled: pretrain on the images without label, too; they take 2.8 GB of memory.
    """

    name: ClassVar[str] = "stl10"
    title: ClassVar[str] = "STL-10"

    def __init__(self, *, root: Path = Path("data"), download: bool = False, unlabelled: bool = False) -> None:
        super().__init__(root=root, download=download)
        self.unlabelled = unlabelled

    def _read(self, split: Split) -> Any:
        from torchvision.datasets import STL10

        more = self.unlabelled and split == "train"
        called = "train+unlabeled" if more else split
        return _needing(STL10, split, unlabelled=more)(self.root, split=called, download=self.download)

    def _tensors(self, stored: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(stored.data), torch.from_numpy(stored.labels).long()
