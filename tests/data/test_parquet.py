"""Which parquet files and columns are read, and as what."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from advss.data.options import make_source
from advss.data.sources import parquet_columns
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.hookspecs import DataSource, Split

Pixels = NDArray[np.uint8]
Write = Callable[..., None]
WriteParquet = Callable[[Path, list[bytes | None], list[int]], None]


def _all(source: DataSource, split: Split) -> Pixels:
    images = source.images(split, torch.arange(len(source.labels(split))))
    pixels: Pixels = images.permute(0, 2, 3, 1).numpy()
    return pixels


def _png(level: int) -> bytes:
    """A square of one level."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def _levels(source: DataSource, split: Split) -> list[int]:
    levels: list[int] = _all(source, split)[:, 0, 0, 0].tolist()
    return levels


def _source(root: Path, **options: Any) -> DataSource:
    return make_source("parquet", {"root": root, **options})


# ---------------------------------------------------------------- files
def test_parquet_gives_the_images_of_all_files_in_order(parquet_root: Path, parquet_pixels: Pixels) -> None:
    assert np.array_equal(_all(make_source("parquet", {"root": parquet_root}), "train"), parquet_pixels[:20])


def test_parquet_decodes_chosen_rows_over_the_files(parquet_root: Path, parquet_pixels: Pixels) -> None:
    rows = torch.tensor([19, 0, 12, 11])
    pixels = make_source("parquet", {"root": parquet_root}).images("train", rows)
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), parquet_pixels[rows.numpy()])


def test_parquet_labels_and_classes(parquet_root: Path) -> None:
    source = make_source("parquet", {"root": parquet_root})
    assert source.classes() == ("cat", "dog")
    assert source.labels("test").tolist() == [0, 1] * 5


def test_parquet_takes_a_pattern(parquet_root: Path) -> None:
    options = {"root": parquet_root, "train": "data/train-00001*"}
    assert len(make_source("parquet", options).labels("train")) == 8


def test_corrupt_row_is_named(parquet_root: Path, write_parquet: WriteParquet) -> None:
    write_parquet(parquet_root / "data/train-00001-of-00002.parquet", [b"broken", b"broken"], [0, 1])
    with pytest.raises(UsageError, match=r"train-00001-of-00002\.parquet, row 0: damaged"):
        open_splits("parquet", {"root": parquet_root})


def test_row_without_bytes_is_named(parquet_root: Path, write_parquet: WriteParquet) -> None:
    write_parquet(parquet_root / "data/train-00001-of-00002.parquet", [None], [0])
    with pytest.raises(UsageError, match=r"train-00001-of-00002\.parquet, row 0: no bytes"):
        open_splits("parquet", {"root": parquet_root})


def test_unknown_label_column(parquet_root: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no column 'labels'; did you mean 'label'\?; `--data\.label NAME` says which"
    ):
        open_splits("parquet", {"root": parquet_root, "label": "labels"})


@pytest.mark.parametrize("content", [b"", b"not parquet at all"])
def test_unreadable_parquet_file_is_named(parquet_root: Path, content: bytes) -> None:
    (parquet_root / "data/train-00001-of-00002.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"train-00001-of-00002\.parquet: not a readable parquet file"):
        open_splits("parquet", {"root": parquet_root})


def test_folder_without_parquet_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no files named train\*\.parquet, nor in a folder train, in"):
        open_splits("parquet", {"root": tmp_path})


def test_pattern_outside_the_folder(parquet_root: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.train /x: expected a pattern below"):
        open_splits("parquet", {"root": parquet_root, "train": "/x"})


def test_parquet_without_pyarrow(parquet_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(parquet_columns, "_pyarrow", parquet_columns._pyarrow.__wrapped__)
    with pytest.raises(UsageError, match=r"pip install 'advss\[parquet\]'"):
        open_splits("parquet", {"root": parquet_root})


# ---------------------------------------------------------------- class names
def _with_names(*names: str) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}})}


@pytest.mark.parametrize("other", ["test-00000-of-00001.parquet", "data/train-00001-of-00002.parquet"])
def test_class_names_in_another_order_are_refused(parquet_root: Path, other: str) -> None:
    path = parquet_root / "data" / Path(other).name
    pq.write_table(pq.read_table(path).replace_schema_metadata(_with_names("dog", "cat")), path)
    with pytest.raises(
        UsageError, match=rf"train-00000.* has the classes cat, dog, .*{path.name} has dog, cat: one label"
    ):
        _source(parquet_root).labels("train")


def test_a_label_beyond_the_class_names(parquet_root: Path, write_parquet: WriteParquet) -> None:
    write_parquet(parquet_root / "data/test-00000-of-00001.parquet", [b""], [2])
    with pytest.raises(UsageError, match=r"test-00000-of-00001\.parquet: label 2 is none of the 2 classes: 0, 1"):
        open_splits("parquet", {"root": parquet_root})


# ---------------------------------------------------------------- columns
LABELS = {
    "text": (pa.array(["dog", "cat"]), ("cat", "dog"), [1, 0]),
    "long text": (pa.array(["dog", "cat"], pa.large_string()), ("cat", "dog"), [1, 0]),
    "categorical": (pa.array(["dog", "cat"]).dictionary_encode(), ("cat", "dog"), [1, 0]),
    "boolean": (pa.array([True, False]), ("false", "true"), [1, 0]),
    "numbers": (pa.array([700, 3], pa.uint16()), ("3", "700"), [1, 0]),
    "numbers as categories": (pa.array([700, 3]).dictionary_encode(), ("3", "700"), [1, 0]),
}


@pytest.mark.parametrize(("labels", "classes", "places"), LABELS.values(), ids=LABELS)
def test_labels_of_every_kind(
    write: Write, tmp_path: Path, labels: Any, classes: tuple[str, ...], places: list[int]
) -> None:
    write("train.parquet", "test.parquet", labels=labels)
    source = _source(tmp_path)
    assert (source.classes(), source.labels("test").tolist()) == (classes, places)


def test_labels_of_a_partition(write: Write, tmp_path: Path) -> None:
    table = pa.table({"image": [_png(3), _png(4), _png(5)], "species": ["dog", "big cat", "dog"]})
    pq.write_to_dataset(table, tmp_path / "train", partition_cols=["species"])
    source = _source(tmp_path, label="species")
    assert source.classes() == ("big cat", "dog")
    assert dict(zip(_levels(source, "train"), source.labels("train").tolist(), strict=True)) == {3: 1, 4: 0, 5: 1}


def test_a_test_label_that_no_training_image_has(write: Write, tmp_path: Path) -> None:
    write("train.parquet", labels=["cat", "dog"])
    write("test.parquet", labels=["cat", "wolf"])
    with pytest.raises(UsageError, match=r"test\.parquet: label 'wolf' is none of the 2 classes: cat, dog"):
        _source(tmp_path).labels("test")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([0, None]), r"train\.parquet, row 1: no label in column 'label'"),
        (pa.array([0.0, 1.0]), r"train\.parquet: column 'label' is double, expected whole numbers, text or booleans"),
    ],
)
def test_what_is_no_label_is_refused(write: Write, tmp_path: Path, labels: Any, said: str) -> None:
    write("train.parquet", labels=labels)
    with pytest.raises(UsageError, match=said):
        _source(tmp_path).labels("train")


def _images(kind: pa.DataType) -> pa.Array:
    return pa.array([_png(8), _png(9)], kind)


IMAGES = {
    "bytes": _images(pa.binary()),
    "long bytes": _images(pa.large_binary()),
    "categories": _images(pa.binary()).dictionary_encode(),
    "struct": pa.array([{"bytes": _png(8), "path": "a.png"}, {"bytes": _png(9), "path": None}]),
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_images_of_every_kind(write: Write, tmp_path: Path, images: Any) -> None:
    write("train.parquet", images=images)
    assert _levels(_source(tmp_path), "train") == [8, 9]


def test_columns_are_options(write: Write, tmp_path: Path) -> None:
    write("train.parquet", content=_images(pa.binary()), fine=["a", "b"])
    source = _source(tmp_path, image="content", label="fine")
    assert (_levels(source, "train"), source.classes()) == ([8, 9], ("a", "b"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "imag"}, r"no column 'imag'; did you mean 'image'\?; `--data\.image NAME` says which"),
        (
            {"image": "label"},
            r"column 'label' is int64, expected bytes or a struct \{bytes, path\}; `--data\.image NAME`",
        ),
    ],
)
def test_another_image_column(write: Write, tmp_path: Path, options: dict[str, str], said: str) -> None:
    write("train.parquet")
    with pytest.raises(UsageError, match=said):
        _levels(_source(tmp_path, **options), "train")


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_columns_are_read_in_pieces(write: Write, tmp_path: Path, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_columns, "PIECE_BYTES", 1)
    write("train.parquet", images=images, labels=pa.array(["dog", "cat"]).dictionary_encode())
    assert parquet_columns.images_of(tmp_path / "train.parquet", "image").num_chunks == 2
    source = _source(tmp_path)
    assert (_levels(source, "train"), source.labels("train").tolist()) == ([8, 9], [1, 0])
