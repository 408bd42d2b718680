from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from advss.data.augmentation import Augment
from advss.data.images import InMemory, OnDisk
from advss.data.loader import Loader
from advss.data.splits import Part
from advss.errors import UsageError
from advss.hookspecs import Batch

CPU = torch.device("cpu")
BOTH = Augment(2, flip=True)


def _loader(part: Part, *, augment: Augment = BOTH, batch_size: int = 8, seed: int = 0) -> Loader:
    return Loader(part, batch_size=batch_size, device=CPU, augment=augment, key=(seed, "pretrain"))


def _on_disk(part: Part, read: Callable[[Tensor], Tensor] | None = None) -> Part:
    return Part(OnDisk(read or part.images.read, torch.arange(len(part)), side=8), part.index, part.labels)


def _equal(first: Batch, second: Batch) -> bool:
    pairs = ((first.x, second.x), (first.raw, second.raw), (first.index, second.index), (first.label, second.label))
    return all(torch.equal(a, b) for a, b in pairs) and first.progress == second.progress


def test_batch_holds_floats_between_0_and_1(part: Part) -> None:
    batch = _loader(part).batch(0, 0, progress=0.25)
    assert (batch.x.dtype, batch.x.shape, batch.progress) == (torch.float32, (8, 3, 8, 8), 0.25)
    assert 0 <= float(batch.x.min()) < float(batch.x.max()) <= 1


def test_raw_images_are_those_of_their_index(part: Part) -> None:
    batch = _loader(part).batch(3, 2, progress=0.0)
    assert torch.equal(batch.raw, part.images.read(batch.index - 100) / 255)


def test_labels_are_those_of_their_index(part: Part) -> None:
    batch = _loader(part).batch(3, 2, progress=0.0)
    assert torch.equal(batch.label, (batch.index - 100) % 2)


def test_without_augmentation_x_is_raw(part: Part) -> None:
    batch = _loader(part, augment=Augment()).batch(0, 0, progress=0.0)
    assert batch.x is batch.raw


@pytest.mark.parametrize("augment", [BOTH, Augment(3), Augment(flip=True), Augment()], ids=str)
def test_raw_images_are_augmented_to_x_bit_for_bit(part: Part, augment: Augment) -> None:
    loader = _loader(part, augment=augment)
    batch = loader.batch(1, 3, progress=0.0)
    raw = batch.raw.requires_grad_()
    x = loader.augmented(raw, 1, 3)
    assert torch.equal(x, batch.x)
    assert x.requires_grad


def test_an_epoch_of_more_steps_is_whole_passes_each_in_an_order_of_its_own(part: Part) -> None:
    loader = Loader(part, batch_size=8, device=CPU, augment=BOTH, key=(0, "pretrain"), epoch_steps=len(part) // 8 + 1)
    once = len(part) // 8
    assert loader.steps_per_epoch == 2 * once
    first, second = (
        torch.cat([loader.batch(1, step, progress=0.0).index for step in range(start, start + once)])
        for start in (0, once)
    )
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


def test_an_epoch_holds_every_image_once(part: Part) -> None:
    loader = _loader(part)
    index = torch.cat([loader.batch(1, step, progress=0.0).index for step in range(loader.steps_per_epoch)])
    assert torch.equal(index.sort().values, part.index)


def test_the_last_partial_batch_is_dropped(part: Part) -> None:
    assert _loader(part, batch_size=12).steps_per_epoch == 3


def test_equal_keys_give_equal_batches(part: Part) -> None:
    assert _equal(_loader(part).batch(2, 1, progress=0.0), _loader(part).batch(2, 1, progress=0.0))


def test_another_key_gives_another_order(part: Part) -> None:
    first, second = (_loader(part, seed=seed).batch(0, 0, progress=0.0) for seed in (0, 1))
    assert not torch.equal(first.index, second.index)


def test_another_epoch_gives_another_order(part: Part) -> None:
    loader = _loader(part)
    assert not torch.equal(loader.batch(0, 0, progress=0.0).index, loader.batch(1, 0, progress=0.0).index)


def test_another_epoch_augments_otherwise() -> None:
    alike = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(40, 3, 1, 1)
    loader = _loader(Part(InMemory(alike), torch.arange(40), torch.zeros(40, dtype=torch.int64)))
    assert not torch.equal(loader.batch(0, 0, progress=0.0).x, loader.batch(1, 0, progress=0.0).x)


def test_another_step_augments_otherwise() -> None:
    alike = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(40, 3, 1, 1)
    loader = _loader(Part(InMemory(alike), torch.arange(40), torch.zeros(40, dtype=torch.int64)))
    assert not torch.equal(loader.batch(0, 0, progress=0.0).x, loader.batch(0, 1, progress=0.0).x)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_batch_does_not_depend_on_those_before_it(part: Part, on_disk: bool) -> None:
    held = _on_disk(part) if on_disk else part
    walked = _loader(held)
    batches = {(e, s): walked.batch(e, s, progress=0.0) for e in range(2) for s in range(5)}
    for epoch, step in ((1, 3), (0, 4), (0, 4), (1, 0)):
        assert _equal(_loader(held).batch(epoch, step, progress=0.0), batches[epoch, step])
        assert _equal(walked.batch(epoch, step, progress=0.0), batches[epoch, step])


def test_streaming_equals_resident(part: Part) -> None:
    resident, streaming = _loader(part), _loader(_on_disk(part))
    for epoch in range(3):
        for step in range(resident.steps_per_epoch):
            assert _equal(resident.batch(epoch, step, progress=0.5), streaming.batch(epoch, step, progress=0.5))


def test_streaming_in_order_equals_resident(part: Part) -> None:
    pairs = zip(_loader(part).in_order(12), _loader(_on_disk(part)).in_order(12), strict=True)
    assert all(_equal(first, second) for first, second in pairs)


def test_in_order_gives_every_image_once(part: Part) -> None:
    batches = list(_loader(part).in_order(12))
    assert [len(batch.x) for batch in batches] == [12, 12, 12, 4]
    assert torch.equal(torch.cat([batch.index for batch in batches]), part.index)


def test_in_order_does_not_augment(part: Part) -> None:
    batch = next(_loader(part).in_order(40))
    assert torch.equal(batch.x, part.images.read(torch.arange(40)) / 255)


def test_in_order_works_for_a_part_smaller_than_a_batch(part: Part) -> None:
    assert len(list(_loader(part, batch_size=64).in_order(64))) == 1


def test_streaming_reads_the_next_batches_before_they_are_asked_for(part: Part) -> None:
    read = threading.Semaphore(0)

    def reader(rows: Tensor) -> Tensor:
        read.release()
        return part.images.read(rows)

    loader = _loader(_on_disk(part, reader))
    loader.batch(0, 0, progress=0.0)
    assert all(read.acquire(timeout=10) for _ in range(4))


def test_streaming_raises_what_the_reader_raised(part: Part) -> None:
    def reader(rows: Tensor) -> Tensor:
        raise UsageError("a.png: not a readable image")

    with pytest.raises(UsageError, match=r"^a\.png: not a readable image$"):
        _loader(_on_disk(part, reader)).batch(0, 0, progress=0.0)


def test_threads_end_with_the_loader(part: Part) -> None:
    before = set(threading.enumerate())
    loader = _loader(_on_disk(part))
    loader.batch(0, 0, progress=0.0)
    own = set(threading.enumerate()) - before
    del loader
    for thread in own:
        thread.join(10)
    assert own
    assert not any(thread.is_alive() for thread in own)


def test_augmentation_leaves_the_stored_images_as_they_are(part: Part) -> None:
    assert isinstance(part.images, InMemory)
    before = part.images.pixels.clone()
    _loader(part).batch(0, 0, progress=0.0).x.zero_()
    assert torch.equal(part.images.pixels, before)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_part_smaller_than_a_batch(part: Part, stage: str) -> None:
    loader = Loader(part, batch_size=64, device=CPU, augment=Augment(crop=0, flip=False), key=(0, stage))
    message = f"40 images are fewer than a batch of 64: lower `--{stage}-batch-size`, or keep more images"
    with pytest.raises(UsageError, match=f"^{message}$"):
        _ = loader.steps_per_epoch


def test_batch_size_0(part: Part) -> None:
    with pytest.raises(UsageError, match="batch size 0: expected at least 1"):
        _loader(part, batch_size=0)
