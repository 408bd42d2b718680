"""What Python code of docs/ does when it runs: classes below the first of a page, keywords, CIFAR-10-C, features."""

from __future__ import annotations

import ast
import importlib
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import advss
from advss.cli.main import main
from advss.configuration.resolve import from_mapping
from advss.data.sources import cifar10c
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Loss, Task, Views
from advss.measuring import Victim
from advss.plugins import registry
from advss.plugins.discovery import Discovery, Plugin
from advss.plugins.kinds import Kind
from advss.stages.fit import pretrain
from advss.testing.subject import Subject
from advss.testing.suite import checks_of
from advss.testing.verdicts import Verdict, judge
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted

DOCS = Path(__file__).parents[2] / "docs"
RUN = (
    "fit --data digits --data.limit 40 --pretext none --finetune-epochs 1 --finetune-batch-size 18 --eval-steps 1 "
    "--eval-valid-steps 1 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8] --device cpu "
    "--memory-format contiguous --tracking false --quiet --name it"
)


def python_of(page: str) -> list[str]:
    """The blocks of Python of a page, in order."""
    return re.findall(r"^```python[^\n]*\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


def offered(page: str, name: str) -> Any:
    """A class of a page, whose blocks of Python from the one with a class on run one after another."""
    blocks, namespace = python_of(page), dict[str, Any]()
    for code in blocks[min(n for n, code in enumerate(blocks) if "class " in code) :]:
        exec(code, namespace)
    return namespace[name]


def installed(kind: Kind, offered: Any, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """A class of a page as a distribution's plugin, while a test runs."""
    plugin = Plugin(kind, offered.name, offered, "elsewhere", "1.0")
    found = Discovery([*registry().found.plugins, plugin])
    monkeypatch.setattr(importlib.import_module("advss.plugins.registry"), "_discovered", lambda: found)
    return plugin


def verdicts(plugin: Plugin, **options: Any) -> list[Verdict]:
    """Of all checks but of what an installed distribution is asked."""
    return [judge(each, Subject(plugin, options)) for each in checks_of(plugin.kind) if "found" not in each.name]


@pytest.mark.parametrize(
    ("kind", "page", "name"),
    [
        ("defense", "defenses.md", "Flat"),
        ("finetune", "finetune.md", "Beside"),
        ("evaluation", "evaluations.md", "Noises"),
        ("launcher", "launchers.md", "Yielding"),
    ],
)
def test_a_further_class_of_a_page_keeps_the_contract(
    kind: Kind, page: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verdicts(installed(kind, offered(page, name), monkeypatch))
    assert [(verdict.check, verdict.message) for verdict in found if verdict.outcome != "passed"] == []
    assert len(found) > 15


# ---------------------------------------------------------------- a defense with a second pass
@pytest.fixture
def flat() -> Any:
    """The defense that penalises gradients, as its page writes it below another."""
    return offered("defenses.md", "Flat")


class Linear(Task):
    """The mean over the images of w·x: the gradient of an image's own loss is w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, 4.0]))

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss((inputs[0] @ self.w).mean())


def test_it_penalises_the_gradient_of_an_image_and_its_penalty_trains(flat: Any) -> None:
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    task = Linear()
    objective = TaskObjective(nn.Identity(), {"linear": task}, (Views((x,)),), stage="pretrain", key=(0,))
    loss = flat(weight=0.5).loss(objective, (x,), torch.Generator())
    assert float(loss.metrics["gradient"]) == pytest.approx(25)
    (gradient,) = torch.autograd.grad(loss.total, [task.w])
    torch.testing.assert_close(gradient, x.mean(0) + 0.5 * 2 * task.w.detach())


def test_its_second_pass_moves_no_statistics_and_counts_no_diversity(flat: Any) -> None:
    norm = nn.BatchNorm1d(2)
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    asked: list[bool] = []

    class Watched(TaskObjective):
        def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
            asked.append(penalty)
            return replace(super().__call__(inputs, penalty=penalty), penalty=torch.tensor(7.0 if penalty else 0.0))

    class Normed(Linear):
        def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
            return Loss((encoder(inputs[0]).square() @ self.w).mean())

    objective = Watched(norm, {"normed": Normed()}, (Views((x,)),), stage="pretrain", key=(0,))
    loss = flat().loss(objective, (x,), torch.Generator())
    assert (asked, float(loss.penalty)) == ([True, False], 7.0)
    assert int(norm.state_dict()["num_batches_tracked"]) == 1


# ---------------------------------------------------------------- configuration from Python
def test_the_keywords_of_the_page_are_settings() -> None:
    (code,) = [code for code in python_of("configuration.md") if "advss.fit(" in code]
    (call,) = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    said = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}
    assert said.pop("progress")
    config = from_mapping(said, environ={})
    assert (config.limit, config.data.name, config.defense.options["steps"]) == (200, "digits", 5)


def test_a_trained_model_is_measured_on_corrupted_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar10c, "IMAGES", 10)
    (tmp_path / "CIFAR-10-C").mkdir()
    np.save("CIFAR-10-C/fog.npy", np.zeros((50, 32, 32, 3), dtype=np.uint8))
    np.save("CIFAR-10-C/labels.npy", np.arange(50) % 10)
    assert main(shlex.split(RUN)) == 0
    namespace: dict[str, Any] = {}
    (code,) = [code for code in python_of("configuration.md") if "cifar10c" in code]
    exec(code.replace("NAME", "it"), namespace)
    assert float(namespace["accuracy"]) == pytest.approx(0.1)  # the same answer to ten images of ten classes


# ---------------------------------------------------------------- evaluations
@pytest.mark.parametrize("name", ["Noisy", "Noises"])
def test_the_pages_evaluations_count_what_stays_right_under_noise(name: str) -> None:
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([0.6 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.6], 1)

    x, label = torch.full((4000, 3, 1, 1), 0.5), torch.zeros(4000, dtype=torch.int64)
    evaluation, found = offered("evaluations.md", name)(), dict[str, Tensor]()
    for seed, part in enumerate(evaluation.parts(2)):
        draws = torch.Generator().manual_seed(seed)
        found = evaluation.measure_part(part, found, Victim(Bright(), classes="ab"), x, label, draws)
    shares = {answer: float(right.float().mean()) for answer, right in found.items()}
    phi = {sigma: 0.5 * (1 + math.erf(0.1 / sigma / 2**0.5)) for sigma in (0.05, 0.1, 0.2)}
    if name == "Noisy":
        assert shares == {"ta": 1.0, "noisy": pytest.approx(phi[0.1], abs=0.02)}
    else:
        alone = [phi[0.05], phi[0.05] * phi[0.1], phi[0.05] * phi[0.1] * phi[0.2]]
        assert list(shares.values()) == [pytest.approx(share, abs=0.03) for share in alone]


def test_the_page_on_measuring_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(RUN)) == 0
    capsys.readouterr()
    (code,) = python_of("measuring.md")
    exec(code.replace("NAME", "it").replace("50", "2"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" 0.")[0] for line in lines] == ["clean", "PGD-2 ℓ∞ 8/255"]


# ---------------------------------------------------------------- features
PRETRAIN = (
    "pretrain --data digits --data.limit 40 --pretext rotation --pretrain-epochs 1 --pretrain-batch-size 18 "
    "--defense none --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,48] --device cpu "
    "--memory-format contiguous --tracking false --quiet --name it"
)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    assert main([*shlex.split(PRETRAIN), "--runs-dir", str(folder / "runs")]) == 0
    return folder


def test_features_are_clustered(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pretrained)
    namespace: dict[str, Any] = {}
    for code in python_of("features.md")[:2]:
        exec(code.replace("NAME", "it"), namespace)
    assert namespace["features"].shape == (len(namespace["images"]), 48)
    assert len(set(namespace["clusters"])) == 10


def test_the_teachers_task_keeps_the_contract(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = installed("pretext", offered("features.md", "DeACL"), monkeypatch)
    found = verdicts(plugin, teacher=str(pretrained / "runs" / "it"))
    assert [(verdict.check, verdict.message) for verdict in found if verdict.outcome == "failed"] == []
    assert len(found) > 20


def test_a_student_trains_beside_another_task_is_stopped_and_resumed_and_its_teacher_stands(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stopper: Callable[..., Reporter]
) -> None:
    installed("pretext", offered("features.md", "DeACL"), monkeypatch)
    teacher = pretrained / "runs" / "it"
    said = yaml.safe_load((teacher / "config.yaml").read_text())
    said |= {"pretext": [{"deacl": {"teacher": str(teacher)}}, "rotation"], "defense": {"pgd": {"steps": 1}}}
    said |= {"diversity": 0.1, "pretrain-ema": 0.9, "runs-dir": str(tmp_path)}
    whole, broken = (from_mapping({**said, "name": name}) for name in ("whole", "broken"))
    pretrain(whole, reporter=Silent())
    with pytest.raises(Interrupted):
        pretrain(broken, reporter=stopper("pretrain", "step", 1))
    pretrain(broken, resume=True, reporter=Silent())
    one, other = (
        load_checkpoint(tmp_path / name / "pretrain/last.safetensors").tensors for name in ("whole", "broken")
    )
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    for name, tensor in advss.load_encoder(teacher).state_dict().items():
        assert torch.equal(one[f"tasks.deacl.teacher.{name}"], tensor), name
        assert torch.equal(one[f"average.tasks.deacl.teacher.{name}"], tensor), name
