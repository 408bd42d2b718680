from __future__ import annotations

from pathlib import Path

from PIL import Image

from advss.runs.diversity import _by_step, draw_diversity
from advss.tracking.tracker import Tracker

STEP = {"step/diversity": -0.2, "step/abs_cosine:a/b": 0.4, "step/cosine:a/b": -0.1, "step/loss": 1.0}


def journal(folder: Path, *, ensemble: bool) -> Path:
    with Tracker(folder, name="run", enabled=False) as tracker:
        tracker.start_stage("pretrain")
        for step in (10, 20):
            tracker.metrics("pretrain", step, STEP if ensemble else {"step/loss": 1.0}, epoch=1)
        tracker.end_stage("pretrain", status="FINISHED")
    return folder / "metrics.jsonl"


def test_an_ensemble_has_its_figure(tmp_path: Path) -> None:
    path, vector = draw_diversity(journal(tmp_path, ensemble=True), tmp_path / "figures")
    with Image.open(path) as figure:
        assert figure.size[0] > figure.size[1] > 300
    assert vector == tmp_path / "figures/diversity.svg"


def test_it_shows_the_term_and_the_absolute_cosines_by_step(tmp_path: Path) -> None:
    curves = _by_step(journal(tmp_path, ensemble=True))
    assert curves == {"step/diversity": {10: -0.2, 20: -0.2}, "step/abs_cosine:a/b": {10: 0.4, 20: 0.4}}


def test_a_single_task_has_none(tmp_path: Path) -> None:
    assert draw_diversity(journal(tmp_path, ensemble=False), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
