"""A task beside others, under every defense, in every precision and memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advss.attacks import Threat, maximise
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Defense, Views
from advss.named import MARK
from advss.plugins import Kind, build, options_of, registry
from advss.plugins.discovery import GROUP, Plugin
from advss.randomness import stream
from advss.testing.ready import Ready, ready
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, UncheckedError, expect
from advss.training.form import in_words

ALPHA = 0.1  # weight of the diversity term
NEEDED = ("logits", "labels")  # of a loss, by some defenses
STEPS = 3  # of defenses that have an option of that name


def the_loss_under_bfloat16_autocast_is_close(subject: Subject) -> None:
    """Still float32, and within some percent."""
    it = ready(subject)
    views = it.views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained, narrow = it.loss(views).value, it.sure_loss(views)
    full = it.sure_loss(views)
    expect(
        trained.dtype == torch.float32,
        f"under bfloat16 autocast the loss is {trained.dtype}; say .float() on the logits",
    )
    expect(
        torch.allclose(narrow, full, atol=0.05, rtol=0.05),
        f"the loss is {float(full):.5g}, and {float(narrow):.5g} under bfloat16 autocast; do sums, logarithms and "
        "divisions in float32",
    )


def the_loss_in_channels_last_is_the_same(subject: Subject) -> None:
    """Modules and inputs in that memory layout; code that calls .view() across channels fails there."""
    values = []
    for layout in (torch.contiguous_format, torch.channels_last):
        it = ready(subject)
        it.modules.to(memory_format=layout)
        views = it.repeated_views()
        laid = Views(tuple(x.contiguous(memory_format=layout) for x in views.inputs), views.targets)
        it.loss(laid)
        values.append(it.sure_loss(laid))
    expect(
        torch.allclose(values[0], values[1], atol=1e-4, rtol=1e-4),
        f"the loss is {float(values[0]):.6g}, and {float(values[1]):.6g} in channels_last; use .reshape() for .view()",
    )


def checks_in_company() -> list[Check]:
    """With each built-in task, plain and with the diversity term."""
    return [
        Check(f"it trains beside {p.name}{' with diversity' * diverse}", partial(_beside, other=p, diverse=diverse))
        for p in _built_in_tasks()
        for diverse in (False, True)
    ]


def checks_under_defenses(kind: Kind) -> list[Check]:
    """Under each installed defense, and a pretext task with the diversity term beside the first built-in one, too."""
    checks = []
    for defense in registry().found.plugins:
        if defense.kind == "defense":
            name = f"it trains under {defense.name if defense.distribution == GROUP else _full(defense)}"
            checks.append(Check(name, partial(_under, defense=defense, other=None)))
            for other in _built_in_tasks()[:1] if kind == "pretext" else []:
                checks.append(Check(f"{name} in company", partial(_under, defense=defense, other=other)))
    return checks


def _built_in_tasks() -> list[Plugin]:
    return [p for p in registry().found.plugins if (p.kind, p.distribution) == ("pretext", GROUP)]


def _beside(subject: Subject, *, other: Plugin, diverse: bool) -> None:
    """One step of ascent and the training loss, of two members."""
    with _refusals_said():
        objective = _together(subject, other, diverse=diverse)
        with objective.attacking():
            one_step, draws = Threat(eps=0.1, step_size=0.1, steps=1), stream("cpu", "attack")
            inputs = maximise(lambda x: objective(x).total, objective.inputs, draws, one_step)
        loss = objective(inputs)
    _trains(objective, loss.total)


def _under(subject: Subject, *, defense: Plugin, other: Plugin | None) -> None:
    """An attack and the training loss."""
    objective = ready(subject).objective() if other is None else _together(subject, other, diverse=True)
    with _refusals_said(lacking=_lacking(objective)):
        chosen, draws = defense_of(defense), stream("cpu", "defense")
        inputs = chosen.attack(objective, draws)
        loss = chosen.loss(objective, inputs, draws)
    _trains(objective, loss.total)


def _together(subject: Subject, other: Plugin, *, diverse: bool) -> TaskObjective:
    own = subject.new()
    companion = build("pretext", Choice(_full(other)))
    branches = tuple(dict.fromkeys((*own.branches, *companion.branches)))
    members = {"it": Ready(own, branches=branches), "other": Ready(companion, branches=branches)}
    views = tuple(member.views() for member in members.values())
    members["it"].objective(views[0])  # what is wrong with it alone is said of it alone
    trunk = members["it"].network
    return TaskObjective(
        trunk,
        {key: member.task for key, member in members.items()},
        views,
        stage="pretrain",
        key=(0,),
        diversity=ALPHA if diverse else 0.0,
    )


def _trains(objective: TaskObjective, total: Tensor) -> None:
    expect(
        total.ndim == 0 and total.isfinite(),
        f"the training loss is {in_words(total) if total.ndim else float(total.detach())}",
    )
    total.backward()  # type: ignore[no-untyped-call]
    for name, p in objective.root.named_parameters():
        expect(p.grad is None or p.grad.isfinite().all(), f"the gradient of '{name.replace(MARK, '')}' is not finite")
    expect(any(p.grad is not None for p in objective.root.parameters()), "no gradient reaches any parameter")


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


def _lacking(objective: TaskObjective) -> str:
    """What some defenses need of a task and this one, or one of several, does not give."""
    with torch.no_grad(), objective.holding_statistics():
        loss = objective(objective.inputs, penalty=False)
    return next((what for what in NEEDED if not getattr(loss, what)), "")


@contextmanager
def _refusals_said(*, lacking: str = "") -> Iterator[None]:
    """A pair that core or a defense refuses in one line is no fault of the task: no logits, shapes not to compare.

    What a task lacks is said in the same words under each defense that needs it.
    """
    try:
        yield
    except UsageError as error:
        known = lacking and any(what in str(error) for what in NEEDED)
        said = f"it gives no Loss.{lacking}, which this defense needs" if known else f"refused: {error}"
        raise UncheckedError(said) from error


def _full(plugin: Plugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"
