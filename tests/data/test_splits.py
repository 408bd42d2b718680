from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from advss.data import reading, statistics
from advss.data.images import OnDisk
from advss.data.sources.digits import Digits
from advss.data.splits import Part, Splits, open_splits, part_tensors
from advss.errors import UsageError
from advss.hookspecs import Split


def _kept(splits: Splits) -> torch.Tensor:
    """Labels of the training images that were kept, validation included."""
    return torch.cat([splits.train.labels, splits.valid.labels])


def _pixels(part: Part) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = part.images.read(torch.arange(len(part))).numpy()
    return pixels


# ---------------------------------------------------------------- limit
def test_limit_counts_training_and_validation_together() -> None:
    splits = open_splits("digits", {}, limit=200)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [180, 20, 200]


def test_limit_is_class_balanced() -> None:
    splits = open_splits("digits", {}, limit=200)
    assert _kept(splits).bincount().tolist() == [20] * 10
    assert splits.test.labels.bincount().tolist() == [20] * 10


def test_validation_has_the_classes_in_proportion() -> None:
    assert open_splits("digits", {}, limit=200).valid.labels.bincount().tolist() == [2] * 10


def test_limit_above_the_test_set_keeps_all_of_it() -> None:
    assert len(open_splits("digits", {}, limit=1000).test) == 360


def test_limit_above_everything_keeps_everything() -> None:
    assert open_splits("digits", {}, limit=10**6).facts.images == 1437


def test_limit_is_the_same_for_the_same_seed() -> None:
    assert open_splits("digits", {}, limit=100).fingerprint == open_splits("digits", {}, limit=100).fingerprint


def test_limit_keeps_other_training_images_by_another_seed_and_the_same_test_images() -> None:
    first, second = (open_splits("digits", {}, limit=100, seed=seed).fingerprint.parts for seed in (0, 1))
    assert [part for part in first if first[part] != second[part]] == ["train", "valid"]


def test_limits_choose_within_the_parts_that_a_larger_limit_has() -> None:
    large, small = (open_splits("digits", {}, limit=limit, seed=3) for limit in (0, 150))
    for one, other in ((large.train, small.train), (large.valid, small.valid), (large.test, small.test)):
        assert {image.tobytes() for image in _pixels(other)} <= {image.tobytes() for image in _pixels(one)}


def test_places_are_below_the_number_of_kept_images() -> None:
    splits = open_splits("digits", {}, limit=100)
    places = torch.cat([splits.train.index, splits.valid.index]).sort().values
    assert torch.equal(places, torch.arange(100))


def test_test_places_are_those_in_the_whole_test_set() -> None:
    whole, few = open_splits("digits", {}).test, open_splits("digits", {}, limit=50).test
    assert np.array_equal(_pixels(whole)[few.index.numpy()], _pixels(few))


def test_negative_limit() -> None:
    with pytest.raises(UsageError, match=r"--data\.limit -5: expected a number of images"):
        open_splits("digits", {}, limit=-5)


def test_limit_too_small_to_divide() -> None:
    with pytest.raises(UsageError, match="1 training image: at least 2 are needed"):
        open_splits("digits", {}, limit=1)


# ---------------------------------------------------------------- validation images of the source's own
@pytest.fixture
def with_valid(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """Digits that tell of the first 37 of their test images as validation images."""
    labels, images = Digits.labels, Digits.images

    def own_labels(self: Digits, split: Split) -> torch.Tensor:
        return labels(self, "test")[:37] if split == "valid" else labels(self, split)

    def own_images(self: Digits, split: Split, places_B: torch.Tensor) -> torch.Tensor:
        return images(self, "test" if split == "valid" else split, places_B)

    monkeypatch.setattr(Digits, "splits", lambda self: ("train", "valid", "test"))
    monkeypatch.setattr(Digits, "labels", own_labels)
    monkeypatch.setattr(Digits, "images", own_images)
    return open_splits("digits", {})


def test_own_validation_images_are_validated_on(with_valid: Splits) -> None:
    assert np.array_equal(_pixels(with_valid.valid), _pixels(with_valid.test)[:37])


def test_all_training_images_are_trained_on_beside_own_validation_images(with_valid: Splits) -> None:
    assert (len(with_valid.train), with_valid.facts.images) == (1437, 1437 + 37)


def test_places_of_own_validation_images_follow_those_trained_on(with_valid: Splits) -> None:
    assert torch.equal(torch.cat([with_valid.train.index, with_valid.valid.index]), torch.arange(1437 + 37))


# ---------------------------------------------------------------- what is said of the data
def test_mean_and_std_are_those_of_the_training_part(folder_root: Path) -> None:
    splits = open_splits("imagefolder", {"root": folder_root})
    pixels = _pixels(splits.train).astype(np.float64) / 255
    assert splits.mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert splits.std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


def test_std_of_a_constant_channel_is_one_level(folder_root: Path) -> None:
    for path in folder_root.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[:, :, 1] = 7
        Image.fromarray(pixels).save(path)
    splits = open_splits("imagefolder", {"root": folder_root})
    assert (splits.mean[1], splits.std[1]) == pytest.approx((7 / 255, 1 / 255))


def test_facts(folder_root: Path) -> None:
    facts = open_splits("imagefolder", {"root": folder_root}).facts
    assert (facts.images, facts.side, facts.channels, facts.classes) == (20, 8, 3, 2)


@pytest.mark.parametrize("split", ["train", "test"])
def test_fingerprint_sees_one_changed_pixel(folder_root: Path, split: str) -> None:
    before = open_splits("imagefolder", {"root": folder_root}).fingerprint
    path = folder_root / split / "dog/003.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert open_splits("imagefolder", {"root": folder_root}).fingerprint != before


def test_fingerprint_sees_a_changed_label(folder_root: Path) -> None:
    before = open_splits("imagefolder", {"root": folder_root}).fingerprint
    (folder_root / "train/dog/000.png").rename(folder_root / "train/cat/999.png")
    assert open_splits("imagefolder", {"root": folder_root}).fingerprint != before


def test_train_and_test_of_different_sides(folder_root: Path) -> None:
    for path in (folder_root / "test").rglob("*.png"):
        Image.open(path).resize((4, 4)).save(path)
    with pytest.raises(UsageError, match=r"000\.png: 4x4 pixels, expected 8x8 like the others; `--data\.size N`"):
        open_splits("imagefolder", {"root": folder_root})


def test_size_brings_all_to_one_side(folder_root: Path) -> None:
    for path in (folder_root / "test").rglob("*.png"):
        Image.open(path).resize((4, 9)).save(path)
    assert open_splits("imagefolder", {"root": folder_root}, size=6).facts.side == 6


@pytest.mark.parametrize("side", [8, 20, 32, 96])
def test_size_resizes_what_a_source_gives_as_pillow_does(side: int) -> None:
    own, splits = open_splits("digits", {}, limit=20).test, open_splits("digits", {}, limit=20, size=side)
    assert (splits.facts.side, splits.side) == (side, side)
    for one, other in zip(_pixels(own), _pixels(splits.test), strict=True):
        image = Image.fromarray(one.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(image).transpose(2, 0, 1).astype(int) - other).max() <= 1  # Pillow rounds in between


def test_negative_size() -> None:
    with pytest.raises(UsageError, match=r"--data\.size -1: expected a side in pixels"):
        open_splits("digits", {}, size=-1)


# ---------------------------------------------------------------- sets too large to hold
@pytest.fixture
def streamed(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> Splits:
    monkeypatch.setattr(reading, "RESIDENT_BYTES", 0)
    return open_splits("imagefolder", {"root": folder_root})


def test_large_sets_stay_on_disk(streamed: Splits) -> None:
    assert isinstance(streamed.train.images, OnDisk)


def test_large_sets_give_the_same_images(streamed: Splits, folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    held = open_splits("imagefolder", {"root": folder_root})
    for first, second in ((held.train, streamed.train), (held.valid, streamed.valid), (held.test, streamed.test)):
        assert np.array_equal(_pixels(first), _pixels(second))


def test_large_sets_are_measured_on_a_sample_spread_over_them(
    folder_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(statistics, "SAMPLE", 6)
    splits = open_splits("imagefolder", {"root": folder_root})
    every_third = _pixels(splits.train)[::3].astype(np.float64) / 255  # 18 training images
    assert splits.mean == pytest.approx(every_third.mean((0, 2, 3)), abs=1e-12)


def test_large_sets_are_checked_for_what_shows_at_the_beginning(
    folder_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(statistics, "SAMPLE", 1)
    (folder_root / "train/cat/007.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cat/007\.png: damaged"):
        open_splits("imagefolder", {"root": folder_root})


# ---------------------------------------------------------------- parts
def test_part_tensors_are_floats_between_0_and_1(part: Part) -> None:
    x, y = part_tensors(part)
    assert (x.dtype, x.shape) == (torch.float32, (40, 3, 8, 8))
    assert torch.equal(x, torch.from_numpy(_pixels(part)) / 255)
    assert torch.equal(y, part.labels)


def test_part_tensors_limit_is_balanced(part: Part) -> None:
    assert part_tensors(part, limit=10)[1].bincount().tolist() == [5, 5]


def test_subset_keeps_images_index_and_labels_together(part: Part) -> None:
    subset = part.subset(11)
    assert torch.equal(subset.labels, (subset.index - 100) % 2)
    assert np.array_equal(_pixels(subset), _pixels(part)[subset.index.numpy() - 100])


@pytest.mark.parametrize("count", [0, 40, 50])
def test_subset_of_all(part: Part, count: int) -> None:
    assert part.subset(count) is part


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_part_of_a_part_holds_its_own_images(part: Part, on_disk: bool) -> None:
    images = OnDisk(part.images.read, torch.arange(40), side=8) if on_disk else part.images
    inner = Part(images, part.index, part.labels).select(torch.arange(20, 40)).select(torch.tensor([3, 1]))
    assert np.array_equal(_pixels(inner), _pixels(part)[[23, 21]])
    assert inner.index.tolist() == [123, 121]
