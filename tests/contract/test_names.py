"""No name of a task, a scheme or a BatchNorm branch collides with what stands beside it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advss
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import BranchNorm, Encoder, Loss, Task, Views, branch
from advss.models.encoder import keep_branch
from advss.plugins import registry
from advss.plugins.discovery import NAME, Discovery, Plugin
from advss.tracking.mlflow_runs import mlflow_name
from advss.training.checkpoints import load_checkpoint
from advss.training.form import MisfitError, check_branches
from advss.training.members import by_member
from advss.training.work import Modules
from advss_finetune.full import Full
from advss_pretext.rotation import Rotation

OWN = ["encoder", "tail", "head", "scheme", "tasks", "trunk", "members", "loss", "clean", "adversarial", "cosine"]
NAMES = sorted({name for name in (*dir(nn.ModuleDict), *dir(nn.ModuleList), *OWN) if NAME.fullmatch(name)})


STAGE = {"epochs": 1, "batch_size": 18}


class Linear(Task):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(self.head(encoder(inputs[0])).mean())


@pytest.fixture
def members() -> dict[str, Task]:
    return {name: Linear() for name in NAMES}


def test_modules_of_any_name_are_saved_and_loaded_under_it(members: dict[str, Task]) -> None:
    assert {"type", "float", "train", "values", "clear", "forward"} <= set(NAMES)
    modules, others = (Modules(nn.Linear(3, 3), own, "pretrain") for own in (members, {n: Linear() for n in NAMES}))
    others.load_named_state(modules.named_state(), what="it")
    for name in NAMES:
        assert torch.equal(others.tasks()[name].head.weight, members[name].head.weight)  # type: ignore[arg-type, union-attr]
        assert f"tasks.{name}.head.weight" in modules.named_state()


@pytest.mark.parametrize("name", ["type", "encoder", "head"])
def test_a_scheme_of_any_name_is_saved_as_the_scheme(name: str) -> None:
    names = Modules(nn.Sequential(nn.Linear(3, 3)), {name: Linear()}, "finetune").named_state()
    assert list(names) == ["0.weight", "0.bias", "scheme.head.weight", "scheme.head.bias"]


def test_an_objective_of_any_names_is_evaluated_at_other_parameters(members: dict[str, Task]) -> None:
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    views = tuple(Views((x,)) for _ in members)
    objective = TaskObjective(nn.Identity(), members, views, stage="pretrain", key=(0,))
    halved = {name: p / 2 for name, p in objective.parameters().items()}
    with objective.at(halved):
        there = objective(objective.inputs).value
    torch.testing.assert_close(there, objective(objective.inputs).value / 2)


def test_a_branch_of_any_name_answers_and_is_found_in_a_checkpoint() -> None:
    norm = BranchNorm({name: nn.BatchNorm2d(1) for name in NAMES})
    for name in NAMES:
        with branch(name, norm):
            assert norm.current == name
            norm(torch.ones(2, 1, 1, 1))
    for name in NAMES:
        state = keep_branch(norm.state_dict(), name)
        assert set(state) == set(nn.BatchNorm2d(1).state_dict())
        assert int(state["num_batches_tracked"]) == 1


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a.b",), ("",), ["a"], "main", (1,)])
def test_branches_that_are_no_names_are_refused(names: Any) -> None:
    with pytest.raises(MisfitError, match="give each a name of its own"):
        check_branches(names)


@pytest.mark.parametrize("name", ["train", "valid", "step", "clean", "cosine", "abs_cosine", "diversity"])
def test_metrics_of_a_member_of_any_name_are_its_own(name: str) -> None:
    whole = {"train/loss": 3.0, "valid/clean/loss": 2.0, "step/diversity": 1.0, f"step/cosine:{name}/b": 0.1}
    own = {f"train/{name}/loss": 4.0, f"valid/clean/{name}/accuracy": 5.0, f"step/{name}/loss": 6.0}
    found = by_member(whole | own, [name, "b"])
    assert found == {name: {"train/loss": 4.0, "valid/clean/accuracy": 5.0, "step/loss": 6.0}, "b": {}}


def test_the_second_of_a_name_is_no_other_plugins_in_mlflow() -> None:
    assert mlflow_name("selfie#2/loss") != mlflow_name("selfie_2/loss")


class Type(Rotation):
    name = "type"
    branches = ("forward", "float")

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        with branch("float", encoder, self):
            return super().loss(encoder, inputs, targets)


class Train(Rotation):
    name = "train"


class Values(Full):
    name = "values"


def test_a_whole_run_of_names_that_are_attributes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offered: list[Any] = [("pretext", Type), ("pretext", Train), ("finetune", Values)]
    own = [Plugin(kind, offer.name, offer, "elsewhere", "1.0") for kind, offer in offered]
    found = Discovery([*registry().found.plugins, *own])
    monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: found)
    settings: Any = {f"{stage}_{name}": value for stage in ("pretrain", "finetune") for name, value in STAGE.items()}
    advss.fit(
        pretext=["type", "train", "type"],
        defense={"pgd": {"steps": 1}},
        finetune="values",
        diversity=0.1,
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}},
        data_limit=40,
        data_size=16,
        eval_limit=10,
        eval_steps=1,
        eval_valid_steps=1,
        tracking=False,
        device="cpu",
        memory_format="contiguous",
        name="it",
        runs_dir=tmp_path,
        **settings,
    )
    names = set(load_checkpoint(tmp_path / "it/pretrain/last.safetensors").tensors)
    assert {f"tasks.{key}.head.weight" for key in ("type", "train", "type#2")} <= names
    assert {f"encoder.net.bn1.branches.@{name}.weight" for name in ("forward", "float", "main")} <= names
    assert "encoder.net.bn1.weight" in load_checkpoint(tmp_path / "it/finetune/best.safetensors").tensors
    assert advss.load_model(tmp_path / "it")(torch.rand(2, 3, 16, 16)).shape == (2, 10)
