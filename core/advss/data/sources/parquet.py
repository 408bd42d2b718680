"""Parquet files in the layout of Hugging Face image sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advss.data.decoding import Encoded
from advss.data.sources.base import EncodedSource
from advss.errors import UsageError, did_you_mean
from advss.hookspecs import Split

TRAIN_FILES = ("**/train*.parquet", "**/train/*.parquet")  # patterns, the first that finds any
TEST_FILES = ("**/test*.parquet", "**/test/*.parquet", "**/validation*.parquet", "**/validation/*.parquet")
IMAGE_COLUMNS = ("img", "image")


class Parquet(EncodedSource):
    """Rows of an image, a struct {bytes, path} named ``img`` or ``image``, and an integer label.

    The names of the classes are read from the schema's ``huggingface`` metadata; without them they are the numbers.
    The encoded images are held in memory while they are decoded.

    Args:
        root: a folder, searched at any depth for train*.parquet or train/*.parquet, and the same of test or validation.
        train: pattern of the training files below ``root``, in place of that.
        test: pattern of the test files below ``root``, in place of that.
        label: the column of the labels (``fine_label`` in CIFAR-100).
        size: side in pixels to which the shorter side is resized before the centre is cropped; 0 takes square images
            as they are.

    Raises:
        UsageError: pyarrow is not installed, or ``size`` is negative.
    """

    name: ClassVar[str] = "parquet"

    def __init__(self, *, root: Path, train: str = "", test: str = "", label: str = "label", size: int = 0) -> None:
        super().__init__(size=size)
        self.root = root
        self.label = label
        self._patterns: dict[Split, tuple[str, ...]] = {
            "train": (train,) if train else TRAIN_FILES,
            "test": (test,) if test else TEST_FILES,
        }
        self._columns: dict[Split, list[tuple[Path, Any]]] = {}
        _pyarrow()

    def classes(self) -> tuple[str, ...]:
        """As :meth:`DataSource.classes`."""
        return self._classes

    def labels(self, split: Split) -> Tensor:
        """As :meth:`DataSource.labels`."""
        labels = torch.from_numpy(np.concatenate([self._labels_of(path) for path in self._files(split)]))
        highest = len(self._classes) - 1
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= highest:
            reach = f"{int(labels.min())} to {int(labels.max())}"
            raise UsageError(f"'{self.root}': the {split} files hold labels {reach}, expected 0 to {highest}")
        return labels

    def encoded(self, split: Split, places_B: Tensor) -> Callable[[int], Encoded]:
        """As :meth:`EncodedSource.encoded`."""
        columns = self._stored(split)
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
    def _classes(self) -> tuple[str, ...]:
        path = self._files("train")[0]
        stored = self._opened(path).schema_arrow.metadata or {}
        try:
            features = json.loads(stored.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
            names = tuple(features.get(self.label, {}).get("names", ()))
        except (ValueError, AttributeError) as error:
            raise UsageError(f"{path}: the schema's huggingface metadata are not as expected ({error})") from error
        if names:
            return names
        highest = max(int(self._labels_of(path).max(initial=0)) for path in self._files("train"))
        return tuple(str(label) for label in range(highest + 1))

    def _files(self, split: Split) -> list[Path]:
        for pattern in self._patterns[split]:
            try:
                files = sorted(self.root.glob(pattern))
            except (NotImplementedError, ValueError) as error:
                raise UsageError(f"--data.{split} {pattern}: expected a pattern below `--data.root`") from error
            if files:
                return files
        names = " or ".join(self._patterns[split])
        raise UsageError(f"no {names} in '{self.root}'; `--data.root FOLDER` or `--data.{split} PATTERN` says where")

    def _stored(self, split: Split) -> list[tuple[Path, Any]]:
        """The column of encoded images of each file."""
        if split not in self._columns:
            self._columns[split] = [(path, self._bytes_of(path)) for path in self._files(split)]
        return self._columns[split]

    def _labels_of(self, path: Path) -> NDArray[np.int64]:
        labels = self._column(path, self.label).to_numpy()
        if not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(f"{path}: column '{self.label}' is {labels.dtype}, expected an integer in every row")
        return np.asarray(labels, dtype=np.int64)

    def _bytes_of(self, path: Path) -> Any:
        names = self._opened(path).schema_arrow.names
        column = next((name for name in IMAGE_COLUMNS if name in names), None)
        if column is None:
            raise UsageError(f"{path}: no column 'img' or 'image'; there are {', '.join(names)}")
        images = self._column(path, column)
        try:
            return _pyarrow().compute.struct_field(images, "bytes")
        except (ValueError, NotImplementedError) as error:
            raise UsageError(
                f"{path}: column '{column}' is {images.type}, expected a struct {{bytes, path}}"
            ) from error

    def _column(self, path: Path, name: str) -> Any:
        file = self._opened(path)
        if name not in file.schema_arrow.names:
            raise UsageError(f"{path}: no column '{name}'{did_you_mean(name, file.schema_arrow.names)}")
        with _readable(path):
            return file.read(columns=[name])[name]

    def _opened(self, path: Path) -> Any:
        with _readable(path):
            return _pyarrow().parquet.ParquetFile(path, memory_map=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (_pyarrow().ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error})") from error


@cache
def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("parquet files need pyarrow: pip install 'advss[parquet]'") from error
    return pyarrow
