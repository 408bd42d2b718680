"""An objective that can be computed by hand: softmax regression on the pixels."""

from __future__ import annotations

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


@pytest.fixture
def regression() -> TaskObjective:
    """Six images of 3×2×2 pixels away from 0 and 1, three classes, in pretraining."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(6, 3, 2, 2).uniform_(0.3, 0.7, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = Regression()
    views = Views((x,), {"label": torch.arange(6) % 3})
    return TaskObjective(nn.Identity(), {"regression": task}, (views,), stage="pretrain", key=(0, "pretrain", 0))
