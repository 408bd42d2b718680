"""Hooks, frozen parts and what is attacked in place of the loss: for tasks of both stages, killed and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.config import Choice, RunConfig
from advss.ensemble.diversity import gram, log_det
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import (
    Batch,
    Classifier,
    Encoder,
    FinetuneScheme,
    Loss,
    Phase,
    PretextTask,
    Task,
    Views,
    accuracy,
)
from advss.models.encoder import TimmEncoder
from advss.plugins import registry
from advss.plugins.discovery import Discovery, Plugin
from advss.stages.fit import fit
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, Tensor]]
Stop = Callable[[str, str, int], Reporter]
STEPS = 16


class Counts(Task):
    """What all tasks here have: a count of each hook, and how the network stood in it."""

    def count(self) -> None:
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(3, dtype=torch.int64))

    def prepare(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        self.counts[0] += 1
        self.stood(encoder)
        self.look(encoder, data, generator)

    def before_epoch(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        self.counts[1] += 1
        self.stood(encoder)
        self.look(encoder, data, generator)

    def look(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        raise NotImplementedError

    def stood(self, encoder: Any) -> None:
        modules = [*encoder.modules(), *self.modules()]
        assert not any(module.training for module in modules)
        assert not any(p.requires_grad for p in encoder.parameters())
        assert not torch.is_grad_enabled()


class Queue(Counts, PretextTask):
    """MoCo in small: a frozen key network follows, keys wait in a queue, clusters are drawn anew before each epoch."""

    name = "queue"

    def build(self, encoder: Encoder) -> None:
        self.count()
        self.project = nn.Linear(encoder.channels, 6)
        self.key = nn.Linear(encoder.channels, 6).requires_grad_(False)
        self.classify = nn.Linear(encoder.channels, 2)
        self.queue: Tensor
        self.clusters: Tensor
        self.register_buffer("queue", torch.eye(STEPS, 6))
        self.register_buffer("clusters", torch.zeros(encoder.data.images, dtype=torch.int64))

    def look(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        direction = torch.randn(encoder.channels, generator=generator)
        for _ in range(2):  # data can be gone through again
            for batch in data:
                self.clusters[batch.index] = ((encoder(batch.x).mean((2, 3)) @ direction) > 0).long()

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.counts[2] += 1
        self.stood(encoder)
        assert not torch.equal(inputs[0], views.inputs[0])
        assert torch.equal(views.inputs[0], batch.x)
        for own, theirs in zip(self.key.parameters(), self.project.parameters(), strict=True):
            own.lerp_(theirs, 0.1)
        keys = F.normalize(self.key(encoder(inputs[0]).mean((2, 3))), dim=1)
        noise = torch.rand(keys.shape) * 0.01  # of torch's global generator, which core has seeded
        self.queue.copy_(torch.cat([self.queue, keys + noise])[-STEPS:])

    def views(self, batch: Batch, generator: Generator) -> Views:
        share = torch.tensor(batch.progress)
        return Views((batch.x,), {"cluster": self.clusters[batch.index], "share": share})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        features = encoder(inputs[0]).mean((2, 3))
        own, key = F.normalize(self.project(features), dim=1), F.normalize(self.key(features).detach(), dim=1)
        scores = torch.cat([(own * key).sum(1, keepdim=True), own @ self.queue.T], 1).float() / 0.5
        first, logits = torch.zeros(len(scores), dtype=torch.int64), self.classify(features).float()
        value = F.cross_entropy(scores, first) + targets["share"] * F.cross_entropy(logits, targets["cluster"])
        return Loss(value + 0 * logits.sum(), (scores,), {"accuracy": accuracy(scores, first)}, labels=(first,))


class Cached(Counts, FinetuneScheme):
    """A probe on features of before the epoch, beside the usual loss; it counts the labels that are hidden."""

    name = "cached"

    def build(self, classifier: Classifier) -> None:
        self.count()
        self.means: Tensor
        self.hidden: Tensor
        self.register_buffer("means", torch.zeros(10, classifier.encoder.features))
        self.register_buffer("hidden", torch.zeros(2, dtype=torch.int64))

    def phases(self, classifier: Classifier) -> list[Phase]:
        return [Phase(1.0, [{"params": list(classifier.parameters())}])]

    def look(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        self.means.zero_()
        for batch in data:
            known = batch.label >= 0
            self.hidden += torch.stack([(~known).sum(), known.sum()])
            features = encoder.tail(encoder.encoder(batch.x[known]))
            self.means.index_add_(0, batch.label[known], features)

    def after_step(self, encoder: Any, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.counts[2] += 1
        self.stood(encoder)

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        features = encoder.tail(encoder.encoder(inputs[0]))
        near = F.cosine_similarity(features, self.means[targets["label"]].detach() + 1e-6).mean()
        logits, label = encoder.head(features).float(), targets["label"]
        value = F.cross_entropy(logits, label) - 0.1 * near
        return Loss(value, (logits,), {"accuracy": accuracy(logits, label)}, labels=(label,))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        Plugin("pretext", "queue", Queue, "elsewhere", "1.0"),
        Plugin("finetune", "cached", Cached, "elsewhere", "1"),
    ]
    plugins = [*registry().found.plugins, *own]
    monkeypatch.setattr(import_module("advss.plugins.registry"), "_discovered", lambda: Discovery(plugins))


@pytest.fixture
def config(settings: Settings, installed: None) -> RunConfig:
    """Two epochs of four steps of queue and rotation with g, then the cached scheme; a moving average in both."""
    stage = {"epochs": 2, "batch_size": 16, "ema": 0.9}
    usual = settings("rotation", stage=stage)
    members = (Choice("queue", {}, "queue"), *usual.pretext)
    return replace(usual, pretext=members, finetune=Choice("cached"), diversity=0.1)


MOMENTS = (
    ("pretrain", "start", 0),  # between the first hooks and the first step
    ("pretrain", "step", 3),
    ("pretrain", "epoch", 1),
    ("finetune", "start", 0),
    ("finetune", "step", 3),
    ("finetune", "epoch", 1),
)


def test_killed_and_resumed_is_uninterrupted_bit_for_bit(config: RunConfig, stopper: Stop, tensors: Tensors) -> None:
    whole, broken = replace(config, name="whole"), replace(config, name="broken")
    fit(whole, reporter=Silent())
    for number, moment in enumerate(MOMENTS):
        with pytest.raises(Interrupted):
            fit(broken, resume=number > 0, reporter=stopper(*moment))
    fit(broken, resume=True, reporter=Silent())
    for stage in ("pretrain", "finetune"):
        one, other = tensors(whole, stage, "last"), tensors(broken, stage, "last")
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_each_hook_ran_as_often_as_it_should(config: RunConfig, tensors: Tensors) -> None:
    """Once, once an epoch, once a step, of four an epoch; and the scheme saw no label of what is validated on."""
    fit(config, reporter=Silent())
    assert tensors(config, "pretrain", "last")["tasks.queue.counts"].tolist() == [1, 2, 8]
    tuned = tensors(config, "finetune", "last")
    assert tuned["scheme.counts"].tolist() == [1, 2, 8]
    assert tuned["scheme.hidden"].tolist() == [3 * 8, 3 * 72]


def test_what_build_froze_stays_out_of_optimiser_and_average(config: RunConfig, tensors: Tensors) -> None:
    fit(config, reporter=Silent())
    last = load_checkpoint(config.runs_dir / "run/pretrain/last.safetensors").tensors
    assert torch.equal(last["average.tasks.queue.key.weight"], last["tasks.queue.key.weight"])
    assert not torch.equal(last["average.tasks.queue.project.weight"], last["tasks.queue.project.weight"])
    assert [name for name in last if name.startswith("optimizer.") and "key" in name] == []


def test_a_phase_that_names_what_build_froze_is_refused(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Cached, classifier: Classifier) -> None:
        self.count()
        classifier.head.bias.requires_grad_(False)

    monkeypatch.setattr(Cached, "build", build)
    with pytest.raises(Exception, match=r"phases\(\) names head.bias, which build\(\) has frozen; leave it out"):
        fit(replace(config, pretext=()), reporter=Silent())


@pytest.mark.parametrize("defense", registry().names("defense"))
def test_every_defense_trains_what_is_not_frozen(defense: str, encoder: TimmEncoder, batch: Batch) -> None:
    task = Queue()
    task.build(encoder)
    views = task.views(replace(batch, progress=0.5), torch.Generator().manual_seed(0))
    one = TaskObjective(encoder, {"queue": task}, (views,), stage="pretrain", key=(0,))
    assert not [name for name in one.parameters() if ".key." in name]
    chosen, draws = registry().find("defense", defense)(), torch.Generator().manual_seed(0)
    chosen.loss(one, chosen.attack(one, draws), draws).total.backward()
    assert [name for name, p in one.root.named_parameters() if (p.grad is None) != (".key." in name)] == []


# ---------------------------------------------------------------- what is attacked
class Other(PretextTask):
    """Trains the sum of the images, and is attacked by their weighted sum; both have logits."""

    name = "other"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(inputs[0].sum((1, 2, 3)).mean(), (inputs[0].mean((2, 3)),))

    def attacked(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        weight = torch.linspace(-1, 1, inputs[0][0].numel(), dtype=inputs[0].dtype).view_as(inputs[0][0])
        return Loss((inputs[0] * weight).sum((1, 2, 3)).mean(), (-inputs[0].mean((2, 3)),))


def objective(encoder: TimmEncoder, x: Tensor, *, diversity: float = 0.0) -> TaskObjective:
    members = {"a": Other(), "b": Brightest()} if diversity else {"a": Other()}
    views = tuple(Views((x,)) for _ in members)
    return TaskObjective(encoder, members, views, stage="pretrain", key=(0,), diversity=diversity)


class Brightest(PretextTask):
    name = "brightest"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(inputs[0].square().sum((1, 2, 3)).mean())


def test_an_attack_ascends_attacked_and_training_minimises_loss(encoder: TimmEncoder, batch: Batch) -> None:
    one = objective(encoder, batch.x)
    pgd: Any = registry().find("defense", "pgd")(eps=0.1, step_size=0.1, steps=1, random_start=False)
    (moved,) = pgd.attack(one, torch.Generator().manual_seed(0))
    sign = torch.linspace(-1, 1, batch.x[0].numel()).view_as(batch.x[0]).sign()
    torch.testing.assert_close(moved, (batch.x + 0.1 * sign).clamp(0, 1))
    torch.testing.assert_close(one((moved,)).value, moved.sum((1, 2, 3)).mean())
    with one.attacking():
        torch.testing.assert_close(one((moved,)).logits[0], -moved.mean((2, 3)))


def test_g_is_of_what_is_attacked_in_an_attack_and_of_the_loss_elsewhere(encoder: TimmEncoder, batch: Batch) -> None:
    x = batch.x.double()
    weight = torch.linspace(-1, 1, x[0].numel(), dtype=torch.float64).view_as(x[0]).expand_as(x)
    pair = objective(encoder, x, diversity=0.5)
    of_loss = log_det(gram([torch.ones_like(x), 2 * x]))
    with pair.attacking():
        torch.testing.assert_close(pair(pair.inputs).penalty, 0.5 * log_det(gram([weight, 2 * x])))
    torch.testing.assert_close(pair(pair.inputs).penalty, 0.5 * of_loss)
    torch.testing.assert_close(pair.measure(pair.inputs)["diversity"], of_loss)
