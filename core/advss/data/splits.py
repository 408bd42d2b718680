"""Training, validation and test images of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from advss.data.fingerprint import CALLED, PARTS, Digest, Fingerprint, PartName
from advss.data.images import Images, InMemory, OnDisk, unit
from advss.data.options import make_source
from advss.data.selection import choose
from advss.data.sources.base import EncodedSource
from advss.data.statistics import channel_statistics, digest
from advss.data.watch import Found, Watch
from advss.errors import UsageError
from advss.hookspecs import DataFacts, DataSource, Split
from advss.randomness import Key, stream

VALID_SHARE = 0.1  # of the training images
PIECE = 128  # images read at once; large photographs take a second or two of several cores
UNWATCHED = Watch()
RESIDENT_BYTES = 4 * 2**30  # a split whose decoded images take more is read from disk batch by batch


@dataclass(frozen=True)
class Part:
    """Some images of a run: n of them."""

    images: Images
    index: Tensor  # (n,) int64: place among the run's training images, validation included, or in the whole test set
    labels: Tensor  # (n,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: Tensor) -> Part:
        """The part made of the images at ``places`` (of 0 to n-1)."""
        return Part(self.images.select(places), self.index[places], self.labels[places])

    def subset(self, count: int) -> Part:
        """``count`` images, always the same, as many of each class as there are; 0, or more than n, keeps all."""
        return self.select(_few(self.labels, count, "subset")) if 0 < count < len(self) else self


@dataclass(frozen=True)
class Splits:
    """The data of a run, or those parts of them that were opened."""

    parts: Mapping[PartName, Part]
    classes: tuple[str, ...]
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
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.train.images)


def open_splits(
    name: str,
    options: dict[str, Any],
    *,
    limit: int = 0,
    seed: int = 0,
    parts: Sequence[PartName] = PARTS,
    watch: Watch = UNWATCHED,
) -> Splits:
    """Read the data of a run: images to train on, to validate on and to test.

    Where the source has no validation images, they are 10 % of the training images, by class. Whatever the limit, an
    image that is validated on by a seed is not trained on by it, and a smaller limit keeps some of what a larger keeps.

    Args:
        name: of the source.
        options: of the source.
        limit: keep at most that many images of each split that the source has, as many of each class; 0 keeps all.
        seed: decides which training images are kept and validated on; the test images are the same for every seed.
        parts: which are opened; what only the others need is not read.
        watch: told what there is before the images are read, and how far that is.

    Raises:
        UsageError: unknown names or options; data that are missing, unreadable, too few or of different sides.
    """
    source = make_source(name, options)
    chosen = {part: choice for part, choice in _choose(source, limit, seed, parts).items() if part in parts}
    classes = source.classes()
    sides = {part: _side(source, choice) for part, choice in chosen.items()}
    _check_alike(name, chosen, sides, classes)
    counts = {part: len(choice.labels) for part, choice in chosen.items()}
    watch.found(Found(name, counts, len(classes), next(iter(sides.values())), source.passed_over()))
    tick = _Tick(watch, sum(counts.values()))
    opened = {part: _opened(source, choice, sides[part], tick) for part, choice in chosen.items()}
    digests = {part_name: Digest(len(part), digest(part.images, part.labels)) for part_name, part in opened.items()}
    return Splits(opened, classes, Fingerprint(classes, digests), name, source.passed_over())


def part_tensors(part: Part, limit: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 3, S, S) float32 in [0, 1] and labels (n,) int64 of ``part``.

    ``limit`` keeps that many, always the same, as many of each class; 0 keeps all.
    """
    chosen = part.subset(limit)
    return unit(chosen.images.read(torch.arange(len(chosen)))), chosen.labels


@dataclass(frozen=True)
class _Chosen:
    """The images of a part, before they are read: n of a stored split."""

    split: Split
    places: Tensor  # (n,) int64, in the split
    index: Tensor  # as of the part
    labels: Tensor


class _Tick:
    """Counts what is read."""

    def __init__(self, watch: Watch, of: int) -> None:
        self.watch, self.done, self.of = watch, 0, of

    def __call__(self, count: int) -> None:
        self.done += count
        self.watch.read(done=self.done, of=self.of)


def _choose(source: DataSource, limit: int, seed: int, parts: Sequence[PartName]) -> dict[PartName, _Chosen]:
    """Of which images the parts are; none is read."""
    chosen: dict[PartName, _Chosen] = {}
    if "train" in parts or "valid" in parts:  # one set of images, divided
        chosen["train"], chosen["valid"] = _to_train_on(source, limit, seed)
    if "test" in parts:
        chosen["test"] = _kept(source, "test", limit)
    return chosen


def _to_train_on(source: DataSource, limit: int, seed: int) -> tuple[_Chosen, _Chosen]:
    """What is trained and validated on; places are those among both, so that per-image buffers are no larger."""
    if "valid" in source.splits():
        train, valid = _kept(source, "train", limit, seed), _kept(source, "valid", limit, seed)
        index = torch.arange(len(train.labels) + len(valid.labels))
        return replace(train, index=index[: len(train.labels)]), replace(valid, index=index[len(train.labels) :])
    with _reading(source, "train"):
        labels = _labels(source, "train", limit)
    parts = _divided(labels, limit, seed)
    both = torch.cat(parts).sort().values
    to_train, to_validate = (_Chosen("train", p, torch.searchsorted(both, p), labels[p]) for p in parts)
    return to_train, to_validate


def _check_alike(
    name: str, chosen: Mapping[PartName, _Chosen], sides: Mapping[PartName, int], classes: tuple[str, ...]
) -> None:
    (first, side), *others = [(CALLED[part], found) for part, found in sides.items()]
    for other, found in others:
        if found != side:
            raise UsageError(f"{name}: {first} images have side {side}, {other} images {found} pixels")
    highest = max(int(part.labels.max()) for part in chosen.values())
    if highest >= len(classes):
        raise UsageError(f"{name}: labels reach {highest}, expected 0 to {len(classes) - 1} for {len(classes)} classes")


def _kept(source: DataSource, split: Split, limit: int, seed: int = 0) -> _Chosen:
    with _reading(source, split):
        labels = _labels(source, split, limit)
    places = _few(labels, limit, "data", split, seed=seed)
    return _Chosen(split, places, places, labels[places])


def _opened(source: DataSource, chosen: _Chosen, side: int, tick: _Tick) -> Part:
    with _reading(source, chosen.split):
        return Part(_images(source, chosen, side, tick), chosen.index, chosen.labels)


@contextmanager
def _reading(source: DataSource, split: Split) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of a plugin's that does not say what its user can mend
        raise UsageError(f"--data {source.name}: cannot read the {split} images: {error}") from error


def _labels(source: DataSource, split: Split, limit: int) -> Tensor:
    if limit < 0:
        raise UsageError(f"--data.limit {limit}: expected a number of images, or 0 for all")
    labels = source.labels(split)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UsageError(f"{source.name}: labels('{split}') must be int64 (N,), got {_form(labels)}")
    if len(labels) == 0:
        raise UsageError(f"{source.name}: the {split} set is empty")
    if labels.min() < 0:
        raise UsageError(f"{source.name}: labels('{split}') must count from 0, got {int(labels.min())}")
    return labels


def _few(labels: Tensor, count: int, *key: Key, seed: int = 0) -> Tensor:
    """Places of ``count`` of the images, as many of each class; of fewer images, or where it is 0, of all."""
    if not 0 < count < len(labels):
        return torch.arange(len(labels))
    return choose(labels, count, stream("cpu", seed, *key), equal=True)


def _side(source: DataSource, chosen: _Chosen) -> int:
    with _reading(source, chosen.split):
        return _read(source, chosen.split, chosen.places[:1]).shape[-1]


def _images(source: DataSource, chosen: _Chosen, side: int, tick: _Tick) -> Images:
    read = partial(_read, source, chosen.split, side=side)
    places, pieces = chosen.places, torch.split(chosen.places, PIECE)
    if len(places) * 3 * side**2 > RESIDENT_BYTES:
        if isinstance(source, EncodedSource):
            for piece in pieces:
                source.check(chosen.split, piece)
                tick(len(piece))
        return OnDisk(read, places, side=side)
    pixels_N3SS = torch.empty(len(places), 3, side, side, dtype=torch.uint8)
    for rows, piece in zip(torch.split(pixels_N3SS, PIECE), pieces, strict=True):
        rows.copy_(read(piece))
        tick(len(piece))
    return InMemory(pixels_N3SS)


def _read(source: DataSource, split: Split, places_B: Tensor, *, side: int | None = None) -> Tensor:
    """As :meth:`DataSource.images`, in the form that it asks for: a source may be anyone's."""
    images = source.images(split, places_B)
    found = tuple(images.shape) if isinstance(images, Tensor) and images.dtype == torch.uint8 else ()
    own = side or (found[-1] if found else 0)
    if found != (len(places_B), 3, own, own):
        wanted = f"uint8 ({len(places_B)}, 3, {side or 'S'}, {side or 'S'})"
        raise UsageError(f"{source.name}: images('{split}', places) must be {wanted}, got {_form(images)}")
    return images.contiguous()


def _form(found: object) -> str:
    """What a value is, in a few words."""
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
    return type(found).__name__


def _divided(labels: Tensor, limit: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places to train on and to validate on: all images are divided first, so that no limit moves one over."""
    count = min(limit or len(labels), len(labels))
    if count < 2:
        raise UsageError(f"{count} training image: at least 2 are needed, one of them to validate on")
    valid = choose(labels, _valid(len(labels)), stream("cpu", seed, "data", "valid"))
    train = torch.ones(len(labels), dtype=torch.bool)
    train[valid] = False
    parts = (train.nonzero().squeeze(1), count - _valid(count)), (valid, _valid(count))
    chosen, validated = (places[_few(labels[places], n, "data", "limit", seed=seed)] for places, n in parts)
    return chosen, validated


def _valid(count: int) -> int:
    """How many of so many training images are validated on."""
    return max(1, round(VALID_SHARE * count))
