"""Runs on images without label, and on other data in pretraining than in fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import advss
from advss.cli.main import main
from advss.config import Choice, RunConfig
from advss.data.sources.digits import Digits
from advss.data.splits import open_splits
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


# ---------------------------------------------------------------- other data to pretrain on
@pytest.fixture
def both(settings: Settings, photos: Choice) -> RunConfig:
    """Pretrained on photos, fine-tuned on digits, of another side."""
    return settings("rotation", "none", pretrain_data=photos, stage=SMALL, limit=40, size=0)


@pytest.fixture
def done(both: RunConfig) -> RunConfig:
    """``both``, fitted."""
    assert fit(both, reporter=Silent())["pretrain_data"] == "imagefolder"
    return both


def _manifests(config: RunConfig) -> list[dict[str, Any]]:
    folder = config.runs_dir / str(config.name)
    return [load_checkpoint(folder / f"{stage}/best.safetensors").manifest for stage in ("pretrain", "finetune")]


def test_each_stage_records_its_own_data(done: RunConfig) -> None:
    first, second = _manifests(done)
    described = [(m["data"]["classes"], m["data"]["side"], m["stem"]) for m in (first["model"], second["model"])]
    assert described == [(0, 16, 16), (10, 32, 16)]
    counts = [{part: first["data"][part]["images"] for part in first["data"] if part != "classes"}]
    assert counts == [{"train": 36, "valid": 4}]
    assert first["finetune_data"] == second["data"] != first["data"]


def test_the_images_of_each_stage_are_had_again(done: RunConfig, photos: Choice) -> None:
    run = done.runs_dir / "run"
    assert len(advss.load_data(run, "train", stage="pretrain")[1]) == 36
    assert advss.load_data(run, "train", stage="pretrain")[1].max() == -1
    assert advss.load_data(run, "train")[1].max() > 0
    moved = Path(photos.options["root"]).rename(Path(photos.options["root"]).with_name("moved"))
    assert len(advss.load_data(run, "train", stage="pretrain", data={"root": moved})[1]) == 36


def test_the_normalisation_of_pretraining_stays(done: RunConfig, photos: Choice) -> None:
    first, second = _manifests(done)
    of_photos = open_splits("imagefolder", photos.options, parts=("train", "valid"))
    assert first["model"]["mean"] == second["model"]["mean"] == list(of_photos.mean)


def test_it_is_resumed_bit_for_bit_in_either_stage(done: RunConfig, tensors: Tensors, stopper: Stop) -> None:
    for stage in ("pretrain", "finetune"):
        other = replace(done, name=f"stopped-{stage}")
        with pytest.raises(Interrupted):
            fit(other, reporter=stopper(stage, "step", 5))
        fit(other, resume=True, reporter=Silent())
        for which in ("pretrain", "finetune"):
            assert _same(tensors(done, which, "last"), tensors(other, which, "last"))


def test_pretrained_and_fine_tuned_apart_are_the_same(done: RunConfig, tensors: Tensors) -> None:
    pretrain(replace(done, name="first"), reporter=Silent())
    assert _same(tensors(done, "pretrain", "best"), tensors(replace(done, name="first"), "pretrain", "best"))
    line = f"finetune --from {done.runs_dir}/first --name second --runs-dir {done.runs_dir} --quiet"
    assert main(line.split()) == 0
    assert _same(tensors(done, "finetune", "best"), tensors(replace(done, name="second"), "finetune", "best"))


def test_data_that_moved_are_said_anew(
    both: RunConfig, stopper: Stop, photos: Choice, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        fit(both, reporter=stopper("pretrain", "step", 5))
    folder = Path(photos.options["root"])
    moved = folder.rename(folder.with_name("moved"))
    line = f"fit --resume {both.runs_dir}/run --quiet"
    assert main(line.split()) == 2
    assert f"its data were in {folder}, which is not there; say where they are now by --pretrain-data.root DIR" in (
        capsys.readouterr().err
    )
    next(moved.iterdir()).unlink()
    line += f" --pretrain-data.root {moved}"
    assert main(line.split()) == 2
    assert "was pretrained on other data than there are now: 35 training images, not 36" in capsys.readouterr().err


def test_moved_data_are_gone_on_with(both: RunConfig, stopper: Stop, photos: Choice) -> None:
    with pytest.raises(Interrupted):
        fit(both, reporter=stopper("pretrain", "step", 5))
    moved = Path(photos.options["root"]).rename(Path(photos.options["root"]).with_name("moved"))
    assert main(f"fit --resume {both.runs_dir}/run --quiet --pretrain-data.root {moved}".split()) == 0


def test_it_is_refused_without_pretraining(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--pretext", "none", "--pretrain-data", "digits"]) == 2
    assert "--pretrain-data digits: nothing is pretrained by --pretext none" in capsys.readouterr().err
    assert main(["fit", "--pretext", "rotation", "--pretrain-epochs", "0", "--pretrain-data", "digits"]) == 2
    assert "--pretrain-data digits: nothing is pretrained by --pretrain-epochs 0" in capsys.readouterr().err
    assert main(["fit", "--pretext", "rotation", "--pretrain-data.limit", "20"]) == 2
    assert "--pretrain-data.limit 20: no --pretrain-data is chosen" in capsys.readouterr().err


def test_errors_of_its_source_name_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    line = "fit --pretext rotation --pretrain-data imagefolder --pretrain-data.root nowhere"
    assert main(line.split()) == 2
    assert "nowhere/train'; `--pretrain-data.root FOLDER` must hold" in capsys.readouterr().err
    assert main([*line.split(), "--pretrain-data.test-share", "2"]) == 2
    assert "--pretrain-data.test-share 2.0: expected a share" in capsys.readouterr().err


def test_test_images_among_those_pretrained_on_are_counted(
    both: RunConfig, stopper: Stop, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrained = Choice("imagefolder", both.pretrain_data.options if both.pretrain_data else {})
    test = open_splits("digits", {}, limit=40, parts=("test",)).test.images.read(torch.arange(3))
    for i, image in enumerate(test):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(Path(pretrained.options["root"]) / f"copy{i}.png")
    with pytest.raises(Interrupted):
        fit(replace(both, pretrain_data_size=32), reporter=stopper("pretrain", "start", 0))
    err = capsys.readouterr().err
    assert "pretrain-data imagefolder: 39 images to train on, 4 to validate on; no labels, 32x32 pixels" in err
    assert "advss: warning: 3 of 40 test images are among the images to pretrain on" in err


# ---------------------------------------------------------------- images of another side
VIT = Choice("test_vit", {"patch_size": 8, "depth": 4, "embed_dim": 16, "num_heads": 2})


@pytest.mark.parametrize(
    ("backbone", "kept", "fresh"),
    [
        (None, "its stem stays as it is", "encoder.net.conv1.weight"),
        (VIT, "its position embeddings are resampled", "encoder.net.patch_embed.proj.weight"),
    ],
)
def test_fine_tuning_on_another_side(
    settings: Settings,
    photos: Choice,
    tensors: Tensors,
    capsys: pytest.CaptureFixture[str],
    backbone: Choice | None,
    kept: str,
    fresh: str,
) -> None:
    more = {"backbone": backbone} if backbone else {}
    config = settings("rotation", "none", "partial", stage={"batch_size": 8}, limit=40, size=0, **more)
    pretrain(config, reporter=Silent())
    for image in Path(photos.options["root"]).iterdir():
        Image.open(image).resize((96, 96)).save(image)
    classes = {"root": photos.options["root"], "test_share": 0.2}
    for i, image in enumerate(sorted(Path(classes["root"]).iterdir())):
        place = Path(classes["root"]) / f"class{i % 2}"
        place.mkdir(exist_ok=True)
        image.rename(place / image.name)
    tuned = replace(config, name="tuned", data=Choice("imagefolder", classes), limit=0)
    result = finetune(tuned, source=config.runs_dir / "run", reporter=Silent())
    said = f"pretrained on images of 32 pixels, fine-tuned on images of 96: {kept}, and an image costs about 9 times as"
    assert said in capsys.readouterr().err
    model = load_checkpoint(config.runs_dir / "tuned/finetune/best.safetensors").manifest["model"]
    assert (result["status"], model["stem"], model["data"]["side"]) == ("finished", 32, 96)
    before, after = tensors(config, "pretrain", "best"), tensors(tuned, "finetune", "best")
    assert torch.equal(after[fresh], before[fresh])  # --finetune partial: what was loaded stands
    logits = advss.load_model(config.runs_dir / "tuned")(torch.rand(2, 3, 96, 96))
    assert logits.shape == (2, 2)
