from __future__ import annotations

import numpy as np
import pytest
import torch

from advss.data.augmentation import Augment, augmented, drawn
from advss.errors import UsageError


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("padding", [0, 2, 5])
def test_equals_a_plain_loop(padding: int, dtype: torch.dtype) -> None:
    pixels = torch.randint(0, 256, (16, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    corners, mirrored = drawn(Augment(padding, flip=True), 16, torch.Generator().manual_seed(1))
    expected = np.zeros(pixels.shape)
    for i, (image, row, column, flip) in enumerate(zip(pixels.numpy(), *corners.tolist(), mirrored, strict=True)):
        canvas = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = canvas[:, row : row + 8, column : column + 8]
        expected[i] = crop[:, :, ::-1] if flip else crop
    assert np.array_equal(augmented(pixels, corners, mirrored, padding=padding).numpy(), expected)


def test_each_image_has_its_own_crop_and_flip() -> None:
    corners, mirrored = drawn(Augment(4, flip=True), 64, torch.Generator().manual_seed(0))
    assert len(set(map(tuple, corners.T.tolist()))) > 30
    assert 16 < int(mirrored.sum()) < 48


def test_crops_begin_anywhere_from_0_to_twice_the_padding() -> None:
    corners, _ = drawn(Augment(2), 500, torch.Generator().manual_seed(0))
    assert set(corners.flatten().tolist()) == {0, 1, 2, 3, 4}


def test_nothing_is_mirrored_unless_asked() -> None:
    assert not drawn(Augment(2), 100, torch.Generator().manual_seed(0))[1].any()


def test_negative_padding() -> None:
    with pytest.raises(UsageError, match=r"crop -1: expected a padding"):
        Augment(-1)
