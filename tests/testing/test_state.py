from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.testing.checks import state
from advss.testing.stand_ins import Mirror
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Targets = dict[str, Tensor]
FACTS = [
    state.parameters_are_registered,
    state.the_encoder_is_not_kept_as_a_part,
    state.parameters_and_buffers_are_made_in_build,
    state.its_state_survives_a_checkpoint,
    state.it_can_be_copied,
    state.its_start_of_fine_tuning_is_the_backbones,
    state.a_loss_is_finite_before_it_has_seen_the_data,
    state.hooks_leave_weights_and_statistics_alone,
]
registered, apart, in_build, survives, copied, start, unseen, left = FACTS


class Bank(Mirror):
    """As it should be: labels by index, filled by prepare() and moved by after_step(), and a last stage."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.tail = encoder.tail()
        self.labels: Tensor
        self.register_buffer("labels", torch.zeros(encoder.data.images))

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        for batch in data:
            self.labels[batch.index] = batch.x.mean((1, 2, 3))

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.labels += 0.01

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views(found.inputs, found.targets | {"bright": self.labels[batch.index]})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        assert self.tail is not None
        loss = super().loss(encoder, inputs, targets)
        told = (self.tail(encoder(inputs[0])).mean(1) - targets["bright"]).square().mean()
        return Loss(loss.value + told, loss.logits)


class PlainList(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.heads = [nn.Linear(encoder.channels, 2) for _ in range(2)]


class Holder:
    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight


class PlainObject(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.holders = {"one": Holder(nn.Parameter(torch.zeros(2)))}


class KeepsEncoder(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.encoder = encoder


class Lazy(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.head = nn.LazyLinear(2)


class LateHead(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        if not hasattr(self, "late"):
            self.late = nn.Linear(2, 2)
        return super().loss(encoder, inputs, targets)


class Unlabelled(Bank):
    """Clusters that nobody has before prepare()."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.register_buffer("labels", torch.full((encoder.data.images,), torch.nan))


class ClassesUnknown(Bank):
    """The same as classes, of which -1 is none."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.register_buffer("labels", torch.full((encoder.data.images,), -1.0))

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.labels.zero_()

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value + F.cross_entropy(loss.logits[0], targets["bright"].long()), loss.logits)


class TrainsInHook(Mirror):
    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.head.bias.add_(0.1)


class NewHead(Mirror):
    """Begins with a new head, which the optimiser does not know."""

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.head = copy.deepcopy(self.head)


class MovesEncoder(Mirror):
    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        next(encoder.parameters()).mul_(2)


class MovesStatistics(Mirror):
    def before_epoch(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        encoder.train()
        for batch in data:
            encoder(batch.x)


class Follower(Mirror):
    """As it should be: a teacher that is frozen, with statistics of its own, follows in its hooks."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def after_step(self, encoder: Encoder, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        assert not encoder.training
        for own, theirs in zip(self.teacher.state_dict().values(), encoder.state_dict().values(), strict=True):
            own.copy_(theirs)


class LateBuffer(Mirror):
    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.register_buffer("labels", torch.zeros(24))


class Growing(Mirror):
    """A buffer whose size is known only after prepare()."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.labels: Tensor
        self.register_buffer("labels", torch.zeros(0))

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.labels = torch.cat([batch.label for batch in data]).float()


class PlainTensor(Mirror):
    """Classes are in an order that is drawn, and not kept."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.weights = torch.rand(3, 1, 1)

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views((found.inputs[0] * self.weights,), found.targets)


class PlainNumber(Mirror):
    """What prepare() found stands in a float."""

    scale = 1.0

    def prepare(self, encoder: Encoder, data: Iterable[Batch], generator: Generator) -> None:
        self.scale = float(torch.cat([batch.x for batch in data]).mean())

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value * self.scale, loss.logits)


class NotPersistent(Bank):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.register_buffer("labels", torch.zeros(encoder.data.images), persistent=False)


class Extra(Mirror):
    def get_extra_state(self) -> Any:
        return {"rule": lambda x: x}

    def set_extra_state(self, state: Any) -> None:
        pass


class Tied(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.twin = nn.Linear(encoder.channels, 2)
        self.twin.weight = self.head.weight


class Optional_(Mirror):  # noqa: N801 - a word of typing's
    """A head that is there or not by what was drawn."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        if float(torch.rand(())) < 0.5:
            self.more = nn.Linear(encoder.channels, 2)


class Uncopyable(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.lock = threading.Lock()


class KeepsGraph(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        self.last = loss.value
        return loss


class OtherTail(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.tail = nn.Sequential(encoder.tail(), nn.Linear(encoder.features, 2))


class TwiceNamed(Mirror):
    branches = ("main", "main")


BROKEN = [
    (PlainList, registered, r"self.heads\[0\].weight is a parameter that PyTorch does not find.*nn.ModuleList"),
    (PlainObject, registered, r"self.holders\['one'\].weight is a parameter that PyTorch does not find"),
    (KeepsEncoder, apart, "its parameter 'encoder.stages.0.weight' is 'stages.0.weight' of the network"),
    (KeepsEncoder, survives, "its parameter 'encoder.stages.0.weight' is 'stages.0.weight' of the network"),
    (Lazy, in_build, r"'head.weight' has no size after build\(\); size it by the encoder"),
    (LateHead, in_build, r"'late.weight, late.bias' is not there after build\(\); make it there"),
    (LateBuffer, in_build, r"'labels' is not there after build\(\)"),
    (Growing, survives, r"'labels' has shape \(0,\) after build\(\) and \(24,\) later; size it .*encoder.data.images"),
    (PlainTensor, survives, r"input 0 is another after saving and loading: .*make it a buffer in build\(\)"),
    (PlainNumber, survives, "the loss is another after saving and loading"),
    (NotPersistent, survives, "target 'bright' is another after saving and loading"),
    (Extra, survives, "state 'tasks.it._extra_state' is dict; a checkpoint holds tensors only"),
    (Tied, survives, "which keeps each tensor once: 'head.weight' and 'twin.weight' share theirs; keep one of them"),
    (Optional_, survives, "what was saved does not load into one newly built: .*more"),
    (Uncopyable, copied, "copy.deepcopy of it fails .*--pretrain-ema copies it"),
    (KeepsGraph, copied, "copy.deepcopy of it fails .*tensors with a graph"),
    (OtherTail, start, r"self.tail holds .*; fine-tuning loads it strictly: set self.tail = encoder.tail\(\)"),
    (Unlabelled, unseen, r"the loss before prepare\(\) is nan; give buffers values in build\(\)"),
    (ClassesUnknown, unseen, r"views\(\) or loss\(\) fail before prepare\(\): .*; give buffers values in build\(\)"),
    (TrainsInHook, left, r"after_step\(\) moves 'head.bias'; leave weights"),
    (NewHead, left, r"before_epoch\(\) puts another parameter in the place of 'head.weight', which never trains"),
    (MovesEncoder, left, r"prepare\(\) or before_epoch\(\) moves 'stages.0.weight'"),
    (MovesStatistics, left, r"prepare\(\) or before_epoch\(\) moves 'stages.1.running_mean'"),
    (TwiceNamed, start, r"branches is \('main', 'main'\); give each a name"),
]


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Bank, Follower])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(
    ("offered", "fact", "message"), BROKEN, ids=[f"{case[0].__name__}-{case[1].__name__}" for case in BROKEN]
)
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


class ListOfTheEncoder(Mirror):
    """The encoder within reach, and no part."""

    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.around = [encoder]


def test_what_belongs_to_the_encoder_is_not_looked_for_among_its_own(ask: Ask) -> None:
    assert ask(ListOfTheEncoder, registered).message == ""
