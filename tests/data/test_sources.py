from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from advss.data.fingerprint import PartName
from advss.data.options import make_source
from advss.data.splits import open_splits
from advss.errors import UsageError
from advss.hookspecs import DataSource, Split

Pixels = NDArray[np.uint8]
WriteSet = Callable[[str, Pixels], None]
TEST: list[PartName] = ["test"]


def _all(source: DataSource, split: Split) -> Pixels:
    images = source.images(split, torch.arange(len(source.labels(split))))
    pixels: Pixels = images.permute(0, 2, 3, 1).numpy()
    return pixels


# ---------------------------------------------------------------- names and options
def test_unknown_source() -> None:
    with pytest.raises(UsageError, match="unknown data source 'cifar1'; did you mean 'cifar10'"):
        open_splits("cifar1", {})


def test_unknown_option() -> None:
    with pytest.raises(UsageError, match=r"unknown option --data\.rot of imagefolder; did you mean 'root'"):
        open_splits("imagefolder", {"rot": "x"})


def test_missing_option() -> None:
    with pytest.raises(UsageError, match=r"--data\.root is missing: parquet has no default for it \(Path\)"):
        open_splits("parquet", {})


@pytest.mark.parametrize("value", ["large", 2.5, None])
def test_option_of_another_type(value: object) -> None:
    with pytest.raises(UsageError, match=rf"--data\.download: expected bool, got {value!r}"):
        open_splits("cifar10", {"download": value})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), (True, True)])
def test_truth_may_be_text(text: object, value: bool) -> None:
    source = make_source("cifar10", {"download": text})
    assert vars(source)["download"] is value


def test_numbers_and_paths_may_be_text() -> None:
    source = make_source("cifar10c", {"root": "~/sets", "severity": "4"})
    assert vars(source)["root"] == Path("~/sets").expanduser()


# ---------------------------------------------------------------- imagefolder
def test_folder_gives_the_images_in_order(folder_root: Path) -> None:
    files = sorted((folder_root / "train/cat").iterdir()) + sorted((folder_root / "train/dog").iterdir())
    expected = np.stack([np.asarray(Image.open(path)) for path in files])
    assert np.array_equal(_all(make_source("imagefolder", {"root": folder_root}), "train"), expected)


def test_folder_labels_follow_the_names_of_the_classes(folder_root: Path) -> None:
    source = make_source("imagefolder", {"root": folder_root})
    assert source.classes() == ("cat", "dog")
    assert source.labels("test").tolist() == [0] * 4 + [1] * 4


def test_corrupt_file_is_named(folder_root: Path) -> None:
    path = folder_root / "train/dog/004.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"train/dog/004\.png: .*mend or remove it"):
        open_splits("imagefolder", {"root": folder_root})


def test_empty_class_folder_is_named(folder_root: Path) -> None:
    for path in (folder_root / "test/dog").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"class folder '.*test/dog' is empty"):
        open_splits("imagefolder", {"root": folder_root})


def test_class_that_is_missing_in_test_is_named(folder_root: Path) -> None:
    (folder_root / "test/dog").rename(folder_root / "test/wolf")
    with pytest.raises(UsageError, match="hold different classes: 'dog' is in one of them only"):
        open_splits("imagefolder", {"root": folder_root})


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_folder_is_named(folder_root: Path, split: str) -> None:
    (folder_root / split).rename(folder_root / "elsewhere")
    with pytest.raises(UsageError, match=f"no folder .*folder/{split}"):
        open_splits("imagefolder", {"root": folder_root})


def test_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match=r"no class folders in '.*train'"):
        open_splits("imagefolder", {"root": tmp_path})


# ---------------------------------------------------------------- torchvision
@pytest.mark.parametrize(("name", "title"), [("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"), ("stl10", "STL-10")])
def test_missing_set_says_how_to_fetch_it(tmp_path: Path, name: str, title: str) -> None:
    with pytest.raises(UsageError, match=rf"{title} is not in '.*`--data\.download true` fetches it"):
        open_splits(name, {"root": tmp_path})


def test_set_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(UsageError, match=r"CIFAR-10 could not be fetched into '.*no network"):
        open_splits("cifar10", {"root": tmp_path, "download": "true"})


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_cifar_as_torchvision_reads_it(write_cifar: WriteSet, tmp_path: Path, name: str, files: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    write_cifar(name, pixels)
    source = make_source(name, {"root": tmp_path})
    assert np.array_equal(_all(source, "test"), pixels)
    assert source.labels("train").tolist() == [0, 1, 2, 3] * files
    assert source.classes() == ("class 0", "class 1", "class 2", "class 3")


def test_stl10_as_torchvision_reads_it(write_stl10: Callable[[Pixels], None], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    write_stl10(pixels)
    source = make_source("stl10", {"root": tmp_path})
    assert np.array_equal(_all(source, "train"), pixels)
    assert source.labels("test").tolist() == [0, 1]


# ---------------------------------------------------------------- the test images alone
def _alike_without(files: list[Path], name: str, **options: object) -> None:
    """The test images and the classes' names are the same when what is trained on is gone."""
    whole = open_splits(name, options)
    assert files
    for path in files:
        path.rename(path.with_name(f"gone-{path.name}"))
    alone = open_splits(name, options, parts=TEST)
    assert alone.fingerprint == whole.fingerprint.of("test")
    assert list(alone.parts) == TEST


def test_test_images_of_a_folder_need_no_others(folder_root: Path) -> None:
    _alike_without([folder_root / "train"], "imagefolder", root=folder_root)


def test_test_images_in_parquet_need_no_others(parquet_root: Path) -> None:
    train = sorted(parquet_root.glob("data/train*"))
    _alike_without(train, "parquet", root=parquet_root)


@pytest.mark.parametrize(("name", "batches"), [("cifar10", "data_batch_*"), ("cifar100", "train")])
def test_test_images_of_cifar_need_no_others(write_cifar: WriteSet, tmp_path: Path, name: str, batches: str) -> None:
    write_cifar(name, np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    _alike_without(sorted(tmp_path.rglob(batches)), name, root=tmp_path)


def test_images_of_stl10_need_neither_the_unlabelled_nor_those_of_another_split(
    write_stl10: Callable[[Pixels], None], tmp_path: Path
) -> None:
    write_stl10(np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8))
    _alike_without(sorted(tmp_path.rglob("train*")), "stl10", root=tmp_path)


# ---------------------------------------------------------------- cifar10c
def test_cifar10c_gives_the_rows_of_a_severity(corrupted: Path) -> None:
    part = open_splits("cifar10c", {"root": corrupted, "corruption": "fog", "severity": 2}, parts=TEST).test
    assert part.images.read(torch.arange(10))[:, 0, 0, 0].tolist() == list(range(10, 20))
    assert part.labels.tolist() == list(range(10))


def test_cifar10c_unknown_corruption(corrupted: Path) -> None:
    with pytest.raises(UsageError, match=r"no '.*fogg\.npy'; did you mean 'fog'"):
        open_splits("cifar10c", {"root": corrupted, "corruption": "fogg"}, parts=TEST)


def test_cifar10c_unknown_severity(corrupted: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.severity 6: expected 1 to 5"):
        open_splits("cifar10c", {"root": corrupted, "severity": 6}, parts=TEST)


def test_cifar10c_does_not_load_pickles(corrupted: Path) -> None:
    np.save(corrupted / "fog.npy", np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"fog\.npy: not a readable \.npy file"):
        open_splits("cifar10c", {"root": corrupted, "corruption": "fog"}, parts=TEST)


def test_cifar10c_has_nothing_to_train_on(corrupted: Path) -> None:
    with pytest.raises(UsageError, match="cifar10c has test images only"):
        open_splits("cifar10c", {"root": corrupted, "corruption": "fog"})
