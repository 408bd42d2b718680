from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from torch import Generator, Tensor

from advss.hookspecs import Batch, Encoder, Loss, Views
from advss.testing.checks import leaves
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.suite import check
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Offer = Callable[..., Subject]
Targets = dict[str, Tensor]
FACTS = [leaves.it_draws_from_torch_alone, leaves.what_it_is_given_is_left_alone]
alone, given = FACTS


class DrawsWhereItIsBuilt(Mirror):
    def build(self, encoder: Encoder) -> None:
        super().build(encoder)
        self.shift = np.random.rand()


class DrawsInPrepare(Mirror):
    def prepare(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        np.random.permutation(3)


class DrawsBeforeEpoch(Mirror):
    def before_epoch(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        random.shuffle([1, 2])


class DrawsInViews(Mirror):
    """An augmentation by Python's random state."""

    name = "draws-in-views"

    def views(self, batch: Batch, generator: Generator) -> Views:
        found = super().views(batch, generator)
        return Views((found.inputs[0] * random.random(),), found.targets)


class DrawsInFreeze(Mirror):
    def freeze(self, encoder: Any, views: Views) -> Views:
        np.random.normal()
        return views


class DrawsInLoss(Mirror):
    """Its loss has a random factor of NumPy's."""

    name = "draws-in-loss"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        loss = super().loss(encoder, inputs, targets)
        return Loss(loss.value * float(1 + np.random.rand()), loss.logits)


class DrawsInAttacked(Mirror):
    def attacked(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        random.random()
        return self.loss(encoder, inputs, targets)


class DrawsAfterStep(Mirror):
    def after_step(self, encoder: Any, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        random.random()


class InPlaceLoss(Mirror):
    """Halves the images that its neighbour in an ensemble is given too."""

    name = "in-place-loss"

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, (inputs[0].mul_(0.5),), targets)


class InPlaceTargets(Mirror):
    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: Targets) -> Loss:
        return super().loss(encoder, inputs, {"label": targets["label"].sub_(1).abs_()})


class InPlaceFreeze(Mirror):
    def freeze(self, encoder: Any, views: Views) -> Views:
        views.inputs[0].clamp_(0.2, 0.8)
        return views


class InPlaceStep(Mirror):
    def after_step(self, encoder: Any, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        batch.raw.zero_()


class InPlacePrepare(Mirror):
    def prepare(self, encoder: Any, data: Iterable[Batch], generator: Generator) -> None:
        for batch in data:
            batch.label.fill_(-1)


def drawn(hook: str, library: str) -> str:
    return rf"^{hook}\(\) draws from {library}'s random state, which no run seeds; draw from the generator"


BROKEN = [
    (DrawsWhereItIsBuilt, alone, drawn("build", "NumPy")),
    (DrawsInPrepare, alone, drawn("prepare", "NumPy")),
    (DrawsBeforeEpoch, alone, drawn("before_epoch", "Python")),
    (DrawsInViews, alone, drawn("views", "Python")),
    (DrawsInFreeze, alone, drawn("freeze", "NumPy")),
    (DrawsInLoss, alone, drawn("loss", "NumPy")),
    (DrawsInAttacked, alone, drawn("attacked", "Python")),
    (DrawsAfterStep, alone, drawn("after_step", "Python")),
    (InPlaceLoss, given, r"^loss\(\) changes input 0 in place, which other tasks and passes are given too; work on a"),
    (InPlaceTargets, given, r"^loss\(\) changes target 'label' in place"),
    (InPlaceFreeze, given, r"^freeze\(\) changes input 0 in place"),
    (InPlaceStep, given, r"^after_step\(\) changes batch.raw in place"),
    (InPlacePrepare, given, r"^prepare\(\) changes batch.label of image 0 on in place"),
]


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Mirror, TwoSizes])
def test_a_sound_task_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize("offered", [DrawsInViews, DrawsInLoss, InPlaceLoss])
def test_it_is_told_by_one_check_and_spoils_no_other(offer: Offer, offered: type) -> None:
    assert [v.check for v in check(offer(offered)) if v.outcome == "failed"] == [
        "what it is given is left alone" if offered is InPlaceLoss else "it draws from torch alone"
    ]


def test_the_random_states_are_as_found_after_it(ask: Ask) -> None:
    random.seed(1)
    np.random.seed(1)
    ask(DrawsInLoss, alone)
    found = random.random(), np.random.rand()
    assert found == (random.Random(1).random(), np.random.RandomState(1).rand())
