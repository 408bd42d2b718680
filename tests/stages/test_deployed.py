"""A run whose scheme trains another form of the classifier than is kept: what is measured, saved and loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import advss
from advss.config import RunConfig
from advss.errors import UsageError
from advss.hookspecs import Classifier, FinetuneScheme, Phase
from advss.plugins import forget, registry
from advss.plugins.discovery import Discovery, Plugin
from advss.stages.fit import fit
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, Tensor]]
WEIGHT = "head.parametrizations.weight"


class Gate(nn.Module):
    """w ↦ (1 + gate)·w."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        return (1 + self.gate) * weight


class Gated(FinetuneScheme):
    """A gate on the head's weights, merged."""

    name = "gated"

    def build(self, classifier: Classifier) -> None:
        parametrize.register_parametrization(classifier.head, "weight", Gate())

    def phases(self, classifier: Classifier) -> list[Phase]:
        return [Phase(1.0, [{"params": list(classifier.parameters())}])]

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        own = {name: t for name, t in classifier.state_dict().items() if ".parametrizations." not in name}
        return {**own, "head.weight": classifier.head.weight}


class Silenced(Gated):
    """What it leaves answers alike to every image: its loss is log K, whatever has trained."""

    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return {name: t * (not name.startswith("head.")) for name, t in super().deployed(classifier).items()}


class Unmerged(Gated):
    def deployed(self, classifier: Classifier) -> dict[str, Tensor]:
        return FinetuneScheme.deployed(self, classifier)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Let a scheme be the one called "gated"; after the test, and where None is installed, it is gone."""
    known = [*registry().found.plugins]

    def put(offered: Any) -> None:
        own = [Plugin("finetune", "gated", offered, "elsewhere", "1.0")] if offered else []
        found = Discovery([*known, *own])
        monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: found)

    yield put
    monkeypatch.undo()
    forget()


def test_the_best_is_the_plain_moving_average_and_loads_without_the_scheme(
    install: Callable[[Any], None], settings: Settings, tensors: Tensors
) -> None:
    install(Gated)
    config = settings("none", "pgd", finetune="gated", stage={"ema": 0.5})
    fit(config, reporter=Silent())
    install(None)
    best, last = tensors(config, "finetune", "best"), tensors(config, "finetune", "last")
    assert not [name for name in best if "parametrizations" in name or name.startswith("scheme.")]
    merged = (1 + last[f"average.{WEIGHT}.0.gate"]) * last[f"average.{WEIGHT}.original"]
    assert last[f"{WEIGHT}.0.gate"] != last[f"average.{WEIGHT}.0.gate"] != 0
    assert torch.equal(best["head.weight"], merged)
    model = advss.load_model("run", runs_dir=config.runs_dir)
    assert torch.equal(model.get_parameter("head.weight"), merged)


def test_the_form_that_trains_is_no_model(install: Callable[[Any], None], settings: Settings) -> None:
    install(Gated)
    config = settings("none", "none", finetune="gated")
    fit(config, reporter=Silent())
    last = config.runs_dir / "run" / "finetune" / "last.safetensors"
    best = last.with_name("best.safetensors")
    with pytest.raises(UsageError) as error:
        advss.load_model(last)
    assert str(error.value) == f"{last} holds the classifier in the form that trains; load what it leaves: {best}"


def test_validation_and_evaluation_measure_what_is_deployed(install: Callable[[Any], None], settings: Settings) -> None:
    install(Silenced)
    result = fit(settings("none", "pgd", finetune="gated"), reporter=Silent())
    measured = result["best_metrics"]["finetune"]
    assert measured["valid/clean/loss"] == pytest.approx(math.log(10), abs=1e-6)
    assert measured["valid/ta"] == measured["valid/ra"]  # class 0 for all, whatever is added
    assert result["ta"] == result["ra"]


def test_stopped_and_resumed_it_is_the_same_bit_for_bit(
    install: Callable[[Any], None], settings: Settings, stopper: Callable[[str, str, int], Reporter], tensors: Tensors
) -> None:
    install(Gated)
    whole = settings("rotation", "none", finetune="gated", stage={"epochs": 2, "ema": 0.5}, name="whole")
    broken = replace(whole, name="broken")
    fit(whole, reporter=Silent())
    for resume, moment in enumerate([("finetune", "step", 1), ("finetune", "epoch", 1)]):
        with pytest.raises(Interrupted):
            fit(broken, resume=resume > 0, reporter=stopper(*moment))
    fit(broken, resume=True, reporter=Silent())
    for which in ("last", "best"):
        one, other = tensors(whole, "finetune", which), tensors(broken, "finetune", which)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_what_loads_into_no_plain_classifier_is_refused_before_any_training(
    install: Callable[[Any], None], settings: Settings, tmp_path: Path
) -> None:
    install(Unmerged)
    said = rf"finetune: .*gated.*: deployed\(\) gives no 'head.weight' but '{WEIGHT}.original'; return the state dict"
    with pytest.raises(UsageError, match=said):
        fit(settings("rotation", "none", finetune="gated"), reporter=Silent())
    assert not (tmp_path / "runs" / "run").exists()
