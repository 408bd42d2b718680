"""Which files of a folder are read, and for what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advss.data.options import make_source
from advss.data.splits import Part, Splits, open_splits
from advss.errors import UsageError

Read = Callable[..., Splits]


@pytest.fixture
def read(folder_root: Path) -> Read:
    def read(**options: Any) -> Splits:
        return open_splits("imagefolder", {"root": folder_root, **options})

    return read


def _images(part: Part) -> set[bytes]:
    return {pixels.numpy().tobytes() for pixels in part.images.read(torch.arange(len(part)))}


# ---------------------------------------------------------------- validation images
@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_a_folder_of_validation_images_is_validated_on(folder_root: Path, read: Read, name: str) -> None:
    tested = _images(read().test)
    (folder_root / "test").rename(folder_root / name)
    (folder_root / "train").rename(folder_root / "test")  # other images, so that the two cannot be confused
    (folder_root / "train").symlink_to(folder_root / "test")
    splits = read()
    assert (_images(splits.valid), len(splits.train)) == (tested, 20)


def test_two_folders_of_validation_images_are_refused(folder_root: Path, read: Read) -> None:
    for name in ("val", "valid"):
        (folder_root / name).mkdir()
    with pytest.raises(UsageError, match=r"both '.*/valid' and '.*/val' hold valid images; keep one of them"):
        read()


def test_validation_images_are_no_test_images(folder_root: Path, read: Read) -> None:
    (folder_root / "test").rename(folder_root / "val")
    with pytest.raises(UsageError, match=r"no folder '.*/test' to test on; `--data\.test-share 0\.2` takes a part"):
        read()


# ---------------------------------------------------------------- a folder without test images
@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_of_each_class_is_tested_on(folder_root: Path, seed: int) -> None:
    whole = open_splits("imagefolder", {"root": folder_root})
    (folder_root / "test").rename(folder_root / "elsewhere")
    splits = open_splits("imagefolder", {"root": folder_root, "test_share": 0.2}, seed=seed)
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    parts = [_images(part) for part in (splits.train, splits.valid, splits.test)]
    assert set.union(*parts) == _images(whole.train) | _images(whole.valid)
    assert sum(map(len, parts)) == 20


def test_what_a_share_takes_is_the_same_under_every_seed(folder_root: Path) -> None:
    (folder_root / "test").rename(folder_root / "val")
    options = {"root": folder_root, "test_share": 0.2}
    first, second = (open_splits("imagefolder", options, seed=seed) for seed in (0, 1))
    assert _images(first.test) == _images(second.test)


def test_a_share_of_a_folder_of_classes(folder_root: Path) -> None:
    options = {"root": folder_root / "train", "test_share": 0.5}
    assert len(make_source("imagefolder", options).labels("test")) == 10


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_share_of_classes_beside_another_split_is_refused(name: str, folder_root: Path) -> None:
    """It would be a class, too."""
    root = folder_root / "train"
    (root / name / "cat").mkdir(parents=True)
    with pytest.raises(
        UsageError, match=rf"'.*{name}' lies beside the folders of the classes; put these into '.*train'"
    ):
        make_source("imagefolder", {"root": root, "test_share": 0.5}).classes()


def test_a_share_beside_test_images_is_refused(read: Read) -> None:
    with pytest.raises(UsageError, match=r"--data\.test-share 0\.2: there are test images already"):
        read(test_share=0.2)


@pytest.mark.parametrize("share", [-0.1, 1.0, 20.0])
def test_what_is_no_share_is_refused(read: Read, share: float) -> None:
    with pytest.raises(UsageError, match=rf"--data\.test-share {share}: expected a share of the images, 0 or more and"):
        read(test_share=share)


def test_a_share_that_takes_nothing_is_refused(folder_root: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.test-share 0\.01: 0 of 20 images; choose another share"):
        open_splits("imagefolder", {"root": folder_root / "train", "test_share": 0.01})


# ---------------------------------------------------------------- what is passed over
def test_what_is_no_image_is_passed_over_and_counted(folder_root: Path, read: Read) -> None:
    for name in ("cat/a.txt", "cat/b.TXT", "dog/c.gif", "dog/README", "cat/.d.png", "e.png"):
        (folder_root / "train" / name).write_text("not an image")
    (folder_root / "test/cat/.hidden/below").mkdir(parents=True)
    for name in ("cat/.hidden/f.png", "cat/.hidden/below/g.png"):
        (folder_root / "test" / name).write_text("not an image")
    splits = read()
    assert splits.passed_over == {
        ".txt": 2,
        ".gif": 1,
        "without ending": 1,
        "hidden": 3,
        ".png beside the classes": 1,
    }
    assert (splits.facts.images, len(splits.test)) == (20, 8)


def test_a_folder_below_a_hidden_folder_is_read(folder_root: Path, tmp_path: Path) -> None:
    folder_root.rename(tmp_path / ".cache")
    assert len(make_source("imagefolder", {"root": tmp_path / ".cache"}).labels("train")) == 20


# ---------------------------------------------------------------- links
def test_linked_folders_are_followed(folder_root: Path, read: Read) -> None:
    (folder_root / "train/cat").rename(folder_root / "cats")
    (folder_root / "train/cat").mkdir()
    (folder_root / "train/cat/all").symlink_to(folder_root / "cats")
    splits = read()
    assert (splits.facts.images, splits.passed_over) == (20, {})


@pytest.mark.parametrize("target", ["train/cat", "train", "."])
def test_circles_of_links_are_not_followed(folder_root: Path, read: Read, target: str) -> None:
    (folder_root / "train/cat/again").symlink_to(folder_root / target)
    splits = read()
    assert (splits.facts.images, splits.passed_over) == (20, {"linked folders that were read already": 1})


def test_a_folder_that_is_linked_twice_is_read_once(folder_root: Path, read: Read) -> None:
    (folder_root / "train/cat").rename(folder_root / "cats")
    (folder_root / "train/cat").mkdir()
    for name in ("a", "b"):
        (folder_root / "train/cat" / name).symlink_to(folder_root / "cats")
    assert read().facts.images == 20


def test_the_folder_counts_and_not_the_link_to_it(folder_root: Path, read: Read) -> None:
    labels = read().train.labels.bincount()
    (folder_root / "train/cat/0-first").symlink_to(folder_root / "train/dog")
    assert torch.equal(read().train.labels.bincount(), labels)


def test_a_class_that_is_a_link_to_another_is_refused(folder_root: Path, read: Read) -> None:
    for split in ("train", "test"):
        (folder_root / split / "kitty").symlink_to("cat")
    with pytest.raises(UsageError, match=r"class folder '.*/train/kitty' is a link to '.*/train/cat', where no images"):
        read()


# ---------------------------------------------------------------- background
def test_the_background_is_an_option(folder_root: Path, read: Read) -> None:
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    for path in folder_root.rglob("*.png"):
        Image.fromarray(clear).save(path)
    levels = [int(read(**said).train.images.read(torch.tensor([0])).max()) for said in ({}, {"background": "black"})]
    assert levels == [255, 0]
