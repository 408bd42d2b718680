"""The contract carries a task with the needs of AdvCL (Fan et al. 2021), under every defense, alone and in company.

Two attacked inputs, fixed views beside them, three BatchNorm branches, labels keyed by the image's place and made
before the first epoch, and a teacher that follows after each step.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import advss
from advss.ensemble.diversity import gram, log_det
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Encoder, Loss, PretextTask, Views, accuracy, branch
from advss.models.encoder import TimmEncoder, build_encoder
from advss.plugins import registry
from advss.plugins.discovery import Discovery, Plugin
from advss.training.checkpoints import load_checkpoint

TINY: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


BRANCHES = ("attacked", "clean", "cluster", "main")  # as a run with rotation beside it has them


class Contrast(PretextTask):
    """AdvCL in small: contrast x_cl with fixed views, and classify x_ce into its cluster.

    Args:
        clusters: number of clusters.
    """

    name = "contrast"
    branches = ("attacked", "clean", "cluster")

    def __init__(self, *, clusters: int = 3) -> None:
        super().__init__()
        self.clusters = clusters

    def build(self, encoder: Encoder) -> None:
        self.project = nn.Linear(encoder.channels, 8)
        self.classify = nn.Linear(encoder.channels, self.clusters)
        self.labels: Tensor
        self.teacher: Tensor
        self.steps: Tensor
        self.register_buffer("labels", torch.zeros(encoder.data.images, dtype=torch.int64))
        self.register_buffer("teacher", self._followed(encoder).clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def prepare(self, encoder: Encoder, data: Any, generator: Generator) -> None:
        for batch in data:
            self.labels[batch.index] = (batch.x.mean((1, 2, 3)) * 1000).long() % self.clusters

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.teacher.lerp_(self._followed(encoder), 0.5)
        self.steps += 1

    @staticmethod
    def _followed(encoder: Encoder) -> Tensor:
        return next(encoder.parameters()).detach()

    def views(self, batch: Batch, generator: Generator) -> Views:
        noise = torch.randn(batch.raw.shape, generator=generator, device=batch.raw.device)
        fixed = torch.cat(
            [batch.raw.flip(3), (batch.raw + 0.1 * noise).clamp(0, 1), batch.x - batch.x.mean((2, 3), True)]
        )
        return Views((batch.x, batch.x), {"fixed": fixed, "cluster": self.labels[batch.index]})

    def freeze(self, encoder: Any, views: Views) -> Views:
        return Views(views.inputs, views.targets | {"anchors": self._anchors(encoder, views.targets["fixed"])})

    def _anchors(self, encoder: Encoder, fixed: Tensor) -> Tensor:
        with branch("clean", encoder):
            return F.normalize(self.project(encoder(fixed).mean((2, 3))), dim=1)

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        anchors = targets["anchors"] if "anchors" in targets else self._anchors(encoder, targets["fixed"])
        with branch("attacked", encoder):
            own = F.normalize(self.project(encoder(inputs[0]).mean((2, 3))), dim=1)
        with branch("cluster", encoder):
            logits = self.classify(encoder(inputs[1]).mean((2, 3))).float()
        place = torch.arange(len(own), device=own.device)
        contrast = F.cross_entropy((own @ anchors.T / 0.5).float(), place)
        value = contrast + 0.2 * F.cross_entropy(logits, targets["cluster"])
        return Loss(value, (logits,), {"accuracy": accuracy(logits, targets["cluster"])})


class Unfrozen(Contrast):
    """The same, encoding its fixed views at every step of the attack."""

    def freeze(self, encoder: Any, views: Views) -> Views:
        return views


@pytest.fixture
def encoder(encoder: TimmEncoder) -> TimmEncoder:
    """The tiny encoder with BatchNorm branches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_encoder("resnet18", TINY, encoder.data, mean=[0.5] * 3, std=[0.25] * 3, branches=BRANCHES)


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def objective_of(encoder: Encoder, batch: Batch, *tasks: PretextTask, diversity: float = 0.0) -> TaskObjective:
    for seed, task in enumerate(tasks):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            task.build(encoder)
        task.prepare(encoder, [batch], generator())
    views = tuple(task.views(batch, generator(3)) for task in tasks)
    members = {task.name: task for task in tasks}
    return TaskObjective(encoder, members, views, stage="pretrain", key=(0,), diversity=diversity)


def plugin(kind: Any, name: str, **options: Any) -> Any:
    return registry().find(kind, name)(**options)


def pgd() -> Defense:
    defense = plugin("defense", "pgd", steps=3)
    assert isinstance(defense, Defense)
    return defense


@pytest.mark.parametrize("diversity", [0.0, 0.1])
@pytest.mark.parametrize("company", [(), ("rotation",)], ids=["alone", "with-rotation"])
@pytest.mark.parametrize("defense", registry().names("defense"))
def test_every_defense_trains_all_of_it(
    encoder: TimmEncoder, batch: Batch, defense: str, company: tuple[str, ...], diversity: float
) -> None:
    tasks = [Contrast(), *(plugin("pretext", name) for name in company)]
    objective, chosen = objective_of(encoder, batch, *tasks, diversity=diversity), plugin("defense", defense)
    inputs = chosen.attack(objective, generator())
    assert len(inputs) == 2 + len(company)
    loss = chosen.loss(objective, inputs, generator())
    assert loss.total.isfinite()
    loss.total.backward()
    for name, parameter in objective.root.named_parameters():
        in_use = Contrast.branches if name.startswith("trunk.") else ()
        foreign = any(f".branches.@{other}." in name for other in ("main", *Contrast.branches) if other not in in_use)
        assert parameter.grad is not None or foreign


def test_each_of_its_inputs_is_attacked_in_a_ball_of_its_own(encoder: TimmEncoder, batch: Batch) -> None:
    objective = objective_of(encoder, batch, Contrast())
    contrasted, clustered = pgd().attack(objective, generator())
    assert not torch.equal(contrasted, clustered)
    for x in (contrasted, clustered):
        distance = (x - batch.x).abs().max()
        assert 4 / 255 < distance <= 8 / 255 + 1e-6


def attacked_by(task: Contrast, encoder: TimmEncoder, batch: Batch) -> tuple[tuple[Tensor, ...], list[int]]:
    """The attacked inputs, and how many images each pass through the encoder had."""
    objective, sizes = objective_of(encoder, batch, task), list[int]()
    hook = encoder.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    found = pgd().attack(objective, generator())
    hook.remove()
    return found, sizes


def test_fixed_views_are_encoded_once_an_attack_and_the_attack_is_the_same(encoder: TimmEncoder, batch: Batch) -> None:
    frozen, sizes = attacked_by(Contrast(), encoder, batch)
    plain, more = attacked_by(Unfrozen(), encoder, batch)
    for a, b in zip(frozen, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    size = len(batch.x)
    assert sizes == [3 * size] + [size, size] * 3
    assert more == [3 * size, size, size] * 3


def statistics(encoder: TimmEncoder, name: str) -> Tensor:
    return torch.cat([t.flatten().float() for key, t in encoder.state_dict().items() if f".@{name}.running" in key])


def test_an_attack_moves_no_branch_and_training_moves_each_by_its_own_images(
    encoder: TimmEncoder, batch: Batch
) -> None:
    objective = objective_of(encoder, batch, Contrast())
    before = {name: statistics(encoder, name) for name in Contrast.branches}
    inputs = pgd().attack(objective, generator())
    assert all(torch.equal(statistics(encoder, name), before[name]) for name in before)
    objective(inputs)
    after = [statistics(encoder, name) for name in Contrast.branches]
    assert not any(torch.equal(a, b) for a, b in zip(after, before.values(), strict=True))
    assert not any(torch.equal(after[i], after[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_a_member_that_names_no_branch_uses_its_first(encoder: TimmEncoder, batch: Batch) -> None:
    """Though the encoder's own first is another's."""
    objective = objective_of(encoder, batch, plugin("pretext", "rotation"))
    before = {name: statistics(encoder, name) for name in BRANCHES}
    objective(objective.inputs)
    assert [name for name in BRANCHES if not torch.equal(statistics(encoder, name), before[name])] == ["main"]


def test_its_column_of_the_diversity_term_is_the_sum_of_its_inputs_gradients(
    encoder: TimmEncoder, batch: Batch
) -> None:
    rotation = plugin("pretext", "rotation")
    objective = objective_of(encoder, batch, Contrast(), rotation, diversity=0.5)
    inputs = tuple(x.detach().clone().requires_grad_() for x in objective.inputs)
    penalty = torch.as_tensor(objective(inputs).penalty)
    alone = objective_of(encoder, batch, objective.members["contrast"], rotation)  # type: ignore[arg-type]
    first, second, turned = torch.autograd.grad(alone(inputs).value, inputs)
    torch.testing.assert_close(penalty.detach(), 0.5 * log_det(gram([first + second, turned])), atol=1e-5, rtol=1e-5)


def run(pretext: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A run that pretrained under PGD and fine-tuned what was not loaded, with ``contrast`` installed."""
    found = registry().found
    plugins = [*found.plugins, Plugin("pretext", "contrast", Contrast, "elsewhere", "1.0")]
    monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: Discovery(plugins))
    settings: Any = {
        "pretext": pretext,
        "defense": {"pgd": {"steps": 1}},
        "finetune": "partial",
        "diversity": 0.1 if "," in pretext else 0.0,
        "backbone": {"resnet18": TINY},
        "data.limit": 60,
        "data.size": 16,
        "pretrain_epochs": 1,
        "pretrain_batch_size": 18,
        "finetune_epochs": 1,
        "finetune_batch_size": 18,
        "eval_limit": 10,
        "eval_steps": 1,
        "eval_valid_steps": 1,
        "tracking": False,
        "device": "cpu",
        "memory_format": "contiguous",
        "name": "it",
        "runs_dir": str(folder),
    }
    advss.fit(**settings)
    return folder / "it"


@pytest.mark.parametrize(("pretext", "kept"), [("contrast", "attacked"), ("contrast,rotation", "main")])
def test_a_whole_run_carries_it(pretext: str, kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fine-tuning keeps the branch that goes with the last stage it starts from, else the first member's first."""
    folder = run(pretext, monkeypatch, tmp_path)
    pretrained = load_checkpoint(folder / "pretrain" / "last.safetensors").tensors
    tuned = load_checkpoint(folder / "finetune" / "last.safetensors").tensors
    assert pretrained["tasks.contrast.labels"].min() >= 0  # prepared, the validation part's too
    assert len(pretrained["tasks.contrast.labels"]) == 60
    assert pretrained["tasks.contrast.steps"] == 3  # 54 images in batches of 18
    assert not torch.equal(pretrained["tasks.contrast.teacher"], pretrained["encoder.net.conv1.weight"])
    own = {key: t for key, t in pretrained.items() if f".branches.@{kept}." in key and key.startswith("encoder.")}
    assert own
    for key, tensor in own.items():
        assert torch.equal(tuned[key.replace(f".branches.@{kept}", "")], tensor)
    assert not any(".branches." in key for key in tuned)
