from __future__ import annotations

from pathlib import Path

from PIL import Image

from advss.runs.curves import _by_stage, draw_curves
from advss.tracking.tracker import Tracker


def journal(folder: Path, *, epochs: int) -> Path:
    """A journal with so many epochs of two stages, steps and a result between."""
    with Tracker(folder, name="run", enabled=False) as tracker:
        for stage in ("pretrain", "finetune"):
            tracker.start_stage(stage)
            for epoch in range(1, epochs + 1):
                tracker.metrics(stage, 10 * epoch, {"step/loss": 9.0}, epoch=epoch)
                values = {"train/loss": 1 / epoch, "valid/ta": epoch / 10}
                tracker.metrics(stage, 10 * epoch, values, epoch=epoch)
            tracker.end_stage(stage, status="FINISHED")
        tracker.metrics("evaluate", 0, {"test/ta": 0.5})
    return folder / "metrics.jsonl"


def test_each_stage_has_its_figure(tmp_path: Path) -> None:
    drawn = draw_curves(journal(tmp_path, epochs=2), tmp_path / "figures")
    expected = [f"{stage}.{form}" for stage in ("pretrain", "finetune") for form in ("png", "svg")]
    assert drawn == [tmp_path / "figures" / name for name in expected]
    for path in drawn[::2]:
        with Image.open(path) as figure:
            assert figure.size[0] > figure.size[1] > 300


def test_curves_are_the_epochs_of_the_journal(tmp_path: Path) -> None:
    curves = _by_stage(journal(tmp_path, epochs=3))
    assert set(curves) == {"pretrain", "finetune"}
    assert curves["pretrain"] == {"train/loss": {1: 1.0, 2: 0.5, 3: 1 / 3}, "valid/ta": {1: 0.1, 2: 0.2, 3: 0.3}}


def test_run_without_an_epoch_has_no_figure(tmp_path: Path) -> None:
    assert draw_curves(journal(tmp_path, epochs=0), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_an_epoch_that_was_done_twice_counts_once(tmp_path: Path) -> None:
    path = journal(tmp_path, epochs=1)
    assert _by_stage(journal(tmp_path, epochs=1)) == {
        stage: {"train/loss": {1: 1.0}, "valid/ta": {1: 0.1}} for stage in ("pretrain", "finetune")
    }
    assert path.is_file()
