"""What is told of the data as a run begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from advss.config import Choice, RunConfig
from advss.data import splits as splits_module
from advss.data.splits import Splits, open_splits
from advss.data.summary import summary
from advss.runs import opened as opened_module
from advss.runs.opened import opened
from advss.training.reporting import Silent


@pytest.fixture
def read(folder_root: Path) -> Callable[[], Splits]:
    return lambda: open_splits("imagefolder", {"root": folder_root})


def test_images_are_counted_by_split(read: Callable[[], Splits]) -> None:
    told = "data imagefolder: 18 images to train on, 2 to validate on, 8 to test; 2 classes, 8x8 pixels"
    assert summary(read()) == [told]


def test_what_is_passed_over_is_counted_by_kind_most_first(read: Callable[[], Splits]) -> None:
    splits = replace(read(), passed_over={".gif": 1, "hidden": 2, ".txt": 3, ".bin": 1})
    assert summary(splits)[1] == "passed over: 3 .txt, 2 hidden, 1 .bin, 1 .gif"


def test_test_images_among_the_training_images_are_counted(folder_root: Path, read: Callable[[], Splits]) -> None:
    for i in range(3):  # of equal pixels, whatever their names, classes and bytes
        shutil.copy(folder_root / f"train/cat/{i:03}.png", folder_root / f"test/dog/copy{i}.png")
    assert summary(read())[1] == "advss: warning: 3 of 11 test images are among the images to train or validate on"


def test_sets_too_large_to_hold_are_not_compared(read: Callable[[], Splits], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "RESIDENT_BYTES", 0)
    assert summary(read())[1].startswith("test images are not looked for among the others")


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
