"""SimCLR's augmentations: what each does to an image, against closed forms and torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as tv
from torch import Generator, Tensor

from advss_contrastive import augmentation
from advss_contrastive.augmentation import augmented, cropped, grey, jittered, turned

SIDE = 32


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 5, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, SIDE, SIDE, generator=generator(1))


def test_views_are_images_of_the_generator_alone() -> None:
    x = images()
    first, second, third = (augmented(x, generator(s), crop=0.2, flip=0.5, jitter=1.0) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.shape == x.shape
    assert 0 <= first.min() <= first.max() <= 1


def test_each_image_has_draws_of_its_own() -> None:
    views = augmented(images(1).repeat(8, 1, 1, 1), generator(), crop=0.2, flip=0.5, jitter=0.4)
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_nothing_to_crop_or_mirror_is_the_image() -> None:
    x = images()
    torch.testing.assert_close(cropped(x, generator(), smallest=1.0, flip=0.0), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(cropped(x, generator(), smallest=1.0, flip=1.0), x.flip(3), atol=1e-5, rtol=0)


def test_half_of_the_images_are_mirrored() -> None:
    x = images(400)
    found = cropped(x, generator(), smallest=1.0, flip=0.5)
    mirrored = (found - x.flip(3)).flatten(1).abs().amax(1) < 1e-4
    assert 160 < int(mirrored.sum()) < 240


def test_crops_have_the_areas_sides_and_places_that_are_asked_for() -> None:
    """Of an image whose channels are its coordinates a crop shows where it lies: slopes are sides, offsets places."""
    ramp = (torch.arange(SIDE) + 0.5) / SIDE
    across, down = ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE)
    x = torch.stack([across, down]).repeat(500, 1, 1, 1)
    found = cropped(x, generator(), smallest=0.2, flip=0.0)
    inner = slice(4, -4)  # away from the rim, where a crop at the image's edge reads half a pixel beyond it
    width = found[:, 0, 16, inner].diff(dim=1).mean(1) * SIDE
    height = found[:, 1, inner, 16].diff(dim=1).mean(1) * SIDE
    area, ratio = width * height, width / height
    assert 0.2 - 1e-3 < area.min() < 0.25
    assert 0.95 < area.max() < 1 + 1e-3
    assert 3 / 4 - 1e-3 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3 + 1e-3
    left = found[:, 0, 16, 16] - width * 16.5 / SIDE
    assert left.min() > -1e-3
    assert (left + width).max() < 1 + 1e-3


def test_images_of_one_channel_keep_their_values() -> None:
    x = images(channels=1)
    torch.testing.assert_close(augmented(x, generator(), crop=1.0, flip=0.0, jitter=1.0), x, atol=1e-5, rtol=0)


def test_brightness_contrast_and_saturation_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "turned", lambda x, turn: x)
    x, draws = images(), generator()
    found = jittered(x, generator(), strength=0.4)
    brightness, contrast, saturation = (torch.empty(5).uniform_(0.6, 1.4, generator=draws).tolist() for _ in range(3))
    for place, image in enumerate(x):
        expected = tv.adjust_brightness(image, brightness[place])
        expected = tv.adjust_saturation(tv.adjust_contrast(expected, contrast[place]), saturation[place])
        torch.testing.assert_close(found[place], expected, atol=1e-3, rtol=0)


def test_a_third_of_a_turn_of_hue_moves_each_colour_to_the_next() -> None:
    x = images()
    torch.testing.assert_close(turned(x, torch.full((5, 1, 1, 1), 1 / 3)), x.roll(1, 1), atol=1e-5, rtol=0)


def test_hue_leaves_grey_and_the_mean_of_the_channels() -> None:
    x, turn = images(), torch.full((5, 1, 1, 1), 0.1)
    torch.testing.assert_close(turned(x, turn).mean(1), x.mean(1))
    torch.testing.assert_close(turned(grey(x), turn), grey(x))
    assert (turned(x, turn) - x).abs().max() > 0.1


def test_a_fifth_of_the_images_is_grey() -> None:
    found = augmented(images(500), generator(), crop=1.0, flip=0.0, jitter=0.4)
    is_grey = (found - found[:, :1]).flatten(1).abs().amax(1) < 1e-6
    assert 70 < int(is_grey.sum()) < 130
