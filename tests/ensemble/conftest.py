"""Small tasks of two kinds on the tiny encoder: one without randomness, one with dropout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Encoder, Loss, PretextTask, Views, accuracy


class Flip(PretextTask):
    """Has the image been flipped? ``shift`` tells several of them apart; ``drop`` is a dropout rate."""

    name = "flip"

    def __init__(self, *, shift: int = 0, drop: float = 0.0) -> None:
        super().__init__()
        self.shift, self.dropout = shift, nn.Dropout(drop)

    def build(self, encoder: Encoder) -> None:
        self.head = nn.Linear(encoder.channels, 2)

    def views(self, batch: Batch, generator: Generator) -> Views:
        label = (torch.arange(len(batch.x)) + self.shift) % 2
        x = torch.where(label.view(-1, 1, 1, 1).bool(), batch.x.flip(3), batch.x)
        return Views((x,), {"label": label})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = self.head(self.dropout(encoder(inputs[0]).mean((2, 3)))).float()
        metrics = {"accuracy": accuracy(logits, targets["label"])}
        return Loss(F.cross_entropy(logits, targets["label"]), (logits,), metrics, labels=(targets["label"],))


Make = Callable[..., TaskObjective]


@pytest.fixture
def make(encoder: Encoder, batch: Batch) -> Make:
    """An objective of as many flips as asked for, on the shared encoder."""
    seeds = torch.Generator().manual_seed(0)

    def built(
        count: int = 1,
        *,
        drop: float = 0.0,
        diversity: float = 0.0,
        bf16: bool = False,
        step: int = 0,
        turn: bool = False,
    ) -> TaskObjective:
        tasks: dict[str, Flip] = {}
        for i in range(count):
            tasks[f"flip{i}"] = Flip(shift=i, drop=drop)
            with torch.random.fork_rng():
                torch.manual_seed(i)
                tasks[f"flip{i}"].build(encoder)
        if turn:
            tasks = dict(reversed(tasks.items()))
        views = tuple(task.views(batch, seeds) for task in tasks.values())
        return TaskObjective(
            encoder, tasks, views, stage="pretrain", key=(0, "pretrain", step), diversity=diversity, bf16=bf16
        )

    return built
