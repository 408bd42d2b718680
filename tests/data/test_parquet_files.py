"""Which parquet files are read, and for which split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advss.data.options import make_source
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.hookspecs import DataSource, Split

Write = Callable[..., None]


def _levels(source: DataSource, split: Split) -> list[int]:
    images = source.images(split, torch.arange(len(source.labels(split))))
    levels: list[int] = images[:, 0, 0, 0].tolist()
    return levels


def _source(root: Path, **options: Any) -> DataSource:
    return make_source("parquet", {"root": root, **options})


# ---------------------------------------------------------------- one set
SETS = {
    "two snapshots": ("snapshots/a/data/train-00000-of-00001.parquet", "snapshots/b/data/train-00000-of-00001.parquet"),
    "two configurations": ("plain/train-00000-of-00001.parquet", "large/train-00000-of-00001.parquet"),
    "two stems": ("train.parquet", "train_small.parquet"),
    "two folders": ("default/train/0000.parquet", "other/train/0000.parquet"),
    "a file and a folder": ("train.parquet", "train/part-0.parquet"),
    "two numbers of shards": ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"),
    "one shard twice": (
        "train-00000-of-00001-0123456789abcdef.parquet",
        "train-00000-of-00001-fedcba9876543210.parquet",
    ),
    "two sides": ("train_32.parquet", "train_64.parquet"),
}


@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_several_sets_are_refused_by_name(write: Write, tmp_path: Path, names: tuple[str, ...]) -> None:
    write("test.parquet", *names)
    with pytest.raises(
        UsageError, match=r"holds 2 sets of train files: .*`--data\.train PATTERN` or `--data\.root"
    ) as error:
        _source(tmp_path).labels("train")
    assert all(f"'{name}'" in str(error.value) for name in names)


@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_a_pattern_chooses_one_of_several_sets(write: Write, tmp_path: Path, names: tuple[str, ...]) -> None:
    write("test.parquet", *names)
    assert _levels(_source(tmp_path, train=names[1]), "train") == [4, 5]


def test_several_sets_of_test_files_are_refused(write: Write, tmp_path: Path) -> None:
    write("train.parquet", "test.parquet", "test_small.parquet")
    with pytest.raises(
        UsageError, match=r"holds 2 sets of test files: 'test\.parquet', 'test_small\.parquet'; `--data\.te"
    ):
        _source(tmp_path).labels("test")


SHARDS = {
    "hugging face": ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
    "hashes": ("train-00000-of-00002-0123456789abcdef.parquet", "train-00001-of-00002-fedcba9876543210.parquet"),
    "numbers": ("train_0.parquet", "train_1.parquet"),
    "numbers from 1": ("train1.parquet", "train2.parquet"),
    "numbers in a folder": ("default/train/0000.parquet", "default/train/0001.parquet"),
    "spark": (
        "train/part-00000-6b0f2d0e-0f5b-4e8c-9c41-2f1a6a7d9e11-c000.snappy.parquet",
        "train/part-00003-6b0f2d0e-0f5b-4e8c-9c41-2f1a6a7d9e11-c000.snappy.parquet",
    ),
    "spark's folder": ("train.parquet/part-00000.c000.gz.parquet", "train.parquet/part-00001.c000.gz.parquet"),
    "spark's partition": ("split=train/part-00000.parquet", "split=train/part-00001.parquet"),
    "pandas": ("train/part.0.parquet", "train/part.1.parquet"),
}


@pytest.mark.parametrize("names", SHARDS.values(), ids=SHARDS)
def test_shards_are_one_set(write: Write, tmp_path: Path, names: tuple[str, ...]) -> None:
    write(*names)
    assert _levels(_source(tmp_path), "train") == [0, 1, 2, 3]


def test_a_shard_that_is_missing_is_named(write: Write, tmp_path: Path) -> None:
    write("data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet")
    with pytest.raises(
        UsageError, match=r"data' holds 2 of 3 shards of the train files, number 1 is not there; fetch it"
    ):
        _source(tmp_path).labels("train")


def test_hidden_files_and_other_names_are_passed_over_and_counted(write: Write, tmp_path: Path) -> None:
    write("train/part-0.parquet", "train/_temporary/part-1.parquet", ".old/train.parquet", "extra.parquet")
    for name in ("train/_SUCCESS", "train/.part-0.parquet.crc", "README.md"):
        (tmp_path / name).touch()
    source = _source(tmp_path)
    assert _levels(source, "train") == [0, 1]
    assert source.passed_over() == {"hidden": 4, ".md": 1, ".parquet of other names": 1}


def test_a_cache_of_links_is_read(write: Write, tmp_path: Path) -> None:
    write("blobs/0a1b")
    (tmp_path / "snapshots/c0ffee/data").mkdir(parents=True)
    (tmp_path / "snapshots/c0ffee/data/train-00000-of-00001.parquet").symlink_to("../../../blobs/0a1b")
    assert _levels(_source(tmp_path), "train") == [0, 1]


# ---------------------------------------------------------------- splits
@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_validation_files_are_validated_on(write: Write, tmp_path: Path, name: str) -> None:
    write("train.parquet", f"{name}-00000-of-00001.parquet", "test.parquet")
    splits = open_splits("parquet", {"root": tmp_path})
    levels = [part.images.read(torch.arange(2))[:, 0, 0, 0].tolist() for part in (splits.train, splits.valid)]
    assert levels == [[0, 1], [2, 3]]


def test_validation_files_are_no_test_files(write: Write, tmp_path: Path) -> None:
    write("train.parquet", "validation.parquet")
    with pytest.raises(
        UsageError, match=r"no files named test\*\.parquet.*`--data\.test PATTERN`.*`--data\.test-share 0\.2`"
    ):
        open_splits("parquet", {"root": tmp_path})


def test_a_pattern_makes_validation_files_test_files(write: Write, tmp_path: Path) -> None:
    write("train.parquet", "validation.parquet")
    source = _source(tmp_path, test="validation*")
    assert (source.splits(), _levels(source, "test")) == (("train", "test"), [2, 3])


def test_a_file_of_two_patterns_is_refused(write: Write, tmp_path: Path) -> None:
    write("train.parquet", "test.parquet")
    with pytest.raises(UsageError, match=r"test\.parquet is both of `--data\.train` and of `--data\.test`"):
        _source(tmp_path, train="t*.parquet", test="test*").labels("train")


@pytest.mark.parametrize("root", ["", "flowers.parquet"])
def test_a_share_of_a_lone_file_is_tested_on(write: Write, tmp_path: Path, root: str) -> None:
    write("flowers.parquet")
    source = _source(tmp_path / root, test_share=0.5)
    assert sorted(_levels(source, "train") + _levels(source, "test")) == [0, 1]


def test_a_lone_file_is_told_of_its_share(write: Write, tmp_path: Path) -> None:
    write("flowers.parquet")
    with pytest.raises(UsageError, match=r"flowers\.parquet' is one file, without a test split; `--data\.test-share 0"):
        _source(tmp_path / "flowers.parquet").labels("test")
