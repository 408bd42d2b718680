"""Images without label: label -1, or a folder without classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from advss.data.fingerprint import PartName
from advss.data.options import make_source
from advss.data.sources.digits import Digits
from advss.data.splits import Splits, open_splits
from advss.data.summary import summary
from advss.data.watch import Found, Watch
from advss.errors import UsageError
from advss.hookspecs import Split

TRAINED: tuple[PartName, ...] = ("train", "valid")


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of which every third image has no label, those to test included."""
    labels = Digits.labels

    def some(self: Digits, split: Split) -> torch.Tensor:
        kept = labels(self, split)
        return kept.where(torch.arange(len(kept)) % 3 > 0, -1)

    monkeypatch.setattr(Digits, "labels", some)


@pytest.fixture
def flat(folder_root: Path) -> Path:
    """A folder of ten images."""
    return folder_root / "train/cat"


def _counts(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels + 1).tolist()


# ---------------------------------------------------------------- limit and split
@pytest.mark.usefixtures("hidden")
def test_no_label_is_one_class_for_the_limit() -> None:
    splits = open_splits("digits", {}, limit=220, parts=TRAINED)
    assert _counts(torch.cat([splits.train.labels, splits.valid.labels])) == [20] * 11


@pytest.mark.usefixtures("hidden")
def test_no_label_is_one_class_for_the_split() -> None:
    splits = open_splits("digits", {}, parts=TRAINED)
    counts = [_counts(part.labels) for part in (splits.train, splits.valid)]
    assert sum(map(sum, counts)) == 1437
    assert [abs(v - (t + v) / 10) < 1 for t, v in zip(*counts, strict=True)] == [True] * 11
    assert counts[0][0] + counts[1][0] == 479  # a third


@pytest.mark.usefixtures("hidden")
def test_labelled_images_are_the_same_ones_numbered_anew() -> None:
    whole = open_splits("digits", {}, limit=220)
    few = whole.labelled
    for name in ("train", "valid"):
        part, kept = getattr(whole, name), getattr(few, name)
        places = (part.labels >= 0).nonzero().squeeze(1)
        assert torch.equal(kept.labels, part.labels[places])
        assert torch.equal(kept.images.read(torch.arange(len(kept))), part.images.read(places))
        assert torch.equal(kept.index.argsort(), part.index[places].argsort())
    assert torch.equal(torch.cat([few.train.index, few.valid.index]).sort().values, torch.arange(200))
    assert (few.facts.images, whole.facts.images, few.fingerprint) == (200, 220, whole.fingerprint)


def test_where_all_have_a_label_nothing_is_made_anew() -> None:
    splits = open_splits("digits", {}, limit=20)
    assert splits.labelled is splits


@pytest.mark.usefixtures("hidden")
def test_images_to_test_without_label_are_left_out_before_the_limit() -> None:
    whole, few = open_splits("digits", {}).test, open_splits("digits", {}, limit=100).test
    assert (len(whole), _counts(few.labels)) == (240, [0] + [10] * 10)
    assert (whole.index % 3 > 0).all()  # places in the whole test set


@pytest.mark.usefixtures("hidden")
def test_they_are_counted() -> None:
    told: list[Found] = []

    class Told(Watch):
        def found(self, found: Found) -> None:
            told.append(found)

    open_splits("digits", {}, limit=220, watch=Told())
    assert summary(told[0]) == [
        "data digits: 198 images to train on, 22 to validate on, 220 to test; 10 classes, 32x32 pixels; without label, "
        "and left out of fine-tuning and measuring: 18 to train on, 2 to validate on, 120 to test"
    ]


# ---------------------------------------------------------------- a folder without classes
def test_a_flat_folder_is_divided_to_pretrain_on(flat: Path) -> None:
    splits = open_splits("imagefolder", {"root": flat}, parts=TRAINED)
    assert (splits.classes, splits.facts.classes, splits.facts.images) == ((), 0, 10)
    assert (splits.train.labels.tolist(), splits.valid.labels.tolist()) == ([-1] * 9, [-1])


def test_what_is_no_image_in_a_flat_folder_is_passed_over(flat: Path) -> None:
    for name in ("a.txt", ".b.png"):
        (flat / name).write_text("not an image")
    assert open_splits("imagefolder", {"root": flat}, parts=TRAINED).passed_over == {".txt": 1, "hidden": 1}


def test_folders_of_classes_need_no_test_images_to_pretrain_on(folder_root: Path) -> None:
    splits = open_splits("imagefolder", {"root": folder_root / "train"}, parts=TRAINED)
    assert (splits.classes, splits.facts.images) == (("cat", "dog"), 20)


def _refused(root: Path, said: str, **options: Any) -> None:
    with pytest.raises(UsageError, match=said):
        open_splits("imagefolder", {"root": root, **options})


def test_without_test_images_nothing_can_be_measured(folder_root: Path, flat: Path) -> None:
    share = r"no folder '.*/test' to test on; `--data\.test-share 0\.2` takes a part of the training images for it"
    _refused(folder_root / "train", f"{share}$")
    _refused(flat, f"{share}; where it holds no class folders, `advss pretrain` alone takes it$")


def test_without_labels_nothing_can_be_measured(flat: Path) -> None:
    said = "--data imagefolder: none of the 7 training images has a label; without, `advss pretrain` takes images"
    _refused(flat, said, test_share=0.2)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "no images and no class folders in '.*'; expected .*/CLASS/")


# ---------------------------------------------------------------- other sources
def test_a_source_that_tells_of_no_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "splits", lambda self: ("train",))
    assert open_splits("digits", {}, parts=TRAINED).facts.images == 1437
    with pytest.raises(UsageError, match=r"--data digits: there are no test images, nor an option --data\.test-share"):
        open_splits("digits", {})


def test_labels_where_there_are_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "classes", lambda self: ())
    with pytest.raises(UsageError, match="digits: labels reach 9, expected -1, no label, of no classes"):
        open_splits("digits", {})


Write = Callable[[Path, list[bytes | None], list[int]], None]


def test_minus_1_is_no_label_in_parquet(parquet_root: Path, write_parquet: Write) -> None:
    labels = [0, 1, -1, -1, 0]
    write_parquet(parquet_root / "data/test-00000-of-00001.parquet", [b""] * 5, labels)
    assert make_source("parquet", {"root": parquet_root}).labels("test").tolist() == labels


def test_parquet_without_a_column_of_labels(parquet_root: Path) -> None:
    splits = open_splits("parquet", {"root": parquet_root, "label": ""}, parts=TRAINED)
    assert (splits.classes, splits.facts.images, set(splits.train.labels.tolist())) == ((), 20, {-1})


def test_stl10s_unlabelled_images(write_stl10: Callable[[NDArray[np.uint8]], None], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    write_stl10(pixels)
    more = np.random.default_rng(1).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    (tmp_path / "stl10_binary/unlabeled_X.bin").write_bytes(more.transpose(0, 3, 2, 1).tobytes())
    splits: Splits = open_splits("stl10", {"root": tmp_path, "unlabelled": True}, parts=TRAINED)
    labels = torch.cat([splits.train.labels, splits.valid.labels]).sort().values
    assert labels.tolist() == [-1] * 6 + [0, 1, 2, 3]
    found = torch.cat([part.images.read(torch.arange(len(part))) for part in (splits.train, splits.valid)])
    assert {image.numpy().tobytes() for image in found} == {
        image.tobytes() for image in np.concatenate([pixels, more]).transpose(0, 3, 1, 2)
    }
