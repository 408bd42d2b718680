"""What a data source says of its data, asked of a few of its images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from advss.errors import UsageError
from advss.hookspecs import DataSource, Split
from advss.plugins import options_of
from advss.testing.asked import unseeded
from advss.testing.subject import Subject
from advss.testing.verdicts import BrokenError, UncheckedError, expect

FEW = 12  # images of a split that are looked at
THREADS = 4
SPLITS: tuple[Split, ...] = get_args(Split)


def making_it_reads_nothing(subject: Subject) -> None:
    """A configuration is judged before any data are there."""
    with _without_data(subject) as (missing, _):
        try:
            missing.new()
        except Exception as error:
            raise BrokenError(
                f"it cannot be made where its data are missing ({type(error).__name__}: {error}); read in labels(), "
                "classes() and images(), and check only values in __init__"
            ) from error


def missing_data_are_a_usage_error(subject: Subject) -> None:
    """One line that says where the data were looked for."""
    splits = dict(_labelled(subject.new()))
    with _without_data(subject) as (missing, place):
        source = missing.new()
        for split in splits:
            said = _said_of_missing(source, split)
            expect(
                str(place) in said,
                f"labels('{split}') of missing data says {said!r}, which does not name '{place}', where it looked; "
                "name the file or folder and the option that says where it is",
            )


def its_splits_are_there(subject: Subject) -> None:
    """A run trains on one and is measured on another, or only pretrains; validation images may be a third."""
    source = subject.new()
    told = source.splits()
    expect(
        isinstance(told, tuple) and set(told) <= set(SPLITS),
        f"splits() returns {told!r:.80}; return a tuple of those it has among {', '.join(map(repr, SPLITS))}",
    )
    there, refused = _read(source)
    if not there:
        raise BrokenError(f"no labels can be read: {refused[0]}")
    for split in ("valid", "test"):
        if split in told and split not in there:
            raise BrokenError(
                f"splits() tells of '{split}', which is not there ({_said_of_missing(source, split)}); tell of it "
                "where there are such images"
            )
    if "train" not in there:
        raise UncheckedError(
            f"it has test images alone, and no run can train on it: {_said_of_missing(source, 'train')}"
        )


def labels_count_from_0_as_int64(subject: Subject) -> None:
    """(N,), -1 where there is none, the same at two calls."""
    source = subject.new()
    splits = list(_labelled(source))
    count = len(source.classes())
    for split, labels in splits:
        what = f"labels('{split}')"
        expect(isinstance(labels, Tensor), f"{what} is {type(labels).__name__}; return a torch tensor")
        form = f"{labels.dtype} of shape {tuple(labels.shape)}"
        expect(labels.dtype == torch.int64 and labels.ndim == 1, f"{what} is {form}; give int64 of shape (N,)")
        expect(len(labels), f"{what} is empty; raise UsageError where no images are found")
        low, high = int(labels.min()), int(labels.max())
        allowed = f"0 to {count - 1}, and -1 for no label" if count else "-1, no label, alone"
        expect(low >= -1 and high < count, f"{what} reaches from {low} to {high}; classes() allows {allowed}")
        expect(torch.equal(labels, source.labels(split)), f"{what} differs between two calls; sort what is listed")


def classes_are_distinct_names_as_many_as_labels(subject: Subject) -> None:
    """The classifier has an output for each."""
    source = subject.new()
    splits = list(_labelled(source))
    names = source.classes()
    expect(
        isinstance(names, tuple) and all(isinstance(name, str) and name for name in names),
        f"classes() returns {names!r:.80}; return a tuple of names",
    )
    twice = [name for name in names if names.count(name) > 1]
    expect(not twice, f"classes() has the name {str(*twice[:1])!r} twice; give each class its own")
    reached = max(int(labels.max()) for _, labels in splits) + 1
    expect(
        len(names) == reached,
        f"classes() has {len(names)} names, and labels reach {reached - 1}; name the {reached} that have images",
    )


def images_are_squares_of_one_side_as_uint8(subject: Subject) -> None:
    """RGB, one image for each place, in both splits of the same side."""
    source = subject.new()
    sides = {}
    for split, labels in _labelled(source):
        places = _few(labels)
        images = source.images(split, places)
        what = f"images('{split}', {len(places)} places)"
        expect(isinstance(images, Tensor), f"{what} is {type(images).__name__}; return a torch tensor")
        expect(images.dtype == torch.uint8, f"{what} is {images.dtype}; give levels 0 to 255 as uint8")
        shape = tuple(images.shape)
        expect(
            len(shape) == 4 and shape == (len(places), 3, shape[-1], shape[-1]),
            f"{what} has shape {shape}; give ({len(places)}, 3, S, S): grey ones repeated over RGB, all cut square",
        )
        sides[split] = shape[-1]
    expect(len(set(sides.values())) == 1, f"images have sides {sides}; bring all to one")


def an_image_depends_on_its_place_alone(subject: Subject) -> None:
    """Not on which others are asked for, in which order, nor on what was drawn before."""
    source = subject.new()
    for split, labels in _labelled(source):
        places = _few(labels)
        first = source.images(split, places)
        for order in (places.flip(0), places.repeat(2), *places[:, None]):
            found = dict(zip(order.tolist(), source.images(split, order), strict=True))
            for place, image in zip(places.tolist(), first, strict=True):
                expect(
                    place not in found or torch.equal(found[place], image),
                    f"image {place} of '{split}' is another when {len(order)} are asked for; return them in the order "
                    "of places_B and draw nothing: augmentation is the run's",
                )


def another_object_gives_the_same(subject: Subject) -> None:
    """A run that is resumed, or evaluated later, makes another."""
    one, other = subject.new(), subject.new()
    _ = [other.images(split, _few(labels).flip(0)) for split, labels in reversed(list(_labelled(other)))]
    expect(one.classes() == other.classes(), f"classes() is {one.classes()!r:.60}, of a second object another")
    for split, labels in _labelled(one):
        again = other.labels(split)
        same = torch.equal(labels, again) and torch.equal(
            one.images(split, _few(labels)), other.images(split, _few(again))
        )
        expect(
            same,
            f"a second object has other labels or images of '{split}'; sort what is listed, draw from "
            "torch.Generator().manual_seed(0) or not at all, and keep nothing from call to call",
        )


def what_it_passes_over_is_counted_by_kind(subject: Subject) -> None:
    """A run tells it as it begins."""
    source = subject.new()
    list(_labelled(source))
    counts = source.passed_over()
    expect(
        isinstance(counts, Mapping) and all(isinstance(k, str) and isinstance(n, int) for k, n in counts.items()),
        f"passed_over() returns {counts!r:.80}; return how many files of each kind, as {{'.txt': 3}}",
    )


def threads_read_the_same(subject: Subject) -> None:
    """Images of a set too large to hold are read ahead, training and validation images at a time."""
    source = subject.new()
    for split, labels in _labelled(source):
        places = _few(labels)
        first = source.images(split, places)
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(source.images, split, places) for _ in range(2 * THREADS)]
        for future in futures:
            try:
                same = torch.equal(future.result(), first)
            except Exception as error:
                raise BrokenError(
                    f"images() fails in another thread ({type(error).__name__}: {error}); open what it reads in each "
                    "call, or once a thread (threading.local)"
                ) from error
            expect(same, "images() gives others in threads; let them share nothing that moves, as an open file does")


def reading_leaves_the_global_generator_and_the_places_alone(subject: Subject) -> None:
    """The numbers of a run follow from its seed."""
    source = subject.new()
    state = torch.get_rng_state()
    with unseeded() as drawn:
        for split, labels in _labelled(source):
            places = _few(labels)
            source.images(split, places)
            expect(torch.equal(places, _few(labels)), "images() changes places_B in place; clone it first")
    own = "draw from torch.Generator().manual_seed(0) or not at all"
    expect(not drawn, f"reading draws from {''.join(drawn[:1])}'s random state; {own}")
    expect(
        torch.equal(torch.get_rng_state(), state),
        f"reading draws from torch's global generator; {own}",
    )


def _labelled(source: DataSource) -> Iterator[tuple[Split, Tensor]]:
    """The splits that there are, with their labels.

    Raises:
        UncheckedError: there is none, which a check of its own says.
    """
    there, _ = _read(source)
    if not there:
        raise UncheckedError("no labels can be read")
    yield from there.items()


def _read(source: DataSource) -> tuple[dict[Split, Tensor], list[UsageError]]:
    """The labels of each split that is told of and there is, and what is said of those that there are not."""
    there: dict[Split, Tensor] = {}
    refused = []
    for split in source.splits():
        try:
            there[split] = source.labels(split)
        except UsageError as error:
            refused.append(error)
    return there, refused


def _few(labels: Tensor) -> Tensor:
    """Places all over a split."""
    count = min(FEW, len(labels))
    return torch.arange(count) * len(labels) // max(count, 1)


def _said_of_missing(source: DataSource, split: Split) -> str:
    try:
        source.labels(split)
    except UsageError as error:
        return str(error)
    except Exception as error:
        raise BrokenError(
            f"labels('{split}') of missing data raises {type(error).__name__}: {error}; raise "
            "advss.errors.UsageError, one line that says what is missing where"
        ) from error
    raise BrokenError(f"labels('{split}') gives labels where there are no data; read what the options name")


@contextmanager
def _without_data(subject: Subject) -> Iterator[tuple[Subject, Path]]:
    """The plugin with paths that lead nowhere, and where that is."""
    options = options_of(subject.plugin.offered)
    paths = [o.name for o in options if Path in (o.annotation, *get_args(o.annotation))]
    if not paths:
        raise UncheckedError("none of its options is a path, so its data cannot be missing")
    with tempfile.TemporaryDirectory(prefix="advss-") as folder:
        place = Path(folder) / "missing"
        moved = {name: str(place / name) for name in paths}
        yield Subject(subject.plugin, {**subject.options, **moved}), place
