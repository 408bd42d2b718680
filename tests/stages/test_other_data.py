"""Runs on images without label, and on other data in pretraining than in fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advss.config import Choice, RunConfig
from advss.data.sources.digits import Digits
from advss.errors import UsageError
from advss.hookspecs import Batch, Split
from advss.stages.fit import finetune, fit, pretrain
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted
from advss_finetune.full import Full

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, torch.Tensor]]
Stop = Callable[[str, str, int], Reporter]

SMALL = {"batch_size": 8, "epochs": 2}


@pytest.fixture
def photos(tmp_path: Path) -> Choice:
    """A folder of 40 images of 16 pixels, without classes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return Choice("imagefolder", {"root": folder})


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- without labels
def test_a_flat_folder_is_pretrained_on_stopped_and_resumed(
    settings: Settings, photos: Choice, tensors: Tensors, stopper: Stop
) -> None:
    config = settings("rotation", data=photos, stage=SMALL, limit=0)
    assert pretrain(config, reporter=Silent())["status"] == "finished"
    described = load_checkpoint(config.runs_dir / "run/pretrain/best.safetensors").manifest
    assert (described["model"]["data"]["classes"], described["model"]["data"]["images"]) == (0, 40)
    assert described["data"].keys() == {"classes", "train", "valid"}
    other = replace(config, name="stopped")
    with pytest.raises(Interrupted):
        pretrain(other, reporter=stopper("pretrain", "step", 5))
    pretrain(other, resume=True, reporter=Silent())
    for which in ("last", "best"):
        assert _same(tensors(config, "pretrain", which), tensors(other, "pretrain", which))


@pytest.mark.parametrize("command", ["fit", "finetune"])
def test_it_is_neither_fine_tuned_nor_measured_on(settings: Settings, photos: Choice, command: str) -> None:
    config = settings("rotation", data=photos, stage=SMALL, limit=0)
    with pytest.raises(UsageError, match=r"no folder '.*/test' to test on; `--data\.test-share 0\.2` takes a part"):
        fit(config, reporter=Silent()) if command == "fit" else finetune(config, source=None, reporter=Silent())
    assert not config.runs_dir.joinpath("run").exists()


def test_fine_tuning_drops_images_without_label(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, seen = Digits.labels, list[Batch]()

    def some(self: Digits, split: Split) -> torch.Tensor:
        kept = labels(self, split)
        return kept.where(torch.arange(len(kept)) % 2 > 0, -1)

    views = Full.views

    def noting(self: Full, batch: Batch, generator: torch.Generator) -> object:
        seen.append(batch)
        return views(self, batch, generator)

    monkeypatch.setattr(Digits, "labels", some)
    monkeypatch.setattr(Full, "views", noting)
    config = settings("rotation", "none", stage={"batch_size": 20}, limit=110)
    result = fit(config, reporter=Silent())
    assert result["status"] == "finished"
    assert "without label, and left out of fine-tuning and measuring: 9 to train on, 1 to validate on, 180 to test" in (
        capsys.readouterr().err
    )
    assert seen
    assert all((batch.label >= 0).all() and (batch.index < 100).all() for batch in seen)
    of = {s: load_checkpoint(config.runs_dir / f"run/{s}/best.safetensors").manifest for s in ("pretrain", "finetune")}
    assert [of[stage]["model"]["data"]["images"] for stage in ("pretrain", "finetune")] == [110, 100]
    assert of["pretrain"]["data"] == of["finetune"]["data"]
