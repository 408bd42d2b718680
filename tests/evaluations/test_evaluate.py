from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

import advss
from advss.cli.main import main
from advss.config import EvalSettings, RunConfig
from advss.data.images import InMemory
from advss.data.splits import Part
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate, evaluate_model
from advss.hookspecs import Defense
from advss.stages.fit import fit
from advss.stages.validation import classifier_score, pretext_score
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest

Settings = Callable[..., RunConfig]
EPS, STEP_SIZE, STEPS = 2 / 255, 0.5 / 255, 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A classifier of 300 digits, trained for a few epochs: the run's folder and result."""
    runs = tmp_path_factory.mktemp("runs")
    result = advss.fit(
        pretext="none",
        defense="none",
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
        finetune_epochs=8,
        finetune_batch_size=16,
        eval_valid_steps=1,
        eval_eps=EPS,
        eval_step_size=STEP_SIZE,
        eval_steps=STEPS,
        name="digits",
        runs_dir=str(runs),
        device="cpu",
        memory_format="contiguous",
        tracking=False,
        data_limit=300,
    )
    return runs / "digits", result


def test_fit_returns_what_result_json_holds(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    assert json.loads((run / "result.json").read_text()) == result


def test_result_has_the_promised_keys(trained: tuple[Path, dict[str, Any]]) -> None:
    _, result = trained
    types = {
        "name": str,
        "pretext": list,
        "defense": str,
        "finetune": dict,
        "data": str,
        "backbone": str,
        "seed": int,
        "ta": float,
        "ra": float,
        "ra_attack": dict,
        "best_epoch": int,
        "epochs": dict,
        "seconds": dict,
    }
    assert {key: type(result[key]) for key in types} == types
    assert result["finetune"] == {"scheme": "full", "defense": "none"}
    assert result["ra_attack"].items() >= {"norm": "linf", "eps": EPS, "steps": STEPS}.items()
    assert 0 <= result["ra"] <= result["ta"] <= 1


def test_run_folder_holds_the_promised_files(trained: tuple[Path, dict[str, Any]]) -> None:
    run, _ = trained
    promised = ["config.yaml", "result.json", "metrics.jsonl", "figures/finetune.png"]
    promised += [f"finetune/{kind}{suffix}" for kind in ("last", "best") for suffix in (".safetensors", ".json")]
    assert [name for name in promised if not (run / name).is_file()] == []


def test_ta_is_that_of_the_loaded_model(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    x, label = advss.load_data(run)
    with torch.no_grad():
        right = advss.load_model(run)(x).argmax(1) == label
    assert float(right.double().mean()) == pytest.approx(result["ta"], abs=1e-9)


def test_ra_is_within_a_point_of_foolbox(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    x, label = advss.load_data(run)
    assert len(x) == result["ra_images"] >= 300
    classifier = advss.load_model(run)
    with torch.no_grad():
        clean = classifier(x).argmax(1) == label  # no perturbation is one too: what is wrong unattacked is not robust
    model = PyTorchModel(classifier, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    torch.manual_seed(0)
    _, _, broken = attack(model, x, label, epsilons=EPS)
    assert 0.05 < result["ra"] < result["ta"] - 0.05
    assert abs(float((clean & ~broken).double().mean()) - result["ra"]) <= 0.01


def test_images_of_a_run_are_floats_in_the_unit_interval(trained: tuple[Path, dict[str, Any]]) -> None:
    x, label = advss.load_data(trained[0])
    assert (x.dtype, x.shape[1:], label.dtype) == (torch.float32, (3, 32, 32), torch.int64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_model_loads_by_run_and_by_file_alike(trained: tuple[Path, dict[str, Any]]) -> None:
    run, _ = trained
    x, _ = advss.load_data(run)
    by_run, by_name, by_file = (
        advss.load_model(run),
        advss.load_model(run.name, runs_dir=run.parent),
        advss.load_model(run / "finetune/best.safetensors"),
    )
    logits = by_run(x[:4])
    assert not by_run.training
    assert torch.equal(logits, by_name(x[:4]))
    assert torch.equal(logits, by_file(x[:4]))


def test_unknown_run_is_named_with_the_nearest(trained: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match=r"there is no run 'digit' .*; did you mean 'digits'"):
        advss.load_model("digit", runs_dir=trained[0].parent)


def test_more_restarts_and_steps_find_no_less(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    measured = evaluate(
        run,
        EvalSettings(eps=EPS, step_size=STEP_SIZE, steps=STEPS, restarts=2),
        device="cpu",
        reporter=Silent(),
    )
    assert measured["ra"] <= result["ra"]
    assert measured["ra_attack"]["restarts"] == 2


# ---------------------------------------------------------------- measuring
class Constant(nn.Module):
    """Says class 1 of any image, whatever is done to it."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(x_BCHW), 2) + 0 * x_BCHW.sum((1, 2, 3))[:, None]


def test_constant_classifier_has_equal_ta_and_ra() -> None:
    part = Part(
        InMemory(torch.zeros(10, 3, 4, 4, dtype=torch.uint8)), torch.arange(10), torch.tensor([1] * 7 + [0] * 3)
    )
    cpu = torch.device("cpu")
    settings = EvalSettings(steps=1, batch_size=4)
    found = evaluate_model(Constant(), part, settings, device=cpu, seed=0, reporter=Silent(), stop=StopRequest())
    assert (found["ta"], found["ra"], found["ra_images"]) == (0.7, 0.7, 10)


class Counting(Constant):
    """Asks for an end in its third forward pass."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop, self.passes = stop, 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            self.stop.number = 15
        return super().forward(x_BCHW)


def test_measuring_stops_within_an_attack() -> None:
    part = Part(InMemory(torch.zeros(4, 3, 4, 4, dtype=torch.uint8)), torch.arange(4), torch.tensor([1] * 4))
    stop = StopRequest()
    model, settings = Counting(stop), EvalSettings(steps=20, batch_size=4)
    with pytest.raises(Interrupted):
        evaluate_model(model, part, settings, device=torch.device("cpu"), seed=0, reporter=Silent(), stop=stop)
    assert model.passes == 3


def test_evaluating_an_unfinished_run_leaves_it_unfinished(settings: Settings, stopper: Callable[..., Silent]) -> None:
    config = settings("none", "none", stage={"epochs": 2})
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        fit(config, reporter=stopper("finetune", "epoch", 1))
    result = evaluate(config.runs_dir / "run", replace(config.evaluation, steps=1), device="cpu", reporter=Silent())
    assert result["ta"] is not None
    assert fit(config, resume=True, reporter=Silent())["epochs"] == {"finetune": 2}


# ---------------------------------------------------------------- which epoch is best
def test_adversarial_classifiers_are_ranked_by_ra_then_ta() -> None:
    score = classifier_score(adversarial=True)
    epochs = [{"ra": 0.3, "ta": 0.9}, {"ra": 0.4, "ta": 0.5}, {"ra": 0.4, "ta": 0.6}]
    assert max(range(3), key=lambda i: score(epochs[i])) == 2


def test_standard_classifiers_are_ranked_by_ta() -> None:
    assert classifier_score(adversarial=False)({"ta": 0.6}) == (0.6,)


PRETEXT: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "adversarial accuracy": (
        {"adversarial/accuracy": 0.4, "adversarial/loss": 2.0, "clean/accuracy": 0.5, "clean/loss": 2.0},
        {"adversarial/accuracy": 0.3, "adversarial/loss": 1.0, "clean/accuracy": 0.9, "clean/loss": 1.0},
    ),
    "clean accuracy without an attack": (
        {"clean/accuracy": 0.5, "clean/loss": 2.0},
        {"clean/accuracy": 0.4, "clean/loss": 1.0},
    ),
    "loss without an accuracy": ({"clean/loss": 1.0}, {"clean/loss": 2.0}),
    "mean accuracy of an ensemble": (
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8, "clean/b/accuracy": 0.6},
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.9, "clean/b/accuracy": 0.3},
    ),
    "loss where one member has no accuracy": (
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.3},
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8},
    ),
    "accuracy beside a metric that is called a loss": (
        {"clean/loss": 9.0, "clean/a/loss": 1.0, "clean/b/loss": 8.0, "clean/a/accuracy": 0.8, "clean/b/accuracy": 0.6}
        | {"clean/a/kl_loss": 1.0},
        {"clean/loss": 2.0, "clean/a/loss": 1.0, "clean/b/loss": 1.0, "clean/a/accuracy": 0.9, "clean/b/accuracy": 0.3}
        | {"clean/a/kl_loss": 0.0},
    ),
}


@pytest.mark.parametrize("by", PRETEXT)
def test_pretext_epochs_are_ranked_by(by: str) -> None:
    better, worse = PRETEXT[by]
    assert pretext_score(better) > pretext_score(worse)


def test_a_defense_is_adversarial_unless_it_says_otherwise() -> None:
    assert Defense.adversarial


def test_a_run_outlives_its_pretext_plugin_and_its_place(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(settings("rotation", "none"), reporter=Silent())
    moved = (tmp_path / "runs" / "run").rename(tmp_path / "moved")
    config = (moved / "config.yaml").read_text()
    assert "rotation: {}" in config
    (moved / "config.yaml").write_text(config.replace("rotation: {}", "gone: {share: 0.3}"))
    assert main(["evaluate", str(moved), "--quiet", "--eval-steps", "1", "--eval-limit", "20"]) == 0
    again = json.loads((moved / "result.json").read_text())
    assert again["ta"] == result["ta"]
    assert (again["name"], again["folder"]) == ("moved", str(moved))
    assert len(advss.load_data(moved)[0]) == 80
    capsys.readouterr()
    assert main(["evaluate", str(moved), "--eval-steps", "0"]) == 2
    assert "--eval-steps" in capsys.readouterr().err
