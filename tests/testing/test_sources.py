"""Data sources that break the contract, each caught by a check that says what to do."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advss.errors import UsageError
from advss.hookspecs import DataSource, Split
from advss.testing.checks import sources
from advss.testing.subject import Subject
from advss.testing.suite import DATA
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]


class Sound(DataSource):
    """Levels that tell split, place and channel: 20 images to train on, 10 to test, two classes.

    Args:
        root: a folder.
    """

    name = "sound"

    def __init__(self, *, root: Path) -> None:
        self.root = root

    def classes(self) -> tuple[str, ...]:
        return ("even", "odd")

    def labels(self, split: Split) -> Tensor:
        if not self.root.is_dir():
            raise UsageError(f"no folder '{self.root}'; --data.root says where the images are")
        return torch.arange(20 if split == "train" else 10) % 2

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        levels_B = places_B.to(torch.uint8) + (100 if split == "train" else 0)
        return levels_B[:, None, None, None].repeat(1, 3, 8, 8) + torch.arange(3, dtype=torch.uint8)[:, None, None]


class ReadsEarly(Sound):
    def __init__(self, *, root: Path) -> None:
        super().__init__(root=root)
        self.files = sorted(root.iterdir())


class RaisesAnything(Sound):
    def labels(self, split: Split) -> Tensor:
        _ = list(self.root.iterdir())
        return super().labels(split)


class NamesNothing(Sound):
    def labels(self, split: Split) -> Tensor:
        if not self.root.is_dir():
            raise UsageError("no images")
        return super().labels(split)


class NeedsNothing(Sound):
    def labels(self, split: Split) -> Tensor:
        return torch.arange(20) % 2


class NoTest(Sound):
    """Tells of test images that it has not."""

    def labels(self, split: Split) -> Tensor:
        if split == "test":
            raise UsageError(f"'{self.root}' has no test images")
        return super().labels(split)


class NoValid(Sound):
    """Tells of validation images that it has not."""

    def splits(self) -> tuple[Split, ...]:
        return ("train", "valid", "test")

    def labels(self, split: Split) -> Tensor:
        if split == "valid":
            raise UsageError(f"'{self.root}' has no validation images")
        return super().labels(split)


class OtherSplits(Sound):
    def splits(self) -> tuple[Split, ...]:
        return ("train", "test", "dev")  # type: ignore[return-value]


class PassesOver(Sound):
    """Names what it passes over, and does not count it."""

    def passed_over(self) -> Mapping[str, int]:
        return [".txt"]  # type: ignore[return-value]


class Labels(Sound):
    """Hands on what :meth:`changed` makes of the labels."""

    def labels(self, split: Split) -> Tensor:
        return self.changed(super().labels(split))

    def changed(self, labels: Tensor) -> Tensor:
        raise NotImplementedError


class ShortLabels(Labels):
    def changed(self, labels: Tensor) -> Tensor:
        return labels.int()


class FlatLabels(Labels):
    def changed(self, labels: Tensor) -> Tensor:
        return labels[:, None]


class ListedLabels(Labels):
    def changed(self, labels: Tensor) -> Tensor:
        return labels.tolist()  # type: ignore[return-value]


class NoLabels(Labels):
    def changed(self, labels: Tensor) -> Tensor:
        return labels[:0]


class FromOne(Labels):
    def changed(self, labels: Tensor) -> Tensor:
        return labels + 1


class Moving(Labels):
    calls = 0

    def changed(self, labels: Tensor) -> Tensor:
        self.calls += 1
        return labels.roll(int(self.calls > 2))


class ListedNames(Sound):
    def classes(self) -> tuple[str, ...]:
        return ["even", "odd"]  # type: ignore[return-value]


class NumberedNames(Sound):
    def classes(self) -> tuple[str, ...]:
        return (0, 1)  # type: ignore[return-value]


class SameNames(Sound):
    def classes(self) -> tuple[str, ...]:
        return ("even", "even")


class MoreNames(Sound):
    def classes(self) -> tuple[str, ...]:
        return ("even", "odd", "neither")


class Images(Sound):
    """Hands on what :meth:`changed` makes of the images."""

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        return self.changed(super().images(split, places_B), split, places_B)

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        raise NotImplementedError


class ShareOfOne(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images / 255


class ArrayOfImages(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images.numpy()  # type: ignore[return-value]


class ChannelsBehind(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1)


class Grey(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images[:, :1]


class Oblong(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images[..., :6]


class AllOfThem(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return Sound.images(self, split, torch.arange(20 if split == "train" else 10))


class TwoSides(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images if split == "train" else images[..., :6, :6]


class InOrderOfPlaces(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images[places_B.argsort()]


class Stretched(Images):
    """Spreads the levels of those that are asked for together."""

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images - images.min()


class Noisy(Images):
    """Draws at every call."""

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images + torch.randint(0, 9, images.shape, dtype=torch.uint8)


class Numbered(Images):
    """Each object has images of its own."""

    made = 0

    def __init__(self, *, root: Path) -> None:
        super().__init__(root=root)
        Numbered.made += 1
        self.number = Numbered.made

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images + self.number


class OneThread(Images):
    """Opened where it was made, as a database is."""

    def __init__(self, *, root: Path) -> None:
        super().__init__(root=root)
        self.thread = threading.get_ident()

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        if threading.get_ident() != self.thread:
            raise RuntimeError("opened in another thread")
        return images


class ThreadDependent(OneThread):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        return images + (threading.get_ident() != self.thread)


class Sorting(Images):
    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        places_B += 0 * places_B + 1
        return images


class Drawing(Images):
    """Draws and throws away."""

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        torch.rand(1)
        return images


class DrawingByPython(Images):
    """The same of Python's."""

    def changed(self, images: Tensor, split: Split, places_B: Tensor) -> Tensor:
        random.random()
        return images


MADE, MISSING = sources.making_it_reads_nothing, sources.missing_data_are_a_usage_error
BOTH, LABELS = sources.its_splits_are_there, sources.labels_count_from_0_as_int64
CLASSES, FORM = sources.classes_are_distinct_names_as_many_as_labels, sources.images_are_squares_of_one_side_as_uint8
PLACE, AGAIN = sources.an_image_depends_on_its_place_alone, sources.another_object_gives_the_same
THREADS, ALONE = sources.threads_read_the_same, sources.reading_leaves_the_global_generator_and_the_places_alone
BROKEN = [
    (ReadsEarly, MADE, r"cannot be made where its data are missing \(FileNotFoundError: .*read in labels\(\)"),
    (
        RaisesAnything,
        MISSING,
        r"labels\('train'\) of missing data raises FileNotFoundError.*raise advss.errors.UsageErr",
    ),
    (NamesNothing, MISSING, r"says 'no images', which does not name '.*missing', where it looked; name the file"),
    (NeedsNothing, MISSING, r"labels\('train'\) gives labels where there are no data"),
    (NoTest, BOTH, r"splits\(\) tells of 'test', which is not there \('.*' has no test images\); tell of it"),
    (NoValid, BOTH, r"splits\(\) tells of 'valid', which is not there \('.*' has no validation images\); tell of it"),
    (OtherSplits, BOTH, r"splits\(\) returns \('train', 'test', 'dev'\); return a tuple of those it has among"),
    (ShortLabels, LABELS, r"labels\('train'\) is torch.int32 of shape \(20,\); give int64 of shape \(N,\)"),
    (FlatLabels, LABELS, r"labels\('train'\) is torch.int64 of shape \(20, 1\); give int64 of shape \(N,\)"),
    (ListedLabels, LABELS, r"labels\('train'\) is list; return a torch tensor"),
    (NoLabels, LABELS, r"labels\('train'\) is empty; raise UsageError"),
    (FromOne, LABELS, r"labels\('train'\) reaches from 1 to 2; classes\(\) allows 0 to 1, and -1"),
    (Moving, LABELS, r"labels\('train'\) differs between two calls; sort what is listed"),
    (ListedNames, CLASSES, r"classes\(\) returns \['even', 'odd'\]; return a tuple of names"),
    (NumberedNames, CLASSES, r"classes\(\) returns \(0, 1\); return a tuple of names"),
    (SameNames, CLASSES, r"classes\(\) has the name 'even' twice"),
    (MoreNames, CLASSES, r"classes\(\) has 3 names, and labels reach 1; name the 2 that have images"),
    (ShareOfOne, FORM, r"images\('train', 12 places\) is torch.float32; give levels 0 to 255 as uint8"),
    (ArrayOfImages, FORM, r"images\('train', 12 places\) is ndarray; return a torch tensor"),
    (ChannelsBehind, FORM, r"has shape \(12, 8, 8, 3\); give \(12, 3, S, S\)"),
    (Grey, FORM, r"has shape \(12, 1, 8, 8\); give \(12, 3, S, S\): grey ones repeated over RGB"),
    (Oblong, FORM, r"has shape \(12, 3, 8, 6\); give \(12, 3, S, S\)"),
    (AllOfThem, FORM, r"has shape \(20, 3, 8, 8\); give \(12, 3, S, S\)"),
    (TwoSides, FORM, r"images have sides \{'train': 8, 'test': 6\}; bring all to one"),
    (
        InOrderOfPlaces,
        PLACE,
        "image 0 of 'train' is another when 12 are asked for; return them in the order of places_B",
    ),
    (Stretched, PLACE, "image 1 of 'train' is another when 1 are asked for"),
    (Noisy, PLACE, "draw nothing: augmentation is the run's"),
    (Numbered, AGAIN, "a second object has other labels or images of 'train'; sort what is listed"),
    (OneThread, THREADS, r"images\(\) fails in another thread \(RuntimeError: opened in another thread\); open what"),
    (ThreadDependent, THREADS, r"images\(\) gives others in threads; let them share nothing that moves"),
    (
        PassesOver,
        sources.what_it_passes_over_is_counted_by_kind,
        r"passed_over\(\) returns \['\.txt'\]; return how many",
    ),
    (Sorting, ALONE, r"images\(\) changes places_B in place; clone it first"),
    (DrawingByPython, ALONE, "reading draws from Python's random state; draw from torch.Generator"),
    (Drawing, ALONE, "reading draws from torch's global generator; draw from torch.Generator"),
]


@pytest.mark.parametrize("fact", DATA)
def test_a_sound_source_passes(ask: Ask, tmp_path: Path, fact: Callable[[Subject], None]) -> None:
    verdict = ask(Sound, fact, root=str(tmp_path))
    assert (verdict.outcome, verdict.message) == ("passed", "")


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, tmp_path: Path, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact, root=str(tmp_path))
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


class Unlabelled(Sound):
    """To pretrain on alone."""

    def classes(self) -> tuple[str, ...]:
        return ()

    def splits(self) -> tuple[Split, ...]:
        return ("train",)

    def labels(self, split: Split) -> Tensor:
        return super().labels(split) * 0 - 1


class SomeUnlabelled(Sound):
    def labels(self, split: Split) -> Tensor:
        return super().labels(split).where(torch.arange(20 if split == "train" else 10) > 3, -1)


@pytest.mark.parametrize("offered", [Unlabelled, SomeUnlabelled])
@pytest.mark.parametrize("fact", DATA)
def test_images_need_no_labels(ask: Ask, tmp_path: Path, offered: type, fact: Callable[[Subject], None]) -> None:
    verdict = ask(offered, fact, root=str(tmp_path))
    assert (verdict.outcome, verdict.message) == ("passed", "")


class TestAlone(Sound):
    __test__ = False  # no test of pytest's

    def labels(self, split: Split) -> Tensor:
        if split == "train":
            raise UsageError("train on something else")
        return super().labels(split)


@pytest.mark.parametrize("fact", DATA)
def test_a_source_of_test_images_alone_passes_for_these(
    ask: Ask, tmp_path: Path, fact: Callable[[Subject], None]
) -> None:
    verdict = ask(TestAlone, fact, root=str(tmp_path))
    if fact is BOTH:
        said = "it has test images alone, and no run can train on it: train on something else"
        assert (verdict.outcome, verdict.message) == ("unchecked", said)
    else:
        assert (verdict.outcome, verdict.message) == ("passed", "")


class WithoutPaths(Sound):
    """Makes its images."""

    def __init__(self) -> None:
        super().__init__(root=Path())


@pytest.mark.parametrize("fact", [MADE, MISSING])
def test_data_that_come_with_the_source_are_not_missing(ask: Ask, fact: Callable[[Subject], None]) -> None:
    verdict = ask(WithoutPaths, fact)
    assert (verdict.outcome, verdict.message) == (
        "unchecked",
        "none of its options is a path, so its data cannot be missing",
    )


def test_where_no_data_are_what_is_missing_is_said(ask: Ask, tmp_path: Path) -> None:
    verdict = ask(Sound, BOTH, root=str(tmp_path / "nothing"))
    assert verdict.outcome == "failed"
    assert re.match("no labels can be read: no folder '.*nothing'; --data.root says where the", verdict.message)


class ReadsClasses(Sound):
    """Its classes are in its folder, too."""

    def classes(self) -> tuple[str, ...]:
        self.labels("train")
        return super().classes()


@pytest.mark.parametrize("fact", [fact for fact in DATA if fact not in (MADE, BOTH)])
def test_where_no_data_are_no_more_is_asked_of_them(ask: Ask, tmp_path: Path, fact: Callable[[Subject], None]) -> None:
    verdict = ask(ReadsClasses, fact, root=str(tmp_path / "nothing"))
    assert (verdict.outcome, verdict.message) == ("unchecked", "no labels can be read")


class EarlyDraw(Sound):
    """Draws where no seed is set."""

    def __init__(self, *, root: Path) -> None:
        super().__init__(root=root)
        self.order = torch.randperm(4)


def test_a_draw_in_its_making_is_caught(ask: Ask, tmp_path: Path) -> None:
    from advss.testing.checks.options import making_it_draws_nothing_and_makes_no_parameters

    verdict = ask(EarlyDraw, making_it_draws_nothing_and_makes_no_parameters, root=str(tmp_path))
    assert "draw from a torch.Generator of its own" in verdict.message
