"""What a defense gives, and what it leaves as it found it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Defense
from advss.testing.asked import UNSEEDED, as_it_was, snapshot, unseeded
from advss.testing.checks.device import Place, everywhere
from advss.testing.defended import (
    ConstantTerm,
    attacked,
    defense_of,
    expect_finite,
    expect_sure,
    loss_at,
    makers,
    new_draws,
    objective_of,
    objectives,
    step,
    trained,
)
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import as_in_training, expect
from advss.training.form import check_loss

PENALTY = 0.7  # of an objective whose diversity term is a constant


def an_attack_gives_as_many_inputs_of_the_same_form(subject: Subject) -> None:
    """Shapes, number and type of ``objective.inputs``; detached and finite."""
    for objective, where in objectives():
        for x, clean in zip(attacked(defense_of(subject), objective), objective.inputs, strict=True):
            expect(x.dtype == clean.dtype, f"attack() returns {x.dtype} for {clean.dtype} {where}")
            expect(not x.requires_grad, f"attack() returns an input with a graph {where}; return x.detach()")
            expect(x.isfinite().all(), f"attack() returns an input that is not finite {where}")


def attacked_inputs_are_in_0_to_1(subject: Subject) -> None:
    """But for a defense that names its ``noise``, which certificates take as unclamped."""
    for objective, where in objectives():
        defense = defense_of(subject)
        expect(0 <= defense.noise < float("inf"), f"noise is {defense.noise}; give a standard deviation, 0 for none")
        for x in attacked(defense, objective):
            low, high = (float(bound) for bound in x.detach().aminmax())
            expect(
                defense.noise > 0 or (low >= 0 and high <= 1),
                f"attacked inputs have values from {low:.4g} to {high:.4g} {where}; clamp to [0, 1], or set "
                "self.noise where Gaussian noise is the method",
            )


def an_attack_leaves_the_network_as_found(subject: Subject) -> None:
    """Weights, statistics, modes, requires_grad flags and gradients, in part frozen or not."""
    for objective, where in objectives():
        for p in objective.root.parameters():
            p.grad = torch.ones_like(p)  # so that a gradient that is added, or set to None, shows
        before = snapshot(objective.root)
        attacked(defense_of(subject), objective)
        after = snapshot(objective.root)
        for what, value in before.items():
            expect(
                as_it_was(value, after[what]),
                f"attack() changes {what} {where}; attack within `with objective.attacking():` and differentiate by "
                "torch.autograd.grad, not by backward()",
            )


def the_clean_inputs_are_left_alone(subject: Subject) -> None:
    """They are trained on too, and measured."""
    for objective, where in objectives():
        kept = [x.clone() for x in objective.inputs]
        trained(defense_of(subject), objective)
        for x, before in zip(objective.inputs, kept, strict=True):
            expect(
                torch.equal(x, before) and not x.requires_grad,
                f"objective.inputs are changed in place, or ask for a gradient {where}; work on x.clone()",
            )


def attack_and_loss_follow_from_the_generator(subject: Subject) -> None:
    """Whatever the global generator's state, which they leave alone."""
    for make, where in makers():
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            results.append(_step(defense_of(subject), make()))
            expect(
                torch.equal(torch.get_rng_state(), state),
                f"it draws from torch's global generator {where}; draw from the generator that is given",
            )
        expect_finite(results[0])
        expect(
            all(map(torch.equal, *results)),
            f"attack or loss differ between two calls with the same generator {where}; draw from it alone: "
            "torch.empty_like(x).normal_(generator=generator)",
        )


def it_keeps_nothing_from_step_to_step(subject: Subject) -> None:
    """A defense has no state that a checkpoint carries, so that a run would not resume as it was."""
    expect_sure(subject)
    used = defense_of(subject)
    step(used, objective_of(Mirror()))
    again, anew = (step(defense, objective_of(Mirror())) for defense in (used, defense_of(subject)))
    expect(
        all(map(torch.equal, again, anew)),
        "a defense that was used before attacks otherwise than a new one; keep nothing on self from step to step: "
        "objective.progress tells how far training is",
    )


def its_loss_is_finite_and_reaches_every_parameter(subject: Subject) -> None:
    """Float32, a scalar, with a gradient for all that trains."""
    for objective, where in objectives():
        loss = trained(defense_of(subject), objective)
        expect(loss.total.isfinite(), f"the loss is {float(loss.total.detach())} {where}")
        as_in_training(check_loss, loss)
        expect(loss.total.requires_grad, f"the loss has no gradient {where}; was it detached?")
        loss.total.backward()  # type: ignore[no-untyped-call]
        for name, p in objective.root.named_parameters():
            expect(
                not p.requires_grad or (p.grad is not None and p.grad.isfinite().all()),
                f"'{name}' gets no finite gradient {where}",
            )


def the_diversity_term_counts_once(subject: Subject) -> None:
    """It belongs to the attacked inputs; a clean pass is asked for with ``penalty=False``."""
    expect_sure(subject)
    losses = []
    for constant in (0.0, PENALTY):
        objective, defense = objective_of(Mirror(), made=ConstantTerm), defense_of(subject)
        assert isinstance(objective, ConstantTerm)
        objective.constant = constant
        losses.append(trained(defense, objective))
    term = float(torch.as_tensor(losses[1].penalty).detach())
    advice = "return Loss(value, logits, metrics, loss.penalty) of the pass at the attacked inputs"
    expect(
        abs(term - PENALTY) < 1e-5,
        f"Loss.penalty is {term:.4g} where the diversity term is {PENALTY}; {advice}, and call others with "
        "penalty=False",
    )
    expect(
        torch.allclose(losses[0].value, losses[1].value, atol=1e-5),
        f"Loss.value is another with the diversity term; {advice}, and build value from .value, not .total",
    )


def a_task_without_logits_or_labels_is_trained_or_refused(subject: Subject) -> None:
    """``Loss.logits`` or ``Loss.labels`` is empty where a task has none; a UsageError in one line says so."""
    expect_finite(step(defense_of(subject), objective_of(Mirror())))
    for lacks in ("logits", "labels"):
        try:
            total = trained(defense_of(subject), objective_of(Mirror(**{lacks: False}))).total
        except UsageError as error:
            expect("\n" not in str(error), f"it refuses a task without {lacks} in several lines; say it in one")
            continue
        expect(
            total.isfinite() and total.requires_grad, f"its loss of a task without {lacks} is {float(total.detach())}"
        )


def it_trains_in_bfloat16_and_channels_last(subject: Subject) -> None:
    """Forward passes under autocast, inputs in the other memory layout."""
    expect_finite(step(defense_of(subject), objective_of(Mirror())))
    hows: list[dict[str, Any]] = [{"bf16": True}, {"memory_format": torch.channels_last}]
    for how in hows:
        found = step(defense_of(subject), objective_of(Mirror(), **how))
        expect(all(t.isfinite().all() for t in found), f"attack or loss are not finite under {how}")


def it_works_on_another_device(subject: Subject) -> None:
    """Attack, loss and its gradient, with network and inputs moved as core moves them."""
    everywhere(partial(defense_works, subject))


def defense_works(subject: Subject, place: Place) -> None:
    """All that core calls of a defense, at a place."""
    objective = objective_of(Mirror(), TwoSizes(), place=place)
    with place.within():
        draws, defense = place.generator(), defense_of(subject)
        loss = loss_at(defense, objective, attacked(defense, objective, draws), draws)
        loss.total.backward()  # type: ignore[no-untyped-call]


def _step(defense: Defense, objective: TaskObjective) -> list[Tensor]:
    """As :func:`step`, which says what is drawn by others' random state."""
    draws = new_draws()
    with unseeded() as by_attack:
        inputs = attacked(defense, objective, draws)
    with unseeded() as by_loss:
        total = loss_at(defense, objective, inputs, draws).total.detach()
    for what, drawn in (("attack()", by_attack), ("loss()", by_loss)):
        expect(not drawn, f"{what} draws from {''.join(drawn[:1])}{UNSEEDED}")
    return [*inputs, total]
