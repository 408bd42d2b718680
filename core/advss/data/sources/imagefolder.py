"""A folder of images, one folder a class, or all in one without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from advss.data.decoding import SUFFIXES, Background, Encoded
from advss.data.sources.divided import HOW, DividedSource
from advss.data.sources.groups import Grouping, Groups
from advss.data.sources.walking import files_below, kind_of
from advss.errors import UsageError
from advss.hookspecs import Split

FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "val"),
    "test": ("test",),
}
HOLDS = "train and test, or with `--data.test-share 0.2` the folders of the classes"
NO_CLASS = ""  # of images without labels
UNGROUPED = "class folders in no group"


class ImageFolder(DividedSource):
    """``ROOT/train/CLASS/*.png`` and ``ROOT/test/CLASS/*.png``; classes in the order of their names.

    Images in ``ROOT/valid``, ``validation`` or ``val`` are validated on. They lie at any depth below their class; files
    of other types and hidden ones are passed over, linked folders are followed once. A folder without folders in it is
    of images without labels, for pretraining.

    Args:
        root: the folder that holds ``train`` and ``test``; where it holds neither these nor validation images, or with
            ``test-share``, it may be the folder of the classes or of the images itself.
        background: what is seen where an image is transparent.
        test_share: of the training images, tested on where there is no ``test``; the same under every seed.
        groups: a YAML file of super classes, each a list of class folders, or of ImageNet's classes by index; or a
            packaged one. Folders in no group are left out.
    """

    name: ClassVar[str] = "imagefolder"

    def __init__(
        self,
        *,
        root: Path,
        background: Background = "white",
        test_share: float = 0.0,
        groups: Grouping | Path | None = None,
    ) -> None:
        super().__init__(background=background, test_share=test_share)
        self.root = root
        self.groups = groups
        self._ungrouped: set[str] = set()
        self._files: dict[Split, list[tuple[Path, int]]] = {}
        self._passed_over: dict[Split, Counter[str]] = {}

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return self._classes

    def passed_over(self) -> Mapping[str, int]:
        """As :meth:`DataSource.passed_over`."""
        found = sum(self._passed_over.values(), Counter[str]())
        return found + Counter({UNGROUPED: len(self._ungrouped)})

    def stores(self, split: Split) -> bool:
        """As :meth:`DividedSource.stores`."""
        return bool(self._places(split))

    def stored_labels(self, split: Split) -> Tensor:
        """As :meth:`DividedSource.stored_labels`."""
        return torch.tensor([label for _, label in self._listed(split)], dtype=torch.int64)

    def stored(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`DividedSource.stored`."""
        files = self._listed(split)
        places = places_B.tolist()

        def encoded(i: int) -> Encoded:
            path, _ = files[places[i]]
            return str(path), path

        return encoded

    @cached_property
    def _groups(self) -> Groups | None:
        return Groups(self.groups) if self.groups else None

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        alone = not self.test_share and not self._places("train") and self._places("test")
        folder = self._folder("test" if alone else "train")  # a run that is measured needs its test images alone
        names = tuple(dict.fromkeys(self._class_of(folder).values()))
        if not names and not any(path.suffix.lower() in SUFFIXES for path in files_below(folder, Counter())):
            raise UsageError(f"no images and no class folders in '{folder}'; expected {folder}/CLASS/*.png")
        return names

    def _places(self, split: Split) -> list[Path]:
        return [folder for name in FOLDERS[split] if (folder := self.root / name).is_dir()]

    def _folder(self, split: Split) -> Path:
        places = self._places(split)
        if len(places) > 1:
            raise UsageError(f"both '{places[0]}' and '{places[1]}' hold {split} images; keep one of them")
        if places:
            return places[0]
        if split == "test":
            flat = "" if self._classes else "; where it holds no class folders, `advss pretrain` alone takes it"
            raise UsageError(f"no folder '{self.root / split}' to test on; {HOW}{flat}")
        apart = [*self._places("valid"), *self._places("test")]
        if self.root.is_dir() and not apart:
            return self.root
        if self.root.is_dir() and self.test_share:
            raise UsageError(f"'{apart[0]}' lies beside the folders of the classes; put these into '{self.root}/train'")
        raise UsageError(f"no folder '{self.root / split}'; `--data.root FOLDER` must hold {HOLDS}")

    def _class_of(self, folder: Path) -> dict[str, str]:
        """By class folder, the class of its images; folders that stand in no group are left out."""
        names = _subfolders(folder)
        return self._groups.by_folder(folder, names) if self._groups else {name: name for name in names}

    def _listed(self, split: Split) -> list[tuple[Path, int]]:
        if split not in self._files:
            folder = self._folder(split)
            class_of = self._class_of(folder)
            self._check_classes(folder, class_of)
            self._passed_over[split] = Counter()
            images = self._images_below(folder, class_of, self._passed_over[split])
            places = {name: label for label, name in enumerate(self._classes)}
            found = [
                (path, places[class_of[name]] if class_of else -1) for name, paths in images.items() for path in paths
            ]
            self._files[split] = sorted(found, key=lambda one: (one[1], one[0]))
        return self._files[split]

    def _images_below(
        self, folder: Path, class_of: Mapping[str, str], passed_over: Counter[str]
    ) -> dict[str, list[Path]]:
        """The images of each class folder; of none where there are no classes."""
        images: dict[str, list[Path]] = {name: [] for name in class_of or (NO_CLASS,)}
        ungrouped = set(_subfolders(folder)) - class_of.keys()
        self._ungrouped |= ungrouped
        for path in files_below(folder, passed_over, apart=ungrouped):
            name, *below = path.parts[len(folder.parts) :] if class_of else (NO_CLASS, path.name)
            if not below:
                passed_over[f"{kind_of(path)} beside the classes"] += 1
            elif path.suffix.lower() not in SUFFIXES:
                passed_over[kind_of(path)] += 1
            else:
                images[name].append(path)
        for name, found in images.items():
            if not found:
                raise _empty(folder / name)
        return images

    def _check_classes(self, folder: Path, class_of: Mapping[str, str]) -> None:
        differing = sorted(set(self._classes) ^ set(class_of.values()))
        if differing:
            train = self._folder("train")
            raise UsageError(
                f"'{train}' and '{folder}' hold different classes: '{differing[0]}' is in one of them only"
            )


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _empty(folder: Path) -> UsageError:
    if folder.is_symlink():
        return UsageError(
            f"class folder '{folder}' is a link to '{folder.resolve()}', where no images are left to read"
        )
    return UsageError(f"class folder '{folder}' is empty; expected images ({', '.join(sorted(SUFFIXES))})")
