"""What is told of the data as a run begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from advss.config import Choice, RunConfig
from advss.data import reading as reading_of_data
from advss.data.splits import Splits, open_splits
from advss.data.summary import overlap, summary
from advss.data.watch import Found, Watch
from advss.runs import opened as opened_module
from advss.runs import reading as reading_module
from advss.runs.opened import opened
from advss.training.reporting import Silent


class Told(Watch):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.counts: list[Found] = []
        self.progress: list[tuple[int, int]] = []

    def found(self, found: Found) -> None:
        assert not self.progress
        self.counts.append(found)

    def read(self, *, done: int, of: int) -> None:
        self.progress.append((done, of))


@pytest.fixture
def read(folder_root: Path) -> Callable[..., Splits]:
    return lambda **more: open_splits("imagefolder", {"root": folder_root}, **more)


def test_images_are_counted_by_split_before_they_are_read(
    read: Callable[..., Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_of_data, "PIECE", 5)
    told = Told()
    read(watch=told)
    line = "data imagefolder: 18 images to train on, 2 to validate on, 8 to test; 2 classes, 8x8 pixels"
    assert [summary(found) for found in told.counts] == [[line]]
    assert told.progress == [(5, 28), (10, 28), (15, 28), (18, 28), (20, 28), (25, 28), (28, 28)]


def test_of_images_too_many_to_hold_is_told_how_many_were_looked_at(
    read: Callable[..., Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_of_data, "RESIDENT_BYTES", 0)
    told = Told()
    read(watch=told)
    assert told.progress == [(18, 28), (20, 28), (28, 28)]


def test_what_is_passed_over_is_counted_by_kind_most_first() -> None:
    found = Found("imagefolder", {"train": 1}, 2, 8, {".gif": 1, "hidden": 2, ".txt": 3, ".bin": 1})
    assert summary(found)[1] == "passed over: 3 .txt, 2 hidden, 1 .bin, 1 .gif"


def test_test_images_among_the_training_images_are_counted(folder_root: Path, read: Callable[..., Splits]) -> None:
    for i in range(3):  # of equal pixels, whatever their names, classes and bytes
        shutil.copy(folder_root / f"train/cat/{i:03}.png", folder_root / f"test/dog/copy{i}.png")
    assert overlap(read()) == ["advss: warning: 3 of 11 test images are among the images to train or validate on"]


def test_sets_too_large_to_hold_are_not_compared(read: Callable[..., Splits], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_of_data, "RESIDENT_BYTES", 0)
    assert overlap(read())[0].startswith("test images are not looked for among those to train")


def test_reading_that_takes_long_is_shown_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Noting(Silent):
        def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
            events.append((stage, steps, done))

        def step(self, *, step: int, images: int, metrics: object) -> None:
            events.append((step, images))

        def finish(self) -> None:
            events.append("finish")

    for patience, expected in ((60.0, []), (0.0, [("reading images", 30, 0), (10, 10), (30, 20), "finish"])):
        events: list[object] = []
        monkeypatch.setattr(reading_module, "PATIENCE_S", patience)
        with reading_module.watched(Noting()) as watch:
            watch.read(done=10, of=30)
            watch.read(done=30, of=30)
        assert events == expected


def test_a_run_tells_it_before_it_makes_its_folder(
    folder_root: Path,
    settings: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_folder(*args: object, **options: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(opened_module, "make_folder", no_folder)
    config = settings(data=Choice("imagefolder", {"root": str(folder_root)}))
    with pytest.raises(InterruptedError), opened(config, "fit", resume=False, reporter=Silent()):
        pass
    assert "data imagefolder: 18 images to train on, 2 to validate on, 8 to test;" in capsys.readouterr().err
