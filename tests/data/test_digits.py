from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from advss.data.sources.digits import Digits
from advss.data.splits import Splits, open_splits


def _sets(splits: Splits) -> list[set[bytes]]:
    parts = (splits.train, splits.valid, splits.test)
    return [{image.numpy().tobytes() for image in part.images.read(torch.arange(len(part)))} for part in parts]


def test_split_sizes() -> None:
    splits = open_splits("digits", {})
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [1293, 144, 360]


def test_images_are_32_pixels_rgb_uint8() -> None:
    part = open_splits("digits", {}).train
    pixels = part.images.read(torch.arange(5))
    assert (pixels.shape, pixels.dtype) == ((5, 3, 32, 32), torch.uint8)


def test_channels_are_equal() -> None:
    pixels = open_splits("digits", {}).test.images.read(torch.arange(360))
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_no_image_is_in_two_parts() -> None:
    train, valid, test = _sets(open_splits("digits", {}))
    assert not train & valid
    assert not (train | valid) & test


def test_test_set_does_not_depend_on_the_seed() -> None:
    first, second = (open_splits("digits", {}, seed=seed) for seed in (0, 7))
    assert _sets(first)[2] == _sets(second)[2]


def test_validation_depends_on_the_seed() -> None:
    first, second = (open_splits("digits", {}, seed=seed) for seed in (0, 7))
    assert not torch.equal(first.valid.index, second.valid.index)


def test_test_set_has_every_class_in_proportion() -> None:
    counts = open_splits("digits", {}).test.labels.bincount()
    expected = np.bincount(load_digits().target) * 360 / 1797
    assert np.abs(counts.numpy() - expected).max() <= 1


def test_every_stored_image_is_used_once() -> None:
    source = Digits()
    labels = torch.cat([source.labels("train"), source.labels("test")])
    assert labels.bincount().tolist() == np.bincount(load_digits().target).tolist()


def test_images_are_resized_as_pillow_resizes_them() -> None:
    grey = (load_digits().images * (255 / 16)).astype(np.float32)
    resize = [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) for image in grey]
    oracle = np.stack(resize)
    ours = Digits().images("test", torch.arange(20))[:, 0].numpy().astype(np.float32)
    # some stored digit, resized, is each of ours to within the rounding
    assert all(np.abs(oracle - image).max((1, 2)).min() < 0.51 for image in ours)


def test_index_counts_training_and_validation_images_once() -> None:
    splits = open_splits("digits", {})
    places = torch.cat([splits.train.index, splits.valid.index]).sort().values
    assert torch.equal(places, torch.arange(splits.facts.images))
