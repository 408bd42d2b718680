from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from advss.config import StageSettings
from advss.training.optimisation import make_optimizer, make_schedule, pack_optimizer, unpack_optimizer

PLAIN = StageSettings(epochs=4, batch_size=8, lr=0.4)
STEPS, STEPS_PER_EPOCH = 40, 10


def rates(settings: StageSettings, *, lr_scale: float = 1.0) -> list[float]:
    """The learning rate of every step of the second of two groups."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}]
    optimizer = make_optimizer(settings, [groups[0], {**groups[1], "lr_scale": lr_scale}])
    schedule = make_schedule(settings, optimizer, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    found = []
    for step in range(STEPS):
        schedule(step)
        found.append(optimizer.param_groups[1]["lr"])
    return found


def cosine(step: int) -> float:
    return 0.001 + (0.4 - 0.001) * (1 + math.cos(math.pi * step / STEPS)) / 2


def cosine_with_warmup(step: int) -> float:
    return 0.01 + (0.4 - 0.01) * step / 5 if step < 5 else cosine(step)


def multistep(step: int) -> float:
    return 0.4 * 0.1 ** ((step >= 20) + (step >= 30))


def multistep_with_warmup(step: int) -> float:
    return 0.01 + (0.4 - 0.01) * step / 5 if step < 5 else multistep(step)


def one_cycle(step: int) -> float:
    """Smith & Topin: by half a cosine from lr/25 up over 30 % of the steps, then by another down to lr/25e4."""
    top, last = 0.3 * STEPS - 1, STEPS - 1
    if step <= top:
        return 0.4 / 25 + (0.4 - 0.4 / 25) * (1 - math.cos(math.pi * step / top)) / 2
    end = 0.4 / 25 / 1e4
    return end + (0.4 - end) * (1 + math.cos(math.pi * (step - top) / (last - top))) / 2


SCHEDULES: dict[str, tuple[StageSettings, Callable[[int], float]]] = {
    "cosine": (replace(PLAIN, min_lr=0.001), cosine),
    "cosine with warm-up": (replace(PLAIN, min_lr=0.001, warmup_steps=5), cosine_with_warmup),
    "multistep": (replace(PLAIN, schedule="multistep", milestones=(2, 3)), multistep),
    "multistep with warm-up": (
        replace(PLAIN, schedule="multistep", milestones=(2, 3), warmup_steps=5),
        multistep_with_warmup,
    ),
    "one-cycle": (replace(PLAIN, schedule="onecycle"), one_cycle),
    "constant": (replace(PLAIN, schedule="constant"), lambda step: 0.4),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_its_closed_form_at_every_step(name: str) -> None:
    settings, closed_form = SCHEDULES[name]
    assert rates(settings) == pytest.approx([closed_form(step) for step in range(STEPS)], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_lr_scale_multiplies_a_group_once_at_every_step(name: str) -> None:
    settings, _ = SCHEDULES[name]
    assert rates(settings, lr_scale=0.1) == pytest.approx([0.1 * rate for rate in rates(settings)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_a_function_of_the_step_alone(name: str) -> None:
    settings, closed_form = SCHEDULES[name]
    optimizer = make_optimizer(settings, [{"params": [nn.Parameter(torch.zeros(1))]}])
    schedule = make_schedule(settings, optimizer, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    for step in (33, 2, 17):
        schedule(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(closed_form(step), rel=1e-9)


# its rise takes 0.3 · 2 - 1 = -0.4 steps, so that its first step is 0.4 / 1.4 down from the top
ONE_STEP_OF_ONECYCLE = 0.4 * (1 + math.cos(math.pi * 0.4 / 1.4)) / 2


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "multistep", "constant"])
def test_one_step_is_enough_and_no_library_warns_of_it(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(PLAIN, schedule=schedule, warmup_steps=200)  # type: ignore[arg-type]
    optimizer = make_optimizer(settings, [{"params": [nn.Parameter(torch.zeros(1))]}])
    make_schedule(settings, optimizer, steps=1, steps_per_epoch=1)(0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 if schedule != "onecycle" else ONE_STEP_OF_ONECYCLE)
    assert not caplog.records


def test_sgd_is_as_said() -> None:
    settings = replace(PLAIN, momentum=0.8, nesterov=True, weight_decay=0.01)
    optimizer = make_optimizer(settings, [{"params": [nn.Parameter(torch.zeros(1))]}])
    assert isinstance(optimizer, SGD)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 0.01)


def test_adamw_is_as_said() -> None:
    settings = replace(PLAIN, optimizer="adamw", weight_decay=0.05)
    optimizer = make_optimizer(settings, [{"params": [nn.Parameter(torch.zeros(1))]}])
    assert isinstance(optimizer, AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.05


def stepped(kind: str, steps: int) -> tuple[nn.Linear, Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    settings = replace(PLAIN, optimizer=kind)  # type: ignore[arg-type]
    optimizer = make_optimizer(settings, [{"params": [layer.weight]}, {"params": [layer.bias], "lr_scale": 0.5}])
    for step in range(steps):
        step_once(layer, optimizer, step)
    return layer, optimizer


def step_once(layer: nn.Linear, optimizer: Optimizer, step: int) -> None:
    optimizer.zero_grad()
    layer(torch.full((1, 3), step + 1.0)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_packed_and_unpacked_optimiser_steps_as_before(kind: str) -> None:
    layer, optimizer = stepped(kind, 3)
    again, fresh = stepped(kind, 0)
    again.load_state_dict(layer.state_dict())
    tensors, groups = pack_optimizer(optimizer)
    unpack_optimizer(fresh, {name: tensor.clone() for name, tensor in tensors.items()}, groups)
    for one, other in ((layer, optimizer), (again, fresh)):
        step_once(one, other, 3)
    assert torch.equal(layer.weight, again.weight)
    assert torch.equal(layer.bias, again.bias)
