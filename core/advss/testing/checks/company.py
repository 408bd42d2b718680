"""A task beside others, under every defense, in every precision and memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advss.attacks import maximise
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Defense, PretextTask
from advss.plugins import build, options_of, registry
from advss.plugins.discovery import GROUP, Plugin
from advss.randomness import stream
from advss.testing.ready import Ready, ready
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, UncheckedError, expect

ALPHA = 0.1  # weight of the diversity term
STEPS = 3  # of defenses that have an option of that name


def the_loss_under_bfloat16_autocast_is_close(subject: Subject) -> None:
    """Still float32, and within some percent."""
    it = ready(subject)
    views = it.views()
    full = it.loss(views).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = it.loss(views).value
    expect(
        narrow.dtype == torch.float32, f"under bfloat16 autocast the loss is {narrow.dtype}; say .float() on the logits"
    )
    expect(
        torch.allclose(narrow, full, atol=0.05, rtol=0.05),
        f"the loss is {float(full.detach()):.5g}, and {float(narrow.detach()):.5g} under bfloat16 autocast; do sums, "
        "logarithms and divisions in float32",
    )


def the_loss_in_channels_last_is_the_same(subject: Subject) -> None:
    """Modules and inputs in that memory layout; code that calls .view() across channels fails there."""
    values = []
    for layout in (torch.contiguous_format, torch.channels_last):
        it = ready(subject)
        it.modules.to(memory_format=layout)
        objective = it.objective(memory_format=layout)
        values.append(objective(objective.inputs).value.detach())
    expect(
        torch.allclose(values[0], values[1], atol=1e-4, rtol=1e-4),
        f"the loss is {float(values[0]):.6g}, and {float(values[1]):.6g} in channels_last; use .reshape() for .view()",
    )


def checks_in_company() -> list[Check]:
    """With each built-in task, plain and with the diversity term."""
    return [
        Check(f"it trains beside {p.name}{' with diversity' * diverse}", partial(_beside, other=p, diverse=diverse))
        for p in registry().found.plugins
        if (p.kind, p.distribution) == ("pretext", GROUP)
        for diverse in (False, True)
    ]


def checks_under_defenses() -> list[Check]:
    """Under each installed defense."""
    return [
        Check(f"it trains under {p.name if p.distribution == GROUP else _full(p)}", partial(_under, defense=p))
        for p in registry().found.plugins
        if p.kind == "defense"
    ]


def _beside(subject: Subject, *, other: Plugin, diverse: bool) -> None:
    """One step of ascent and the training loss, of two members."""
    with _refusals_said():
        objective = _together(subject, other, diverse=diverse)
        with objective.attacking():
            inputs = maximise(
                lambda x: objective(x).total, objective.inputs, stream("cpu", "attack"), eps=0.1, step_size=0.1, steps=1
            )
        loss = objective(inputs)
    _trains(objective, loss.total, "")


def _under(subject: Subject, *, defense: Plugin) -> None:
    """An attack and the training loss, alone, and a pretext task in company with diversity too."""
    it = ready(subject)
    objectives = {"": it.objective()}
    if isinstance(it.task, PretextTask):
        company = next(p for p in registry().found.plugins if (p.kind, p.distribution) == ("pretext", GROUP))
        objectives[" in company"] = _together(subject, company, diverse=True)
    for where, objective in objectives.items():
        with _refusals_said():
            chosen, draws = defense_of(defense), stream("cpu", "defense")
            inputs = chosen.attack(objective, draws)
            loss = chosen.loss(objective, inputs, draws)
        _trains(objective, loss.total, where)


def _together(subject: Subject, other: Plugin, *, diverse: bool) -> TaskObjective:
    own = subject.new()
    companion = build("pretext", Choice(_full(other)))
    branches = tuple(dict.fromkeys((*own.branches, *companion.branches)))
    members = {"it": Ready(own, branches=branches), "other": Ready(companion, branches=branches)}
    trunk = members["it"].network
    return TaskObjective(
        trunk,
        {key: member.task for key, member in members.items()},
        tuple(member.views() for member in members.values()),
        stage="pretrain",
        key=(0,),
        diversity=ALPHA if diverse else 0.0,
    )


def _trains(objective: TaskObjective, total: Tensor, where: str) -> None:
    expect(total.ndim == 0 and total.isfinite(), f"the training loss{where} is {total.detach()}")
    total.backward()  # type: ignore[no-untyped-call]
    for name, p in objective.root.named_parameters():
        expect(p.grad is None or p.grad.isfinite().all(), f"the gradient of '{name}'{where} is not finite")
    expect(any(p.grad is not None for p in objective.root.parameters()), f"no gradient reaches any parameter{where}")


def defense_of(plugin: Plugin) -> Defense:
    """A defense with few steps, where it has that option, so that a check is short.

    Raises:
        UncheckedError: it has options that must be given.
    """
    options = {o.name: o for o in options_of(plugin.offered)}
    needed = [o.name for o in options.values() if o.required]
    if needed:
        raise UncheckedError(f"{plugin.name} needs {', '.join(needed)}")
    few: dict[str, Any] = {"steps": STEPS} if "steps" in options and options["steps"].annotation is int else {}
    defense = build("defense", Choice(_full(plugin), few))
    assert isinstance(defense, Defense)
    return defense


@contextmanager
def _refusals_said() -> Iterator[None]:
    """A pair that core or a defense refuses in one line is no fault of the task: no logits, shapes not to compare."""
    try:
        yield
    except UsageError as error:
        raise UncheckedError(f"refused: {error}") from error


def _full(plugin: Plugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"
