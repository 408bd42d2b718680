"""Training, validation and test images of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advss.data.division import Chosen, divide
from advss.data.fingerprint import CALLED, PARTS, Digest, Fingerprint, PartName
from advss.data.images import Images, unit
from advss.data.options import make_source
from advss.data.reading import read_images, read_side
from advss.data.selection import few
from advss.data.statistics import channel_statistics, digest
from advss.data.watch import Found, Watch
from advss.errors import UsageError
from advss.hookspecs import DataFacts, DataSource

UNWATCHED = Watch()


@dataclass(frozen=True)
class Part:
    """Some images of a run: n of them."""

    images: Images
    index: Tensor  # (n,) int64: place among the run's training images, validation included, or in the whole test set
    labels: Tensor  # (n,) int64; -1 where there is none

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: Tensor) -> Part:
        """The part made of the images at ``places`` (of 0 to n-1)."""
        return Part(self.images.select(places), self.index[places], self.labels[places])

    def subset(self, count: int) -> Part:
        """``count`` images, always the same, as many of each class as there are; 0, or more than n, keeps all."""
        return self.select(few(self.labels, count, "subset")) if 0 < count < len(self) else self


@dataclass(frozen=True)
class Splits:
    """The data of a run, or those parts of them that were opened."""

    parts: Mapping[PartName, Part]
    classes: tuple[str, ...]  # none where no image has a label
    fingerprint: Fingerprint  # of these parts
    name: str  # of the source
    passed_over: Mapping[str, int]  # files among the images that are not read, by kind

    @property
    def train(self) -> Part:
        """The images to train on."""
        return self.parts["train"]

    @property
    def valid(self) -> Part:
        """The images to validate on."""
        return self.parts["valid"]

    @property
    def test(self) -> Part:
        """The images to test."""
        return self.parts["test"]

    @property
    def side(self) -> int:
        """In pixels, of every image."""
        return next(iter(self.parts.values())).images.side

    @property
    def facts(self) -> DataFacts:
        """What a model is made for; the images are those to train and to validate on."""
        return DataFacts(images=len(self.train) + len(self.valid), side=self.side, classes=len(self.classes))

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel over the training part, pixels in [0, 1]."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """As :attr:`mean`, the standard deviation."""
        return self._statistics[1]

    @cached_property
    def labelled(self) -> Splits:
        """The images that have a label, those to train and to validate on numbered anew; itself where all have one."""
        if all(bool((part.labels >= 0).all()) for part in self.parts.values()):
            return self
        kept = {name: part.select((part.labels >= 0).nonzero().squeeze(1)) for name, part in self.parts.items()}
        trained = torch.cat([part.index for name, part in kept.items() if name != "test"]).sort().values
        for name in kept.keys() - {"test"}:
            kept[name] = replace(kept[name], index=torch.searchsorted(trained, kept[name].index))
        return replace(self, parts=kept)

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.train.images)


def open_splits(
    name: str,
    options: dict[str, Any],
    *,
    limit: int = 0,
    size: int = 0,
    resize: int = 0,
    seed: int = 0,
    parts: Sequence[PartName] = PARTS,
    watch: Watch = UNWATCHED,
) -> Splits:
    """Read the data of a run: images to train on, to validate on and to test.

    Where the source has no validation images, they are 10 % of the training images, by class; images without label are
    a class among the others. Whatever the limit, an image that is validated on by a seed is not trained on by it, and a
    smaller limit keeps some of what a larger keeps.

    Args:
        name: of the source.
        options: of the source.
        limit: keep at most that many images of each split that the source has, as many of each class; 0 keeps all.
        size: side in pixels that the images are brought to; 0 leaves them as they are.
        resize: side that they are brought to first, for the centre of ``size`` to be taken; 0 is ``size``.
        seed: decides which training images are kept and validated on; the test images are the same for every seed.
        parts: which are opened; what only the others need is not read.
        watch: told what there is before the images are read, and how far that is.

    Raises:
        UsageError: unknown names or options; data that are missing, unreadable, too few or of different sides; test
            images are asked for, and a part has no labels.
    """
    _check_sizes(size, resize)
    source = make_source(name, options)
    source.size = resize or size
    chosen = divide(source, limit, seed, parts)
    classes = source.classes()
    _check_labels(name, chosen, len(classes))
    opened = _read(name, source, chosen, size, watch)
    digests = {part_name: Digest(len(part), digest(part.images, part.labels)) for part_name, part in opened.items()}
    return Splits(opened, classes, Fingerprint(classes, digests), name, source.passed_over())


def _read(
    name: str, source: DataSource, chosen: Mapping[PartName, Chosen], size: int, watch: Watch
) -> dict[PartName, Part]:
    """The parts of a set, images of one side: ``size`` where it is not 0."""
    stored = _one_side(name, {part: read_side(source, c.split, c.places[:1]) for part, c in chosen.items()})
    side = size or stored
    counts = {part: len(choice.labels) for part, choice in chosen.items()}
    unlabelled = {part: choice.unlabelled for part, choice in chosen.items() if choice.unlabelled}
    watch.found(Found(name, counts, len(source.classes()), side, source.passed_over(), unlabelled))
    tick = _Tick(watch, sum(counts.values()))
    return {
        part: Part(read_images(source, c.split, c.places, stored, tick, side=side), c.index, c.labels)
        for part, c in chosen.items()
    }


def part_tensors(part: Part, limit: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 3, S, S) float32 in [0, 1] and labels (n,) int64 of ``part``.

    ``limit`` keeps that many, always the same, as many of each class; 0 keeps all.
    """
    chosen = part.subset(limit)
    return unit(chosen.images.read(torch.arange(len(chosen)))), chosen.labels


def _check_sizes(size: int, resize: int) -> None:
    if size < 0:
        raise UsageError(f"--data.size {size}: expected a side in pixels, or 0 to take the images as they are")
    if resize and not 0 < size <= resize:
        raise UsageError(f"--data.resize {resize}: needs a --data.size from 1 to {resize}, got {size}")


class _Tick:
    """Counts what is read."""

    def __init__(self, watch: Watch, of: int) -> None:
        self.watch, self.done, self.of = watch, 0, of

    def __call__(self, count: int) -> None:
        self.done += count
        self.watch.read(done=self.done, of=self.of)


def _check_labels(name: str, chosen: Mapping[PartName, Chosen], classes: int) -> None:
    highest = max(int(part.labels.max()) for part in chosen.values())
    if highest >= classes:
        allowed = f"0 to {classes - 1} for {classes} classes" if classes else "-1, no label, of no classes"
        raise UsageError(f"{name}: labels reach {highest}, expected {allowed}")


def _one_side(name: str, sides: Mapping[PartName, int]) -> int:
    (first, side), *others = [(CALLED[part], found) for part, found in sides.items()]
    for other, found in others:
        if found != side:
            differ = f"{first} images have side {side}, {other} images {found} pixels"
            raise UsageError(f"{name}: {differ}; `--data.size N` brings all to NxN")
    return side
