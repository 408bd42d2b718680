"""Built plugins of any distribution, and an objective on a small task for those that need one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Batch, Encoder, Loss, PretextTask, Views, accuracy
from advss.randomness import global_stream

BuildTask = Callable[..., PretextTask]
MakeObjective = Callable[[], TaskObjective]


class Mirror(PretextTask):
    """Has the image been mirrored? With dropout, so that modes and random streams matter."""

    name = "mirror"

    def build(self, encoder: Encoder) -> None:
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(encoder.channels, 2)

    def views(self, batch: Batch, generator: Generator) -> Views:
        label = torch.randint(2, (len(batch.x),), generator=generator)
        return Views((torch.where(label.view(-1, 1, 1, 1) == 1, batch.x.flip(3), batch.x),), {"label": label})

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = self.head(self.drop(encoder(inputs[0]).mean((2, 3)))).float()
        label = targets["label"]
        return Loss(F.cross_entropy(logits, label), (logits,), {"accuracy": accuracy(logits, label)})


@pytest.fixture
def build_task(encoder: Encoder, batch: Batch) -> BuildTask:
    """A pretext task as a run prepares it: built on the encoder, and given its look at the data."""

    def build(offered: type[PretextTask], *, seed: int = 0) -> PretextTask:
        task = offered()
        with global_stream("cpu", seed, "init"):
            task.build(encoder)
        with global_stream("cpu", seed, "prepare"):
            task.prepare(encoder, iter([batch]))
        return task

    return build


CASES: list[tuple[int, float, Stage]] = [(1, 0.0, "pretrain"), (1, 0.0, "finetune"), (2, 0.1, "pretrain")]


@pytest.fixture(params=CASES, ids=["one", "one-finetune", "diverse"])
def make_objective(
    request: pytest.FixtureRequest, encoder: Encoder, batch: Batch, build_task: BuildTask
) -> MakeObjective:
    """One mirror on the encoder, in either stage, or two with the diversity term; the same at every call."""
    members, diversity, stage = request.param

    def make() -> TaskObjective:
        tasks = {f"mirror{i}": build_task(Mirror, seed=i) for i in range(members)}
        views = tuple(t.views(batch, torch.Generator().manual_seed(i)) for i, t in enumerate(tasks.values()))
        return TaskObjective(encoder, tasks, views, stage=stage, key=(0, stage, 0), diversity=diversity)

    return make
