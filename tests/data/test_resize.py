"""Images of the centre of what is stored, as torchvision's Resize and CenterCrop give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from advss.config import RunConfig
from advss.configuration.resolve import resolve
from advss.data import reading
from advss.data.decoding import Decoder
from advss.data.splits import Splits, open_splits
from advss.errors import UsageError
from advss.runs.session import open_data

NOISE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
SHAPES = [(90, 140), (90, 131), (77, 64), (64, 64), (33, 90), (20, 139)]


def _expected(image: Image.Image, resized: int, size: int) -> torch.Tensor:
    seen: torch.Tensor = pil_to_tensor(center_crop(resize(image, [resized]), [size, size]))
    return seen


@pytest.mark.parametrize("size", [32, 40, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_files_are_resized_and_cropped_as_by_torchvision(tmp_path: Path, shape: tuple[int, int], size: int) -> None:
    image = Image.fromarray(NOISE[: shape[0], : shape[1]])
    image.save(tmp_path / "a.png")
    decoded = Decoder(size=size)(1, lambda i: ("a.png", tmp_path / "a.png"))
    assert torch.equal(decoded[0], _expected(image, size, size))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Cats and dogs, ten training and four test images of each, of the six shapes in turn."""
    root = tmp_path / "photos"
    for split, count in (("train", 10), ("test", 4)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = SHAPES[i % len(SHAPES)]
                pixels = np.roll(NOISE, 7 * i + 3 * (name == "cat"), 1)[:height, :width]
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def _opened(root: Path, *, size: int, resize: int) -> Splits:
    return open_splits("imagefolder", {"root": root}, size=size, resize=resize)


@pytest.mark.parametrize("resident", [0, 2**30])
def test_test_images_are_the_centres(photos: Path, resident: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RESIDENT_BYTES", resident)
    splits = _opened(photos, size=56, resize=64)
    files = sorted((photos / "test").rglob("*.png"))
    expected = torch.stack([_expected(Image.open(file), 64, 56) for file in files])
    assert torch.equal(splits.test.images.read(torch.arange(8)), expected)
    assert (splits.side, splits.facts.side) == (56, 56)


def test_what_is_stored_is_larger(photos: Path) -> None:
    whole = _opened(photos, size=56, resize=64).train.images.whole(torch.tensor([0, 3]))
    assert whole.shape == (2, 3, 64, 64)


def test_the_fingerprint_is_of_the_images(photos: Path) -> None:
    first, second = (_opened(photos, size=56, resize=resize) for resize in (64, 80))
    assert "test images" in first.fingerprint.of("test").unlike(second.fingerprint.of("test"))


@pytest.mark.parametrize("size", [0, 80])
def test_a_size_that_does_not_fit_is_refused(photos: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"--data.resize 64: needs a --data.size from 1 to 64, got {size}"):
        _opened(photos, size=size, resize=64)


# ---------------------------------------------------------------- in a configuration
def _config(photos: Path, **said: object) -> RunConfig:
    chosen = {"data": {"imagefolder": {"root": str(photos)}}, "data.size": 56, "data.resize": 64, "pretext": "none"}
    return resolve(chosen | said, configs=["imagenet"], environ={})


def test_a_run_has_its_images_so(photos: Path) -> None:
    assert open_data(_config(photos)).train.images.whole_side == 64


def test_pretraining_data_have_theirs(photos: Path) -> None:
    said = {"pretext": "rotation", "pretrain-data": {"imagefolder": {"root": str(photos)}}}
    config = _config(photos, **said, **{"pretrain-data.size": 40, "pretrain-data.resize": 48})
    assert open_data(config, flag="pretrain-data").train.images.whole_side == 48


def test_a_resize_of_no_pretraining_data(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"--pretrain-data\.resize 48: no --pretrain-data is chosen"):
        _config(photos, **{"pretrain-data.resize": 48})


def test_two_ways_of_cropping_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"--finetune-resized-crop 0\.08 and --finetune-crop 4: .* --finetune-crop 0"):
        _config(photos, **{"finetune-crop": 4})
