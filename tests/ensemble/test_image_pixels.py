"""Gradients in image pixels where a task augments the raw images itself, against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.config import StageSettings
from advss.data.augmentation import Augment
from advss.data.images import InMemory
from advss.data.loader import Loader
from advss.data.splits import Part
from advss.ensemble.diversity import Diversity
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Encoder, Loss, Task, Views
from advss.models.encoder import TimmEncoder
from advss.training.work import Modules, Work, make_views
from advss_pretext.rotation import Rotation

STEP = 6  # of the second epoch: the last of its batches


class TwoCrops(Task):
    """Two crops of each raw image, the second smaller, mirrored and brighter; their features should be alike."""

    def build(self, encoder: Encoder) -> None:
        self.head = nn.Linear(encoder.channels, 5)

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views(tuple(self.crop(batch.raw, side, generator) for side in (32, 16)))

    def crop(self, raw_BCHW: Tensor, side: int, generator: Generator) -> Tensor:
        draws_B4 = torch.rand(len(raw_BCHW), 4, generator=generator).to(raw_BCHW)
        scale_B = 0.4 + 0.4 * draws_B4[:, 0]
        turn_B23 = torch.zeros(len(raw_BCHW), 2, 3).to(raw_BCHW)
        turn_B23[:, 0, 0] = turn_B23[:, 1, 1] = scale_B
        turn_B23[:, 0, 2], turn_B23[:, 1, 2] = 0.2 * draws_B4[:, 1], -0.2 * draws_B4[:, 2]
        grid = F.affine_grid(turn_B23, [len(raw_BCHW), 3, side, side], align_corners=False)
        bright_B111 = (0.6 + 0.4 * draws_B4[:, 3]).view(-1, 1, 1, 1)
        return F.grid_sample(raw_BCHW, grid, align_corners=False) * bright_B111

    def loss(self, encoder: Encoder, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        one, other = (self.head(encoder(x).mean((2, 3))).float() for x in inputs)
        return Loss((one - other).square().mean())


def make_work(encoder: TimmEncoder, *, pixels: bool) -> Work:
    """Rotation and the two crops on an encoder in float64, on noise that is cropped and flipped."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = Part(InMemory(images), torch.arange(16), torch.zeros(16, dtype=torch.int64))
    tasks: dict[str, Task] = {"rotation": Rotation(), "crops": TwoCrops()}
    for task in tasks.values():
        assert isinstance(task, Rotation | TwoCrops)
        task.build(encoder)
    return Work(
        modules=Modules(encoder, tasks, "pretrain").double(),
        defense=Defense(),
        loader=Loader(part, batch_size=4, device=torch.device("cpu"), augment=Augment(4, True), key=(0, "pretrain")),
        phases=[],
        settings=StageSettings(epochs=2, batch_size=4),
        validate=lambda modules, arithmetic: {},
        score=lambda metrics: (0.0,),
        seed=0,
        device=torch.device("cpu"),
        diversity=Diversity(0.1, pixels="image" if pixels else "task"),
    )


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, encoder: TimmEncoder) -> Callable[[], tuple[Work, Batch, TaskObjective]]:
    """The work, its batch and its objective, in float64 throughout: what is made float32 by hand stays as it is."""
    monkeypatch.setattr(Tensor, "float", lambda self: self.double())

    def made() -> tuple[Work, Batch, TaskObjective]:
        work = make_work(encoder, pixels=True)
        batch = work.loader.batch(*divmod(STEP, 4), progress=0.5)
        batch = replace(batch, x=batch.x.double(), raw=batch.raw.double())
        return work, batch, work.objective(batch, step=STEP)

    return made


def test_the_views_are_the_same_as_without_image_pixels(encoder: TimmEncoder) -> None:
    work = make_work(encoder, pixels=True)
    batch = work.loader.batch(*divmod(STEP, 4), progress=0.5)
    traced = work.objective(batch, step=STEP)
    plain = make_views(work.modules.tasks(), batch, (0, "pretrain", STEP))
    assert len(traced.inputs) == 3
    for one, other in zip(traced.inputs, (x for views in plain for x in views.inputs), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


@pytest.mark.parametrize("key", ["rotation", "crops"])
def test_a_column_is_the_derivative_by_the_raw_images(
    key: str, wide: Callable[[], tuple[Work, Batch, TaskObjective]]
) -> None:
    work, batch, objective = wide()
    pixels = objective.pixels
    assert pixels is not None
    inputs = tuple(x.requires_grad_() for x in objective.views[key].inputs)
    with objective.holding_statistics():
        gradients = torch.autograd.grad(objective.member(key).value, inputs)
        column = pixels.column(key, gradients).detach()

        def value(raw: Tensor) -> float:
            x = work.loader.augmented(raw, *divmod(STEP, 4))
            views = make_views(work.modules.tasks(), replace(batch, raw=raw, x=x), (0, "pretrain", STEP))
            moved = views[list(work.modules.tasks()).index(key)]
            return float(work.modules.tasks()[key].loss(work.modules.trunk, moved.inputs, moved.targets).value.detach())

        for seed in range(3):
            way = torch.randn(batch.raw.shape, generator=torch.Generator().manual_seed(seed)).double()
            slope = (value(batch.raw + 1e-7 * way) - value(batch.raw - 1e-7 * way)) / 2e-7
            assert float((column * way).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)
    assert column.abs().amax() > 0


def test_the_term_is_differentiable_by_the_inputs_of_both(
    wide: Callable[[], tuple[Work, Batch, TaskObjective]],
) -> None:
    """What an attack ascends: the losses plus 0.1·g, g of columns in the pixels of the raw images."""
    _, _, objective = wide()
    with objective.attacking():
        inputs = tuple(x.clone().requires_grad_() for x in objective.inputs)
        loss = objective(inputs)
        gradients = torch.autograd.grad(loss.total, inputs)
        assert float(torch.as_tensor(loss.penalty).detach()) < 0
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            ways = [torch.randn(x.shape, generator=generator).double() for x in inputs]
            up, down = (
                float(objective(tuple(x.detach() + h * w for x, w in zip(inputs, ways, strict=True))).total.detach())
                for h in (1e-6, -1e-6)
            )
            along = sum(float((g * w).sum()) for g, w in zip(gradients, ways, strict=True))
            assert along == pytest.approx((up - down) / 2e-6, rel=1e-3)
