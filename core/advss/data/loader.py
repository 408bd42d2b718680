"""Batches on the device, each a function of (key, epoch, step) alone.

Letters: B images of a batch, C channels, S the side, P that of what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from advss.data.augmentation import Augment, augmented, drawn
from advss.data.images import Images, InMemory, centre, unit
from advss.data.prefetch import Ahead
from advss.data.resized_crop import drawn_boxes, resized_crops
from advss.data.splits import Part
from advss.errors import UsageError
from advss.hookspecs import Batch
from advss.randomness import Key, stream


def steps_of(images: int, batch_size: int, epoch_steps: int) -> int:
    """Whole batches in an epoch: one or more whole passes, at least ``epoch_steps``; 0 where no batch is whole."""
    once = images // batch_size
    return once * max(1, math.ceil(epoch_steps / once)) if once else 0


class Loader:
    """Shuffled, augmented batches of a part, or its images in order.

    A part in memory lives on ``device`` as uint8 and batches are indexed there; one on disk is decoded ahead by
    threads. Both give the same batches.

    Args:
        part: the images.
        batch_size: B; the last, partial batch of an epoch is dropped.
        device: where batches are made.
        augment: what is drawn anew for each image.
        key: of the random streams; its last part is the stage, which errors name: (seed, stage).
        epoch_steps: fewest batches of an epoch, which is then several passes over the part.

    Raises:
        UsageError: ``batch_size`` is not positive.
    """

    def __init__(
        self,
        part: Part,
        *,
        batch_size: int,
        device: torch.device,
        augment: Augment,
        key: tuple[Key, ...],
        epoch_steps: int = 0,
    ) -> None:
        _check(batch_size)
        self.batch_size, self._epoch_steps = batch_size, epoch_steps
        self._device = device
        self._augment = augment
        self._key = key
        self._images: Images = part.images.to(device) if isinstance(part.images, InMemory) else part.images
        self._index = part.index.to(device)
        self._labels = part.labels.to(device)
        # where places are needed: on the device, or on the CPU by the threads that decode
        self._where = device if isinstance(self._images, InMemory) else torch.device("cpu")
        self._places = _Places(len(part), batch_size, key=key, device=self._where)
        self._pixels = self._reader(self._images.whole if augment.area else self._images.read, self._places)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, of one or more whole passes.

        Raises:
            UsageError: the part is smaller than a batch.
        """
        if len(self) < self.batch_size:
            raise UsageError(
                f"{len(self)} images are fewer than a batch of {self.batch_size}: lower "
                f"`--{self._key[-1]}-batch-size`, or keep more images"
            )
        return steps_of(len(self), self.batch_size, self._epoch_steps)

    def batch(self, epoch: int, step: int, *, progress: float) -> Batch:
        """Batch ``step`` (0 to steps_per_epoch - 1) of ``epoch``, whatever was asked for before.

        Raises:
            UsageError: the part is smaller than a batch, or an image on disk cannot be read.
        """
        position = epoch * self.steps_per_epoch + step
        pixels = self._pixels(position)
        whole = unit(pixels)
        raw = centre(whole, self._images.side)
        if self._augment.area:
            x = self.augmented(whole, epoch, step)
        else:
            x = unit(self.augmented(pixels, epoch, step)) if self._augment else raw
        return self._batch(x, raw, self._places(position), progress)

    def traced(self, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Batch]:
        """Pixels that require a gradient, and batch ``step`` of ``epoch`` with ``raw`` and ``x`` made of them.

        They are what is stored where random resized crops are taken of it, else the batch's ``raw``.
        """
        cut = self._augment.area and self._images.whole_side > self._images.side
        pixels = unit(self._pixels(epoch * self.steps_per_epoch + step)) if cut else batch.raw.detach()
        pixels.requires_grad_()
        raw, x = centre(pixels, self._images.side), self.augmented(pixels, epoch, step)
        return pixels, replace(batch, raw=raw, x=x)

    def augmented(self, images_BCPP: Tensor, epoch: int, step: int) -> Tensor:
        """Images as those of batch ``step`` of ``epoch`` are augmented, its ``x`` of the pixels that it was made of.

        Differentiable in images of floats; random resized crops are made of floats alone.
        """
        if not self._augment:
            return images_BCPP
        generator, count = stream(self._device, *self._key, "augment", epoch, step), len(images_BCPP)
        corners_2B, mirrored_B = drawn(self._augment, count, generator)
        if not self._augment.area:
            return augmented(images_BCPP, corners_2B, mirrored_B, padding=self._augment.crop)
        boxes_4B = drawn_boxes(count, images_BCPP.shape[-1], self._augment.area, generator)
        return resized_crops(images_BCPP, boxes_4B, mirrored_B, self._images.side)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order and not augmented; the last batch may be smaller.

        Raises:
            UsageError: ``batch_size`` is not positive, or an image on disk cannot be read.
        """
        _check(batch_size)
        chunks = torch.split(torch.arange(len(self), device=self._where), batch_size)
        read = self._reader(self._images.read, chunks.__getitem__, end=len(chunks))
        for position, places in enumerate(chunks):
            raw = unit(read(position))
            yield self._batch(raw, raw, places, 0.0)

    def _batch(self, x: Tensor, raw: Tensor, places: Tensor, progress: float) -> Batch:
        places = places.to(self._device)
        return Batch(x, raw, self._index[places], self._labels[places], progress)

    def _reader(
        self, read: Callable[[Tensor], Tensor], places_at: Callable[[int], Tensor], end: int | None = None
    ) -> Callable[[int], Tensor]:
        """From a position to the uint8 images that ``read`` gives at ``places_at`` it, on the device."""
        device = self._device
        if isinstance(self._images, InMemory):
            return lambda position: read(places_at(position))

        def decoded(position: int) -> Tensor:
            pixels = read(places_at(position))
            return pixels.pin_memory() if device.type == "cuda" else pixels

        ahead = Ahead(decoded, end=end)
        return lambda position: ahead(position).to(device, non_blocking=True)


class _Places:
    """Shuffled places of the images of batches. It knows no loader, so that threads that read ahead keep none alive."""

    def __init__(self, count: int, batch_size: int, *, key: tuple[Key, ...], device: torch.device) -> None:
        self._steps = count // batch_size
        self._batch_size = batch_size
        # reading ahead reaches into the next epoch
        self._shuffled = lru_cache(maxsize=2)(partial(_shuffled, count, key, device))

    def __call__(self, position: int) -> Tensor:
        """Places (B,) of the batch at ``position``, counted from the first of epoch 0."""
        which, step = divmod(position, self._steps)  # each pass is shuffled anew
        return self._shuffled(which)[step * self._batch_size : (step + 1) * self._batch_size]


def _shuffled(count: int, key: tuple[Key, ...], device: torch.device, which: int) -> Tensor:
    return torch.randperm(count, generator=stream("cpu", *key, "order", which)).to(device)


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: expected at least 1")
