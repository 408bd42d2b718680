from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from advss.arithmetic import Arithmetic
from advss.config import StageSettings
from advss.data.augmentation import Augment
from advss.data.images import InMemory
from advss.data.loader import Loader
from advss.data.splits import Part
from advss.hookspecs import Batch, Defense, Loss, Phase, PretextTask, Views
from advss.tracking.tracker import Tracker
from advss.training.reporting import Silent
from advss.training.trainer import Trainer
from advss.training.work import Metrics, Modules, Work

CPU = torch.device("cpu")


class Brightness(PretextTask):
    """Regress an image's mean; the loss of the steps in ``bad`` is NaN, counted from 0 and from each start."""

    name = "brightness"

    def __init__(self, bad: Sequence[int] = ()) -> None:
        super().__init__()
        self.bad, self.step = set(bad), -1
        self.head = nn.Linear(4, 1)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def views(self, batch: Batch, generator: Generator) -> Views:
        self.step += 1
        return Views((batch.x,), {"mean": batch.x.mean((1, 2, 3))})

    def loss(self, encoder: Any, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        x_BCHW = inputs[0] * torch.nan if self.step in self.bad else inputs[0]
        guess_B = self.head(encoder(x_BCHW).mean((2, 3)).float())[:, 0]
        return Loss((guess_B - targets["mean"]).square().mean())

    def after_step(self, encoder: Any, batch: Batch, inputs: tuple[Tensor, ...], views: Views) -> None:
        self.steps += 1


@pytest.fixture
def make_work() -> Callable[..., Work]:
    """Makes a stage of 4 steps an epoch on noise: a convolution and BatchNorm as trunk, one task."""

    def make(
        settings: StageSettings,
        *,
        bad: Sequence[int] = (),
        phases: Callable[[Modules], list[Phase]] | None = None,
        scores: Sequence[tuple[float, ...]] = (),
        losses: Sequence[float] = (),
        **more: Any,
    ) -> Work:
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        modules = Modules(trunk, {"brightness": Brightness(bad)}, "pretrain")
        epochs, losses_left = iter(scores), iter(losses)

        def validate(kept: Modules, arithmetic: Arithmetic) -> Metrics:
            parts = {f"part{i}": value for i, value in enumerate(next(epochs, (0.0,)))}
            return parts | {"clean/loss": next(losses_left, 1.0)}

        return Work(
            modules=modules,
            defense=Defense(),
            loader=loader(settings.batch_size),
            phases=phases(modules) if phases else [Phase(1.0, [{"params": list(modules.parameters())}])],
            settings=settings,
            validate=validate,
            score=lambda metrics: tuple(value for name, value in metrics.items() if name.startswith("part")),
            seed=0,
            device=CPU,
            **more,
        )

    return make


def loader(batch_size: int) -> Loader:
    pixels = torch.randint(0, 256, (4 * batch_size, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator())
    part = Part(InMemory(pixels), torch.arange(len(pixels)), torch.zeros(len(pixels), dtype=torch.int64))
    return Loader(part, batch_size=batch_size, device=CPU, augment=Augment(crop=0, flip=False), key=(0, "pretrain"))


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a trainer of a stage in the test's folder, the same at each call."""

    def make(work: Work, **more: Any) -> Trainer:
        folder = tmp_path / "run"
        (folder / "pretrain").mkdir(parents=True, exist_ok=True)
        tracker = Tracker(folder, name="run", enabled=False)
        return Trainer(work, folder=folder / "pretrain", tracker=tracker, **({"reporter": Silent()} | more))

    return make
