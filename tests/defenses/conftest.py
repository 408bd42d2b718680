"""Objectives that can be computed by hand: softmax regression on the pixels, alone or beside another."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Loss, Task, Views, accuracy


class Regression(Task):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = self.head(inputs[0].flatten(1))
        label = targets["label"]
        return Loss(F.cross_entropy(logits, label), (logits,), {"accuracy": accuracy(logits, label)})


Members = dict[str, Regression]
LABEL = torch.arange(6) % 3


def objective_of(members: Members, x: Tensor, *, diversity: float = 0.0) -> TaskObjective:
    views = tuple(Views((x,), {"label": LABEL}) for _ in members)
    return TaskObjective(
        nn.Identity(), dict(members), views, stage="pretrain", key=(0, "pretrain", 0), diversity=diversity
    )


@pytest.fixture
def images() -> Tensor:
    """Six images of 3×2×2 pixels away from 0 and 1."""
    return torch.empty(6, 3, 2, 2).uniform_(0.3, 0.7, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def task() -> Regression:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Regression()


@pytest.fixture
def regression(task: Regression, images: Tensor) -> TaskObjective:
    """The images in three classes, in pretraining; image i is of class i modulo 3."""
    return objective_of({"regression": task}, images)


@pytest.fixture
def wide(task: Regression, images: Tensor) -> TaskObjective:
    """The same in float64."""
    return objective_of({"regression": copy.deepcopy(task).double()}, images.double())


@pytest.fixture
def pair(task: Regression, images: Tensor) -> Callable[[float], TaskObjective]:
    """Given a diversity weight: the regression beside one with nearly its weights, on the same images."""
    other = copy.deepcopy(task)
    with torch.no_grad():
        weight = other.get_parameter("head.weight")
        weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return lambda diversity: objective_of({"one": task, "other": other}, images, diversity=diversity)
