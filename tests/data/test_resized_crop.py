"""Random resized crops, held against torchvision's."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop

from advss.data.augmentation import Augment
from advss.data.images import InMemory, OnDisk, centre
from advss.data.loader import Loader
from advss.data.resized_crop import drawn_boxes, resized_crops
from advss.data.splits import Part
from advss.errors import UsageError

CPU = torch.device("cpu")
STILL = torch.zeros(16, dtype=torch.bool)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=_generator(), dtype=torch.uint8)


# ---------------------------------------------------------------- what is drawn
@pytest.mark.parametrize("area", [0.08, 0.5])
def test_boxes_are_distributed_as_torchvisions(area: float) -> None:
    torch.manual_seed(0)  # of torchvision's draws
    image = torch.empty(3, 256, 256)
    theirs = [RandomResizedCrop.get_params(image, [area, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    first, second = (_measures(boxes) for boxes in (drawn_boxes(4000, 256, area, _generator()), torch.tensor(theirs).T))
    for name, values in first.items():
        assert ks_2samp(values.numpy(), second[name].numpy()).pvalue > 1e-3, name


def _measures(boxes_4B: Tensor) -> dict[str, Tensor]:
    top, left, height, width = boxes_4B.double()
    return {"area": height * width, "ratio": width / height, "top": top, "left": left}


def test_boxes_lie_in_the_image() -> None:
    top, left, height, width = drawn_boxes(2000, 9, 0.3, _generator())
    assert int(torch.stack([top, left]).min()) >= 0
    assert int(torch.stack([height, width]).min()) >= 1
    assert int((top + height).max()) == 9
    assert int((left + width).max()) == 9


def test_what_never_fits_is_the_whole_image() -> None:
    boxes = drawn_boxes(
        500, 1000, 0.9999999, _generator()
    )  # of such an area only a square fits, one ratio in a thousand
    assert {tuple(box) for box in boxes.T.tolist()} == {(0, 0, 1000, 1000)}


# ---------------------------------------------------------------- what is made of it
@pytest.mark.parametrize("side", [12, 20, 40])
def test_crops_are_torchvisions(side: int) -> None:
    images = _images(16, 32) / 255
    boxes = drawn_boxes(16, 32, 0.1, _generator(1))
    expected = torch.stack(
        [
            resized_crop(image, *box, [side, side], antialias=True)
            for image, box in zip(images, boxes.T.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(resized_crops(images, boxes, STILL, side), expected, atol=2e-6, rtol=0)


def test_mirrored_crops_are_the_crops_mirrored() -> None:
    images, boxes = _images(16, 32) / 255, drawn_boxes(16, 32, 0.1, _generator(1))
    crops, mirrored = (resized_crops(images, boxes, flags, 20) for flags in (STILL, ~STILL))
    assert torch.equal(mirrored, crops.flip(3))


def test_white_stays_in_range_and_keeps_its_gradient() -> None:
    images = torch.ones(16, 3, 32, 32, requires_grad=True)
    crops = resized_crops(images, drawn_boxes(16, 32, 0.1, _generator(1)), STILL, 20)
    assert float(crops.detach().max()) <= 1
    (gradient,) = torch.autograd.grad(crops.sum(), images)
    torch.testing.assert_close(gradient.sum((1, 2, 3)), torch.full((16,), 3 * 20 * 20.0))


# ---------------------------------------------------------------- batches
def _part(side: int = 24, whole: int = 32, *, on_disk: bool = False) -> Part:
    held = InMemory(_images(40, whole), side=side)
    images = OnDisk(held.whole, torch.arange(40), side=side, whole_side=whole) if on_disk else held
    return Part(images, torch.arange(40), torch.zeros(40, dtype=torch.int64))


def _loader(part: Part, *, area: float = 0.2) -> Loader:
    return Loader(part, batch_size=8, device=CPU, augment=Augment(flip=True, area=area), key=(0, "finetune"))


def test_a_batch_is_of_crops_of_the_whole_beside_its_centre() -> None:
    batch = _loader(_part()).batch(1, 2, progress=0.0)
    whole = _images(40, 32)[batch.index]
    assert batch.x.shape == batch.raw.shape == (8, 3, 24, 24)
    assert torch.equal(batch.raw, whole[..., 4:28, 4:28] / 255)
    assert not torch.equal(batch.x, batch.raw)


@pytest.mark.parametrize("area", [0.0, 0.2])
def test_streamed_batches_are_those_in_memory(area: float) -> None:
    memory, disk = (_loader(_part(on_disk=on_disk), area=area) for on_disk in (False, True))
    for epoch, step in ((0, 0), (0, 4), (2, 1), (0, 1)):
        first, second = (loader.batch(epoch, step, progress=0.0) for loader in (memory, disk))
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.raw, second.raw)


def test_a_batch_hangs_on_nothing_before_it() -> None:
    walked = _loader(_part(on_disk=True))
    batches = [walked.batch(0, step, progress=0.0).x for step in range(5)]
    assert torch.equal(_loader(_part(on_disk=True)).batch(0, 3, progress=0.0).x, batches[3])


def test_each_step_and_each_image_is_cropped_otherwise() -> None:
    alike = torch.arange(32, dtype=torch.uint8).view(1, 1, 1, 32).expand(40, 3, 32, 32).contiguous()
    part = Part(InMemory(alike, side=24), torch.arange(40), torch.zeros(40, dtype=torch.int64))
    x = torch.cat([_loader(part).batch(0, step, progress=0.0).x for step in range(2)])
    assert len(torch.unique(x[:, 0], dim=0)) == 16


def test_in_order_are_the_centres() -> None:
    batch = next(_loader(_part(on_disk=True)).in_order(40))
    assert torch.equal(batch.x, centre(_images(40, 32), 24) / 255)


@pytest.mark.parametrize("whole", [24, 32])
def test_a_traced_batch_is_the_batch_with_its_way_back(whole: int) -> None:
    loader = _loader(_part(whole=whole))
    batch = loader.batch(1, 3, progress=0.0)
    pixels, traced = loader.traced(batch, 1, 3)
    assert torch.equal(traced.x, batch.x)
    assert torch.equal(traced.raw, batch.raw)
    for made in (traced.x, traced.raw):
        (gradient,) = torch.autograd.grad(made.sum(), pixels, retain_graph=True)
        assert gradient.shape == (8, 3, whole, whole)
        assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"area": 1.0}, r"area 1\.0: expected a share of the area, 0 or more and below 1"),
        ({"area": -0.1}, r"area -0\.1: expected a share"),
        ({"area": 0.1, "crop": 4}, r"area 0\.1 and crop 4: an image is cropped in one way"),
    ],
)
def test_what_is_refused(augment: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augment(**augment)  # type: ignore[arg-type]
