from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from advss.cli.main import main
from advss.errors import UsageError
from advss.runs.folder import RunFolder
from advss.runs.own_data import own_data
from advss.runs.stored import found_config, resume_config, stored_config
from advss.stages.fit import fit
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

HERE = "--device cpu --tracking false --quiet"
BACKBONE = "--backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8]"
RESUMED = "--tracking false --quiet"
FIT = f"--data imagefolder --data.root photos --memory-format contiguous --eval-steps 1 {BACKBONE} {HERE}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` of cats and dogs and runs on them.

    ``runs/a`` is pretrained and fine-tuned, ``runs/b`` is a copy of it, ``runs/tuned`` is fine-tuned from it, and
    ``runs/scratch`` from random weights.
    """
    place = tmp_path_factory.mktemp("own")
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for name in ("cat", "dog"):
            (place / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "photos" / split / name / f"{i:03}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        one = "--pretrain-epochs 1 --finetune-epochs 1 --pretrain-batch-size 12 --finetune-batch-size 12"
        line = f"fit --pretext rotation --defense none --config digits {one} {FIT} --name a"
        assert main(line.split()) == 0
        shutil.copytree("runs/a", "runs/b")
        line = f"fit --pretext none --defense none --config digits {one} {FIT} --name scratch"
        assert main(line.split()) == 0
        line = f"finetune --from runs/a --seed 1 --name tuned --finetune-epochs 1 --finetune-batch-size 12 {HERE}"
        assert main(line.split()) == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, whose runs say that the photos lie in it."""
    place = Path(shutil.copytree(made, tmp_path / "place"))
    for file in [*place.glob("runs/*/config.yaml"), *place.glob("runs/*/result.json")]:
        file.write_text(file.read_text().replace(str(made), str(place)))
    return place


COMMANDS = [
    "evaluate runs/a",
    "certify runs/a --sigma 0.25 --other-sigma",
    "ensemble runs/a runs/b",
    "transfer runs/a runs/b",
]
Capture = pytest.CaptureFixture[str]


def add(folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "more.png")


@pytest.mark.parametrize("line", COMMANDS)
def test_a_renamed_class_is_refused(line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for split in ("train", "test"):
        (place / "photos" / split / "cat").rename(place / "photos" / split / "zcat")
    monkeypatch.chdir(place)
    assert main(f"{line} --device cpu".split()) == 2
    assert "class 0 is 'dog', not 'cat'" in capsys.readouterr().err


@pytest.mark.parametrize("line", COMMANDS)
def test_measuring_needs_the_test_images_alone(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(place / "photos/train")
    monkeypatch.chdir(place)
    measuring = "--limit 2 --n 50" if line.startswith("certify") else "--eval-steps 1"
    assert main(f"{line} {measuring} --device cpu --quiet".split()) == 0


@pytest.mark.parametrize("line", COMMANDS[2:])
def test_equal_images_below_two_roots_are_the_same_data(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "photos", place / "elsewhere")
    config = place / "runs/b/config.yaml"
    config.write_text(config.read_text().replace(str(place / "photos"), str(place / "elsewhere")))
    monkeypatch.chdir(place)
    assert main(f"{line} --eval-steps 1 --device cpu --quiet".split()) == 0


def test_other_test_images_are_refused_with_their_number(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    add(place / "photos/test/cat")
    assert main(["evaluate", str(place / "runs/a"), "--device", "cpu"]) == 2
    assert "17 test images, not 16" in capsys.readouterr().err


def test_other_training_images_matter_to_resuming_alone(place: Path) -> None:
    add(place / "photos/train/cat")
    config, folder = stored_config(place / "runs/a"), RunFolder(place / "runs/a")
    own_data(config, folder, ("test",))
    with pytest.raises(Exception, match="37 training images, not 36"):
        own_data(config, folder)


def test_a_run_works_from_any_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml.safe_load((place / "runs/a/config.yaml").read_text())["data"]["imagefolder"]["root"] == str(
        place / "photos"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "place/runs/a", "--device", "cpu", "--eval-steps", "1", "--quiet"]) == 0


def test_moved_data_are_named_with_the_flag_and_found_by_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (place / "photos").rename(tmp_path / "moved")
    line = ["evaluate", str(place / "runs/a"), "--device", "cpu", "--eval-steps", "1", "--quiet"]
    assert main(line) == 2
    assert "say where they are now by --data.root DIR" in capsys.readouterr().err
    assert main([*line, "--data.root", str(tmp_path / "moved")]) == 0
    moved = resume_config(place / "runs/a", {"data.root": str(tmp_path / "moved")}, environ={})
    assert moved.data.options["root"] == tmp_path / "moved"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("cat: [cat]\ndog: [dog]\n", ""),  # what the folders say by themselves
        ("dog: [dog]\ncat: [cat]\n", r"trained on other data than there are now: class 0 is 'dog', not 'cat'"),
        ("cat: [dog]\ndog: [cat]\n", r"trained on other data than there are now: other test images or labels"),
    ],
)
def test_groups_may_move_and_must_be_the_same(place: Path, text: str, wrong: str) -> None:
    (place / "groups.yaml").write_text(text)
    config = found_config(place / "runs/a", {"groups": place / "groups.yaml"})
    if not wrong:
        assert own_data(config, RunFolder(place / "runs/a"), ("test",)).classes == ("cat", "dog")
        return
    with pytest.raises(UsageError, match=wrong):
        own_data(config, RunFolder(place / "runs/a"), ("test",))


def test_groups_that_are_gone_are_named_with_the_flag(place: Path) -> None:
    config = found_config(place / "runs/a", {"groups": place / "groups.yaml"})
    with pytest.raises(UsageError, match=r"groups\.yaml, which is not there; .* by --data\.groups FILE$"):
        own_data(config, RunFolder(place / "runs/a"), ("test",))


def test_fine_tuning_keeps_the_split_of_pretraining_whatever_its_seed(place: Path) -> None:
    folders = [RunFolder(place / "runs" / name) for name in ("a", "tuned")]
    before, after = (stored_config(folder.path) for folder in folders)
    assert (after.seed, after.split_seed) == (1, 0)
    assert own_data(after, folders[1]).fingerprint == own_data(before, folders[0]).fingerprint


# ---------------------------------------------------------------- resumed
def broken_off(run: Path, *, forgotten: str = "") -> None:
    """Make a finished run one that was broken off before its end, whose result has forgotten something."""
    content = json.loads((run / "result.json").read_text()) | {"status": "running"}
    (run / "result.json").write_text(json.dumps({key: value for key, value in content.items() if key != forgotten}))


@pytest.mark.parametrize(
    ("split", "changed"), [("train", "37 training images, not 36"), ("test", "17 test images, not 16")]
)
@pytest.mark.parametrize("run", ["a", "scratch", "pretraining"])
def test_a_run_is_not_resumed_on_other_data(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, run: str, split: str, changed: str
) -> None:
    monkeypatch.chdir(place)
    (place / "runs/b").rename(place / "runs/pretraining")
    shutil.rmtree(place / "runs/pretraining/finetune")
    broken_off(place / "runs" / run)
    add(place / "photos" / split / "cat")
    assert main(f"fit --resume runs/{run} {RESUMED}".split()) == 2
    assert f"run runs/{run} was trained on other data than there are now: {changed}" in capsys.readouterr().err


@pytest.mark.parametrize("moment", [("pretrain", "step", 2), ("finetune", "step", 2)])
def test_a_run_goes_on_bit_for_bit_where_its_data_were_moved_to(
    place: Path, tmp_path: Path, stopper: Callable[..., Silent], moment: tuple[str, str, int]
) -> None:
    config = replace(stored_config(place / "runs/a"), name="broken", runs_dir=place / "runs")
    with pytest.raises(Interrupted):
        fit(config, reporter=stopper(*moment))
    (place / "photos").rename(tmp_path / "moved")
    moved = resume_config(place / "runs/broken", {"data.root": str(tmp_path / "moved")}, environ={})
    fit(moved, resume=True, reporter=Silent())
    for stage, which in product(("pretrain", "finetune"), ("best", "last")):
        whole, resumed = (
            load_checkpoint(place / "runs" / name / stage / f"{which}.safetensors").tensors for name in ("a", "broken")
        )
        assert whole.keys() == resumed.keys()
        assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


# ---------------------------------------------------------------- the checkpoint that fine-tuning starts from
@pytest.mark.parametrize("run", ["a", "tuned"])
def test_the_checkpoint_of_fine_tuning_says_what_it_started_from(place: Path, run: str) -> None:
    pretrained = load_checkpoint(place / "runs/a/pretrain/best.safetensors").manifest["sha256"]
    for which in ("best", "last"):
        manifest = load_checkpoint(place / "runs" / run / "finetune" / f"{which}.safetensors").manifest
        assert manifest["source_sha256"] == pretrained
    assert RunFolder(place / "runs/tuned").read_result()["source_sha256"] == pretrained


def another_start(place: Path) -> None:
    """Let what runs/a pretrained be other weights."""
    path = place / "runs/a/pretrain/best.safetensors"
    kept = load_checkpoint(path)
    save_checkpoint(path, {name: tensor + 1 for name, tensor in kept.tensors.items()}, kept.manifest)


@pytest.mark.parametrize("line", ["fit --resume runs/a", "finetune --resume runs/tuned"])
def test_fine_tuning_that_began_is_not_resumed_from_another_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, line: str
) -> None:
    monkeypatch.chdir(place)
    broken_off(Path(line.split()[-1]), forgotten="source_sha256")
    another_start(place)
    assert main(f"{line} {RESUMED}".split()) == 2
    assert "started from a checkpoint of sha256" in capsys.readouterr().err


def test_fine_tuning_without_a_checkpoint_yet_is_not_resumed_from_another_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(place)
    broken_off(place / "runs/tuned")
    shutil.rmtree(place / "runs/tuned/finetune")
    another_start(place)
    assert main(f"finetune --resume runs/tuned {RESUMED}".split()) == 2
    assert "started from a checkpoint of sha256" in capsys.readouterr().err


def test_fine_tuning_without_a_checkpoint_yet_is_not_resumed_on_other_data(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(place)
    broken_off(place / "runs/tuned")
    shutil.rmtree(place / "runs/tuned/finetune")
    add(place / "photos/train/cat")
    assert main(f"finetune --resume runs/tuned {RESUMED}".split()) == 2
    assert "was pretrained on other data than there are now: 37 training" in capsys.readouterr().err


def test_fine_tuning_that_began_is_resumed_without_its_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    broken_off(place / "runs/tuned")
    shutil.rmtree(place / "runs/a")
    assert main(f"finetune --resume runs/tuned {RESUMED}".split()) == 0
    assert RunFolder(place / "runs/tuned").finished


def test_data_that_changed_since_pretraining_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(place)
    add(place / "photos/train/dog")
    assert main(["finetune", "--from", "runs/a", "--name", "c", "--device", "cpu", "--data.limit", "30"]) == 2
    assert "37 training images, not 36" in capsys.readouterr().err
