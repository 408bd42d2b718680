"""Optimiser and learning-rate schedule (a function of the step) of a stage, made of its settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from advss.config import StageSettings

Schedule = Callable[[int], None]  # sets the optimiser's learning rates for the step that follows


def make_optimizer(settings: StageSettings, groups: list[dict[str, Any]]) -> Optimizer:
    """SGD or AdamW over parameter groups; the schedule multiplies a group's learning rate by its ``lr_scale``."""
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def make_schedule(settings: StageSettings, optimizer: Optimizer, *, steps: int, steps_per_epoch: int) -> Schedule:
    """The learning rate by step, counted from 0, over ``steps`` steps."""
    if settings.schedule == "onecycle":
        return _one_cycle(settings, optimizer, steps)
    warmup: dict[str, Any] = {
        "warmup_t": min(settings.warmup_steps, max(steps - 1, 0)),
        "warmup_lr_init": settings.warmup_lr,
        "t_in_epochs": False,
    }
    timm_schedule: CosineLRScheduler | MultiStepLRScheduler
    if settings.schedule == "cosine" and steps > 1:  # of one step it is the peak, and timm warns of it
        timm_schedule = CosineLRScheduler(optimizer, t_initial=steps, lr_min=settings.min_lr, **warmup)
    else:
        epochs = settings.milestones if settings.schedule == "multistep" else ()
        decays = [epoch * steps_per_epoch + 1 for epoch in epochs]  # timm decays one step before its milestone
        timm_schedule = MultiStepLRScheduler(optimizer, decay_t=decays, decay_rate=0.1, warmup_prefix=False, **warmup)
    return timm_schedule.step_update


def _one_cycle(settings: StageSettings, optimizer: Optimizer, steps: int) -> Schedule:
    peaks = [settings.lr * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    cycle = OneCycleLR(optimizer, peaks, total_steps=max(steps, 2), cycle_momentum=False)

    def set_rates(step: int) -> None:
        cycle.last_epoch = step
        with warnings.catch_warnings(action="ignore"):  # it warns of being asked outside step()
            rates = cycle.get_lr()  # a closed form of last_epoch, so that any step can be resumed at
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    return set_rates


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors by name (``0.momentum_buffer``) and its groups' plain values."""
    state = optimizer.state_dict()
    tensors = {
        f"{place}.{name}": torch.as_tensor(value)
        for place, values in state["state"].items()
        for name, value in values.items()
        if value is not None
    }
    return tensors, state["param_groups"]


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """Put packed state back into an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, name = key.split(".", 1)
        state.setdefault(int(place), {})[name] = tensor
    restored = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": restored})
