"""Parquet files in the layouts of Hugging Face, Spark and pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advss.data.decoding import Background, Encoded
from advss.data.sources.divided import DividedSource
from advss.data.sources.parquet_columns import check_installed, images_of, labels_of, names_of, rows_of
from advss.data.sources.parquet_files import files_by_split, missing
from advss.errors import UsageError
from advss.hookspecs import Split

ORDER: tuple[Split, ...] = ("train", "valid", "test")


class Parquet(DividedSource):
    """Rows of an encoded image, as bytes or a struct {bytes, path}, and a label: a number, text or a boolean.

    Files named train*.parquet or in a folder train are trained on, and so with test and valid (or validation, val);
    shards are one set, several sets are refused. Numbers get the names of the schema's ``huggingface`` metadata, -1 is
    then no label; other labels are their own names, sorted. The encoded images are in memory while they are decoded.

    Args:
        root: a folder, searched at any depth, or one file.
        train: pattern of the training files below ``root``, such as ``plain_text/train-*.parquet``.
        valid: pattern of the validation files below ``root``.
        test: pattern of the test files below ``root``.
        image: the column of the images; ``img`` or ``image`` where it is not given.
        label: the column of the labels (``fine_label`` in CIFAR-100); empty where there is none, for pretraining.
        background: what is seen where an image is transparent.
        test_share: of the training images, tested on where there are no test files; the same under every seed.

    Raises:
        UsageError: pyarrow is not installed, or ``test_share`` is out of range.
    """

    name: ClassVar[str] = "parquet"

    def __init__(
        self,
        *,
        root: Path,
        train: str = "",
        valid: str = "",
        test: str = "",
        image: str = "",
        label: str = "label",
        background: Background = "white",
        test_share: float = 0.0,
    ) -> None:
        super().__init__(background=background, test_share=test_share)
        self.root, self.image, self.label = root, image, label
        self._patterns: dict[Split, str] = {"train": train, "valid": valid, "test": test}
        self._passed_over: Counter[str] = Counter()
        self._labels: dict[Path, list[int] | list[str]] = {}
        self._columns: dict[Split, list[tuple[Path, Any]]] = {}
        check_installed()

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return self._classes[1]

    def passed_over(self) -> Mapping[str, int]:
        """As :meth:`DataSource.passed_over`."""
        return +self._passed_over

    def stores(self, split: Split) -> bool:
        """As :meth:`DividedSource.stores`."""
        return split in self._files

    def stored_labels(self, split: Split) -> Tensor:
        """As :meth:`DividedSource.stored_labels`."""
        places, _ = self._classes
        return torch.from_numpy(np.concatenate([self._placed(path, places) for path in self._of(split)]))

    def stored(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`DividedSource.stored`."""
        if split not in self._columns:
            self._columns[split] = [(path, images_of(path, self.image)) for path in self._of(split)]
        columns = self._columns[split]
        starts = np.cumsum([0, *(len(column) for _, column in columns)])
        places = places_B.numpy()
        files = np.searchsorted(starts, places, side="right") - 1
        rows = places - starts[files]

        def encoded(i: int) -> Encoded:
            path, column = columns[files[i]]
            name = f"{path}, row {rows[i]}"
            content = column[int(rows[i])].as_py()
            if content is None:
                raise UsageError(f"{name}: no bytes; images that lie outside the file are not read")
            return name, content

        return encoded

    @cached_property
    def _files(self) -> dict[Split, list[Path]]:
        return files_by_split(self.root, self._patterns, whole=self.test_share > 0, passed_over=self._passed_over)

    def _of(self, split: Split) -> list[Path]:
        if split not in self._files:
            raise missing(self.root, split)
        return self._files[split]

    def _read(self, path: Path) -> list[int] | list[str]:
        if path not in self._labels:
            self._labels[path] = labels_of(path, self.label) if self.label else [-1] * rows_of(path)
        return self._labels[path]

    @cached_property
    def _classes(self) -> tuple[dict[int | str, int], tuple[str, ...]]:
        """The place of each label among the classes, and their names."""
        # a run that is measured needs its test files alone
        files = self._of("test" if "test" in self._files and "train" not in self._files else "train")
        names = self._names()
        if not self.label:
            return {-1: -1}, ()
        if names and not isinstance(next(iter(self._read(files[0])), 0), str):
            return {place: place for place in range(-1, len(names))}, names
        values: set[Any] = {label for path in files for label in self._read(path)}
        if len({type(value) for value in values}) > 1:
            raise UsageError(
                f"'{self.root}': column '{self.label}' holds text in some training files, numbers in others"
            )
        ordered = names or tuple(sorted(values))
        return {value: place for place, value in enumerate(ordered)}, tuple(map(str, ordered))

    def _names(self) -> tuple[str, ...]:
        """The names of the classes in the schemas, which must be the same in all files that have any."""
        named = [(path, names_of(path, self.label)) for split in ORDER for path in self._files.get(split, [])]
        found = [(path, names) for path, names in named if names]
        for path, names in found[1:]:
            if names != found[0][1]:
                raise UsageError(
                    f"{found[0][0]} has the classes {_some(found[0][1])}, {path} has {_some(names)}: one label means "
                    "two classes; write the files again with the same names"
                )
        return found[0][1] if found else ()

    def _placed(self, path: Path, places: Mapping[int | str, int]) -> NDArray[np.int64]:
        labels = self._read(path)
        unknown = next((label for label in labels if label not in places), None)
        if unknown is not None:
            classes = tuple(place for place in places if place != -1)
            raise UsageError(f"{path}: label {unknown!r} is none of the {len(classes)} classes: {_some(classes)}")
        return np.fromiter((places[label] for label in labels), np.int64, len(labels))


def _some(names: tuple[object, ...]) -> str:
    return ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")
