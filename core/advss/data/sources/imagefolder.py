"""A folder of images, one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from advss.data.decoding import SUFFIXES, Encoded
from advss.data.sources.base import EncodedSource
from advss.errors import UsageError
from advss.hookspecs import Split


class ImageFolder(EncodedSource):
    """``ROOT/train/CLASS/*.png`` and ``ROOT/test/CLASS/*.png`` (or ``ROOT/val``); classes in the order of their names.

    Images lie at any depth below their class; files of other types and hidden ones are passed over.

    Args:
        root: the folder that holds ``train`` and ``test`` or ``val``.
        size: side in pixels to which the shorter side is resized before the centre is cropped; 0 takes square images
            as they are.
    """

    name: ClassVar[str] = "imagefolder"

    def __init__(self, *, root: Path, size: int = 0) -> None:
        super().__init__(size=size)
        self.root = root
        self._files: dict[Split, list[tuple[Path, int]]] = {}

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return self._classes

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        return torch.tensor([label for _, label in self._listed(split)])

    def encoded(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`EncodedSource.encoded`."""
        files = self._listed(split)
        places = places_B.tolist()

        def encoded(i: int) -> Encoded:
            path, _ = files[places[i]]
            return str(path), path

        return encoded

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        names = _subfolders(self._folder("train"))
        if not names:
            raise UsageError(f"no class folders in '{self._folder('train')}'; expected {self.root}/train/CLASS/*.png")
        return names

    def _folder(self, split: Split) -> Path:
        places = [self.root / name for name in (("train",) if split == "train" else ("test", "val"))]
        for folder in places:
            if folder.is_dir():
                return folder
        raise UsageError(f"no folder {' or '.join(map(str, places))}; `--data.root FOLDER` must hold train and test")

    def _listed(self, split: Split) -> list[tuple[Path, int]]:
        if split not in self._files:
            folder = self._folder(split)
            self._check_classes(folder)
            labelled = enumerate(self._classes)
            self._files[split] = [(path, label) for label, name in labelled for path in _images_in(folder / name)]
        return self._files[split]

    def _check_classes(self, folder: Path) -> None:
        differing = sorted(set(self._classes) ^ set(_subfolders(folder)))
        if differing:
            train = self._folder("train")
            raise UsageError(
                f"'{train}' and '{folder}' hold different classes: '{differing[0]}' is in one of them only"
            )


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _images_in(folder: Path) -> list[Path]:
    """The images below a class folder, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    images = sorted(found)
    if not images:
        raise UsageError(f"class folder '{folder}' is empty; expected images ({', '.join(sorted(SUFFIXES))})")
    return images
