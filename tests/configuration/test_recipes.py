"""The packaged recipes hold the released hyper-parameters (SPEC section 4's table) for every task and defense."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advss.config import Choice, RunConfig
from advss.configuration.recipes import read_config, recipes
from advss.configuration.resolve import resolve, to_yaml
from advss.hookspecs import DataSource, Split

Settings = dict[str, Any]
ROTATION: Settings = {
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "batch_size": 128,
    "epochs": 100,
    "min_lr": 1e-6,
}
ROTATION |= {"optimizer": "sgd", "nesterov": False, "schedule": "cosine", "warmup_steps": 200, "warmup_lr": 0.01}
ROTATION |= {"crop": 4, "flip": True}
SELFIE: Settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 128, "epochs": 200, "min_lr": 1e-7}
SELFIE |= {"optimizer": "sgd", "nesterov": True, "schedule": "cosine", "crop": 2, "flip": False}
ENSEMBLE: Settings = {
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 32,
    "epochs": 150,
    "min_lr": 1e-8,
}
ENSEMBLE |= {"optimizer": "sgd", "nesterov": True, "schedule": "cosine", "warmup_steps": 0, "crop": 4, "flip": True}
FINETUNE: Settings = {
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "batch_size": 128,
    "epochs": 100,
    "nesterov": False,
}
FINETUNE |= {"optimizer": "sgd", "schedule": "multistep", "milestones": (60, 80), "warmup_steps": 200}
FINETUNE |= {"crop": 4, "flip": True}
PRETRAINING: dict[tuple[str, str], Settings] = {
    ("rotation", "pgd"): ROTATION,
    ("rotation", "none"): ROTATION | {"epochs": 200},
    ("jigsaw", "pgd"): ROTATION,
    ("jigsaw", "none"): ROTATION | {"epochs": 200, "weight_decay": 5e-4},
    ("selfie", "pgd"): SELFIE,
    ("selfie", "none"): SELFIE | {"batch_size": 256},
    ("selfie,rotation,jigsaw", "pgd"): ENSEMBLE,
    ("selfie,rotation,jigsaw", "none"): ENSEMBLE,
    ("rotation,jigsaw", "pgd"): ENSEMBLE,
}


def recipe(name: str, pretext: str, defense: str) -> RunConfig:
    return resolve({"pretext": pretext, "defense": defense}, configs=[name], environ={}, text=True)


@pytest.mark.parametrize(("pretext", "defense"), PRETRAINING)
def test_released_pretraining(pretext: str, defense: str) -> None:
    settings = asdict(recipe("cifar10-paper", pretext, defense).pretraining)
    expected = PRETRAINING[pretext, defense]
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(("pretext", "defense"), PRETRAINING)
def test_released_finetuning(pretext: str, defense: str) -> None:
    settings = asdict(recipe("cifar10-paper", pretext, defense).finetuning)
    assert {name: settings[name] for name in FINETUNE} == FINETUNE


def test_released_variants_with_trades_decay_earlier() -> None:
    assert recipe("cifar10-paper", "rotation", "trades").finetuning.milestones == (40, 60)
    said = {"finetune-defense": "trades", "finetune-milestones": "7,9"}
    config = resolve(said, configs=["cifar10-paper"], environ={}, text=True)
    assert config.finetuning.milestones == (7, 9)


def test_released_backbone_and_attacks() -> None:
    config = recipe("cifar10-paper", "selfie", "pgd")
    training = {"norm": "linf", "eps": 8 / 255, "step_size": 2 / 255, "steps": 10, "random_start": True}
    assert config.backbone.name == "resnetv2_50"
    assert config.defense.options | training == config.defense.options
    measured = config.evaluation
    assert (measured.norm, measured.eps, measured.step_size, measured.steps) == ("linf", 8 / 255, 2 / 255, 20)


@pytest.mark.parametrize(
    ("name", "pretext", "defense"),
    list(
        product(
            ("digits", "cifar10-paper", "cifar10-fast"),
            ("none", "selfie", "rotation", "jigsaw", "selfie,rotation,jigsaw"),
            ("none", "pgd"),
        )
    ),
)
def test_every_recipe_resolves(name: str, pretext: str, defense: str) -> None:
    config = recipe(name, pretext, defense)
    assert config.data.name == ("digits" if name == "digits" else "cifar10")
    assert (config.pretraining.epochs == 0) == (pretext == "none")


def test_digits_are_not_flipped() -> None:
    config = resolve({}, environ={})
    assert config.data.name == "digits"
    assert not config.pretraining.flip
    assert not config.finetuning.flip


def test_the_default_is_selfie_under_pgd() -> None:
    config = resolve({}, environ={})
    assert ([m.name for m in config.pretext], config.defense.name, config.finetune.name) == (["selfie"], "pgd", "full")


def test_cifar10_takes_the_papers_recipe_by_default() -> None:
    said = {"pretext": "rotation", "data": "cifar10"}
    assert resolve(said, environ={}) == recipe("cifar10-paper", "rotation", "pgd")


def test_the_fast_recipe_is_mixed_precision() -> None:
    config = recipe("cifar10-fast", "selfie", "pgd")
    assert (config.precision, config.backbone.name, config.pretraining.schedule) == ("auto", "resnet18", "onecycle")


@pytest.mark.parametrize("pretext", ["none", "selfie", "rotation", "jigsaw", "selfie,rotation,jigsaw"])
def test_photographs_are_trained_on_as_wong_rice_and_kolter_do(pretext: str) -> None:
    config = resolve({"pretext": pretext, "data.root": "photos"}, configs=["imagenet"], environ={}, text=True)
    assert (config.data.name, config.backbone.name, config.size, config.resize) == ("imagefolder", "resnet50", 224, 256)
    attack = config.finetune_defense.options
    assert (config.finetune_defense.name, attack["eps"], attack["step"]) == ("fgsm-rs", 4 / 255, 1.25)
    assert (config.evaluation.eps, config.finetuning.epochs, config.finetuning.resized_crop) == (4 / 255, 15, 0.08)


@pytest.mark.parametrize("name", list(recipes()))
def test_each_recipe_says_what_it_is(name: str) -> None:
    assert read_config(name).description


# ---------------------------------------------------------------- small sets
class Counted(DataSource):
    """Labels without images."""

    def __init__(self, count: int) -> None:
        self.count = count

    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    def labels(self, split: Split) -> Tensor:
        return torch.zeros(self.count, dtype=torch.int64)

    def images(self, split: Split, places_B: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(("count", "name"), [(9_999, "small"), (10_000, "cifar10-paper")])
def test_the_number_of_images_chooses_the_recipe_and_it_is_said(
    count: int, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("advss.configuration.resolve.build", lambda kind, choice: Counted(count))
    said = {"data": {"imagefolder": {"root": "photos"}}, "pretext": "rotation"}
    config = resolve(said, environ={})
    line = f"recipe {name}, chosen for {count} training images; `advss fit --help` lists the others\n"
    assert capsys.readouterr() == ("", line)
    assert config == resolve(said, configs=[name], environ={})


def test_a_limit_above_what_there_is_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("advss.configuration.resolve.build", lambda kind, choice: Counted(300))
    resolve({"data": {"imagefolder": {"root": "photos"}}, "data.limit": 5000}, environ={})
    assert "chosen for 300 training images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({}, "digits, chosen for --data digits"),
        ({"data": "cifar10"}, "cifar10-paper, chosen for --data cifar10"),
        ({"data": "cifar100", "data.limit": 300}, "small, chosen for 300 training images"),
        ({"data": {"imagefolder": {"root": "nowhere"}}}, "cifar10-paper, chosen for --data imagefolder"),
    ],
)
def test_every_recipe_that_is_chosen_is_said(
    said: dict[str, Any], chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    resolve(said, environ={})
    assert capsys.readouterr().err == f"recipe {chosen}; `advss fit --help` lists the others\n"


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ({}, (5, 5)),
        ({"defense": "trades"}, (5, 5)),
        ({"defense": "none", "finetune-defense": "pgd"}, (None, 5)),
        ({"defense": "pgd", "finetune-defense": "trades"}, (5, 5)),
        ({"defense.steps": 7}, (7, 7)),
        ({"finetune-defense.steps": 7}, (5, 7)),
    ],
)
def test_the_small_recipe_trains_on_five_steps_of_any_attack(
    said: dict[str, Any], steps: tuple[int | None, int]
) -> None:
    config = resolve({"data": "cifar10", "data.limit": 300} | said, environ={})
    assert (config.defense.options.get("steps"), config.finetune_defense.options["steps"]) == steps


def test_a_recipe_that_was_named_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    resolve({}, configs=["digits"], environ={})
    assert capsys.readouterr().err == ""


def test_a_file_that_says_everything_has_nothing_of_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve({"backbone": "resnetv2_18"}, configs=["cifar10-fast"], environ={})
    (tmp_path / "all.yaml").write_text(to_yaml(replace(config, data=Choice("digits"))), "utf-8")
    again = resolve({}, configs=[tmp_path / "all.yaml"], environ={})
    assert again.backbone.options == {}  # the recipe of the digits has options of the same backbone
    assert capsys.readouterr().err == ""


def test_a_limit_makes_few_of_many() -> None:
    config = resolve({"data": "cifar10", "data.limit": 300}, environ={})
    assert (config.data.name, config.limit, config.finetuning.epoch_steps) == ("cifar10", 300, 50)
