"""Runs that start from weights: kept in the run's folder, in every stage, and never read or fetched again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import advss
from advss.config import Choice, RunConfig
from advss.configuration.resolve import resolve
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.stages.fit import finetune, fit, pretrain
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, torch.Tensor]]
Stop = Callable[[str, str, int], Reporter]
STILL = {"lr": 1e-30, "weight_decay": 0.0}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of random weights of timm's smallest ResNet."""
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture
def starting(settings: Settings, weights: Path) -> Settings:
    """As ``settings``, of runs that start from ``weights``."""

    def make(*choices: str, **more: object) -> RunConfig:
        return settings(*choices, **{"backbone": Choice("test_resnet", {"weights": weights}), **more})

    return make


class Heard(Silent):
    """A reporter that keeps the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_run_goes_on_bit_for_bit_although_the_file_is_gone(
    starting: Settings, weights: Path, stopper: Stop, tensors: Tensors
) -> None:
    whole = starting("selfie", "none", name="whole")
    broken = replace(whole, name="broken")
    expected = fit(whole, reporter=Silent())
    with pytest.raises(Interrupted):
        fit(broken, reporter=stopper("pretrain", "start", 0))
    shutil.rmtree(broken.runs_dir / "broken" / "pretrain")  # as if it had been killed before its first checkpoint
    weights.unlink()
    for moment in (("pretrain", "step", 1), ("pretrain", "epoch", 1), ("finetune", "step", 1)):
        with pytest.raises(Interrupted):
            fit(broken, resume=True, reporter=stopper(*moment))
    found = fit(broken, resume=True, reporter=Silent())
    for stage in ("pretrain", "finetune"):
        one, other = tensors(whole, stage, "last"), tensors(broken, stage, "last")
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert (found["ta"], found["ra"]) == (expected["ta"], expected["ra"])


def test_stem_said_and_digest_recorded(starting: Settings, weights: Path) -> None:
    heard, config = Heard(), starting("none", "none")
    result = fit(config, reporter=heard)
    sha256 = result["weights"]["sha256"]
    said = f"starts from {weights}, sha256 {sha256[:8]}, the last stage too; a fresh stem, for images of 16 pixels"
    assert heard.lines.count(said) == 1
    manifest = load_checkpoint(config.runs_dir / "run/finetune/best.safetensors").manifest
    assert manifest["weights"]["sha256"] == sha256
    assert (manifest["model"]["backbone"], manifest["model"]["options"]) == ("test_resnet", {})
    assert manifest["model"]["mean"] == [0.5, 0.5, 0.5]


def test_p1_partial_trains_head_and_stem_alone(starting: Settings, weights: Path, tensors: Tensors) -> None:
    config = starting("none", "none", "partial")
    fit(config, reporter=Silent())
    after, theirs = tensors(config, "finetune", "last"), load_file(weights)
    stem = ("conv1.", "bn1.", "fc.")
    inner = {n: t for n, t in theirs.items() if not n.startswith((*stem, "layer4."))}
    assert [n for n, t in inner.items() if not torch.equal(t, after[f"encoder.net.{n}"])] == []
    last = {n.removeprefix("layer4."): t for n, t in theirs.items() if n.startswith("layer4.")}
    assert [n for n, t in last.items() if not torch.equal(t, after[f"tail.stage.{n}"])] == []


@pytest.mark.parametrize(("task", "owner"), [("selfie", "tail."), ("rotation", "tasks.rotation.tail.")])
def test_tasks_and_classifier_start_from_the_last_stage(
    task: str, owner: str, starting: Settings, weights: Path, tensors: Tensors
) -> None:
    """A task's own, if it has one, then the classifier's: a run of its own, from the pretraining run's copy."""
    config = starting(task, "none", stage=STILL, name="p")
    pretrain(config, reporter=Silent())
    weights.unlink()
    finetune(replace(config, name="f"), source=config.runs_dir / "p", reporter=Silent())
    kept = load_checkpoint(config.runs_dir / "f/initial.safetensors").tensors
    tensor = "stage.0.conv1.weight"
    if owner != "tail.":
        assert torch.equal(tensors(config, "pretrain", "last")[owner + tensor], kept["layer4.0.conv1.weight"])
    after = tensors(replace(config, name="f"), "finetune", "last")
    assert torch.equal(after["tail." + tensor], kept["layer4.0.conv1.weight"])
    manifest = load_checkpoint(config.runs_dir / "f/finetune/last.safetensors").manifest
    assert "tail." + tensor in manifest["loaded"]


def test_measuring_needs_no_weights_but_the_classifiers(starting: Settings, weights: Path) -> None:
    config = starting("none", "none")
    fit(config, reporter=Silent())
    weights.unlink()
    for path in (config.runs_dir / "run").glob("initial.*"):
        path.unlink()
    assert evaluate(config.runs_dir / "run", config.evaluation, reporter=Silent())["ta"] is not None
    advss.load_model(str(config.runs_dir / "run"))


def test_a_start_that_is_gone_is_named(starting: Settings, stopper: Stop) -> None:
    config = starting("none", "none")
    with pytest.raises(Interrupted):
        fit(config, reporter=stopper("finetune", "step", 1))
    (config.runs_dir / "run/initial.safetensors").unlink()
    with pytest.raises(UsageError, match=r"run/initial.safetensors, which it starts from, is missing; put it back"):
        fit(config, resume=True, reporter=Silent())


def test_another_start_than_the_pretraining_runs_is_refused(settings: Settings, weights: Path) -> None:
    config = settings("rotation", "none", name="p")
    pretrain(config, reporter=Silent())
    other = replace(
        config, name="f", backbone=replace(config.backbone, options={**config.backbone.options, "weights": weights})
    )
    with pytest.raises(UsageError, match=rf"p started from random weights, not from {weights}; leave --backbone.pretr"):
        finetune(other, source=config.runs_dir / "p", reporter=Silent())
    assert not (config.runs_dir / "f").exists()


def test_a_file_that_does_not_fit_leaves_no_folder(starting: Settings, weights: Path) -> None:
    save_file({"a": torch.zeros(1)}, weights)
    config = starting("none", "none")
    with pytest.raises(UsageError, match=r"none of the model's .* tensors is in it"):
        fit(config, reporter=Silent())
    assert not (config.runs_dir / "run").exists()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"backbone.pretrained": "maybe"}, "--backbone.pretrained: expected bool, got 'maybe'"),
        (
            {"backbone.pretrained": True, "backbone.weights": "w"},
            "pretrained and --backbone.weights .*w: .* one of them",
        ),
        ({"backbone.weights": 3}, "--backbone.weights: expected Path | None, got 3"),
    ],
)
def test_what_is_said_of_the_start_is_typed(said: dict[str, object], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        resolve(said, environ={})


def test_a_file_is_kept_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = resolve({"backbone": "resnet18.a1_in1k", "backbone.weights": "w.safetensors"}, environ={})
    assert config.start
    assert config.start.weights == tmp_path / "w.safetensors"
    assert config.architecture == Choice("resnet18", {})
