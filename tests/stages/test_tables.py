"""Tables 1 and 2 of the paper: which parameters change in pretraining (P1-P3) and in fine-tuning (F1-F4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advss.config import RunConfig
from advss.runs.classifier import new_classifier
from advss.runs.start import read_start
from advss.stages.fit import finetune as finetune_run
from advss.stages.fit import fit
from advss.stages.fit import pretrain as pretrain_run
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, Tensor]]
TASKS = ("selfie", "rotation", "jigsaw")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Path]:
    """The pretraining checkpoint of a configuration, made once."""
    folder, made = tmp_path_factory.mktemp("pretrained"), dict[str, Path]()

    def make(config: RunConfig) -> Path:
        key = f"{config.pretext[0].name}-{config.defense.name}"
        if key not in made:
            pretrain_run(replace(config, runs_dir=folder, name=key), reporter=Silent())
            made[key] = folder / key / "pretrain/best.safetensors"
        return made[key]

    return make


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def learned(names: dict[str, Tensor]) -> set[str]:
    """Without what no stage learns: the data's mean and standard deviation, jigsaw's permutations."""
    return {name for name in names if name.rsplit(".", 1)[-1] not in ("mean", "std", "orders")}


@pytest.mark.parametrize("defense", ["none", "pgd"])
@pytest.mark.parametrize("task", TASKS)
def test_p2_and_p3_train_encoder_and_head(
    task: str, defense: str, settings: Settings, pretrained: Callable[[RunConfig], Path]
) -> None:
    after = load_checkpoint(pretrained(settings(task, defense))).tensors
    start = settings(task, defense, name="start", stage={"lr": 1e-30, "weight_decay": 0.0})
    pretrain_run(start, reporter=Silent())
    before = load_checkpoint(start.runs_dir / "start/pretrain/best.safetensors").tensors
    learning = {name for name in learned(after) if "num_batches" not in name}
    # a bias before BatchNorm, or one added to all keys of attention alike, has no gradient
    assert {name for name in learning - changed(before, after) if not name.endswith("bias")} == set()


@pytest.mark.parametrize("defense", ["none", "pgd"])
def test_p1_pretrains_nothing(defense: str, settings: Settings) -> None:
    config = settings("none", defense)
    result = fit(config, reporter=Silent())
    assert not (config.runs_dir / "run/pretrain").exists()
    assert result["pretext"] == []
    assert set(result["epochs"]) == {"finetune"}


def loaded(source: Path) -> dict[str, Tensor]:
    """What fine-tuning takes from a pretraining checkpoint, by its names in the classifier."""
    start = read_start(source)
    tail = {f"tail.{name}": tensor for name, tensor in (start.tail or {}).items()}
    return {f"encoder.{name}": tensor for name, tensor in start.encoder.items()} | tail


@pytest.mark.parametrize("defense", ["none", "pgd"])
@pytest.mark.parametrize("task", TASKS)
def test_partial_trains_the_head_and_a_last_stage_that_no_task_had_and_leaves_the_rest_bit_identical(
    task: str, defense: str, settings: Settings, tensors: Tensors, pretrained: Callable[[RunConfig], Path]
) -> None:
    source = pretrained(settings(task, "pgd"))
    config = settings(task, "pgd", "partial", defense)
    finetune_run(config, source=source, reporter=Silent())
    after, before = tensors(config, "finetune", "last"), loaded(source)
    assert any(name.endswith("running_mean") for name in before)
    assert changed(before, after) == set()  # parameters and BatchNorm's statistics
    fresh = new_classifier(read_start(source).spec, 10, seed=config.seed).state_dict()
    fresh = {n: t for n, t in fresh.items() if n.startswith("head") or (task == "selfie" and n.startswith("tail"))}
    assert changed(fresh, after) == set(fresh)


@pytest.mark.parametrize("defense", ["none", "pgd"])
@pytest.mark.parametrize("task", TASKS)
def test_full_trains_everything(
    task: str, defense: str, settings: Settings, tensors: Tensors, pretrained: Callable[[RunConfig], Path]
) -> None:
    source = pretrained(settings(task, "pgd"))
    config = settings(task, "pgd", "full", defense)
    finetune_run(config, source=source, reporter=Silent())
    before = loaded(source)
    assert changed(before, tensors(config, "finetune", "last")) == learned(before)


def test_partial_from_scratch_leaves_the_random_encoder(settings: Settings, tensors: Tensors) -> None:
    config = settings("none", "pgd", "partial")
    fit(config, reporter=Silent())
    checkpoint = load_checkpoint(config.runs_dir / "run/finetune/last.safetensors")
    assert checkpoint.manifest["loaded"] == []
    whole = replace(config, name="other", finetuning=replace(config.finetuning, lr=1e-30))
    fit(whole, reporter=Silent())
    moved = changed(tensors(whole, "finetune", "last"), checkpoint.tensors)
    assert {name.split(".")[0] for name in moved if not name.startswith("optimizer.")} == {"tail", "head"}


@pytest.mark.parametrize("order", ["rotation,jigsaw", "jigsaw,rotation"])
def test_members_begin_the_same_in_any_order(order: str, settings: Settings, tensors: Tensors) -> None:
    both = settings(order, "none", stage={"lr": 1e-30, "weight_decay": 0.0})
    alone = settings("jigsaw", "none", name="alone", stage={"lr": 1e-30, "weight_decay": 0.0})
    for config in (both, alone):
        pretrain_run(config, reporter=Silent())
    of_both, of_one = tensors(both, "pretrain", "best"), tensors(alone, "pretrain", "best")
    heads = {name: of_one[name] for name in ("tasks.jigsaw.head.weight", "tasks.jigsaw.orders")}
    assert changed(heads, of_both) == set()


def test_fine_tuning_of_no_epochs_is_skipped(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings()
    config = replace(config, finetuning=replace(config.finetuning, epochs=0))
    result = fit(config, reporter=Silent())
    assert "--finetune-epochs 0: there is no classifier" in capsys.readouterr().err
    assert (result["status"], result["ta"], result["ra"], result["epochs"]) == (
        "finished",
        None,
        None,
        {"pretrain": 1, "finetune": 0},
    )
    assert (config.runs_dir / "run/pretrain/best.safetensors").is_file()
    assert not (config.runs_dir / "run/finetune").exists()
    assert fit(config, resume=True, reporter=Silent()) == result
    assert "is finished" in capsys.readouterr().err
