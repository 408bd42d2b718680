"""What a defense gives, and what it leaves as it found it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advss.ensemble.objective import Stage, TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Defense, Loss, PretextTask
from advss.randomness import stream
from advss.testing.checks.device import Place, everywhere
from advss.testing.ready import Ready
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import UncheckedError, as_in_training, expect
from advss.training.form import check_form_of_attack, check_form_of_loss, check_loss

PENALTY = 0.7  # of an objective whose diversity term is a constant


def an_attack_gives_as_many_inputs_of_the_same_form(subject: Subject) -> None:
    """Shapes, number and type of ``objective.inputs``; detached and finite."""
    for objective, where in _objectives():
        for x, clean in zip(_attacked(_defense(subject), objective), objective.inputs, strict=True):
            expect(x.dtype == clean.dtype, f"attack() returns {x.dtype} for {clean.dtype} {where}")
            expect(not x.requires_grad, f"attack() returns an input with a graph {where}; return x.detach()")
            expect(x.isfinite().all(), f"attack() returns an input that is not finite {where}")


def attacked_inputs_are_in_0_to_1(subject: Subject) -> None:
    """But for a defense that names its ``noise``, which certificates take as unclamped."""
    for objective, where in _objectives():
        defense = _defense(subject)
        expect(0 <= defense.noise < float("inf"), f"noise is {defense.noise}; give a standard deviation, 0 for none")
        for x in _attacked(defense, objective):
            low, high = (float(bound) for bound in x.detach().aminmax())
            expect(
                defense.noise > 0 or (low >= 0 and high <= 1),
                f"attacked inputs have values from {low:.4g} to {high:.4g} {where}; clamp to [0, 1], or set "
                "self.noise where Gaussian noise is the method",
            )


def an_attack_leaves_the_network_as_found(subject: Subject) -> None:
    """Weights, statistics, modes, requires_grad flags and gradients, in part frozen or not."""
    for objective, where in _objectives():
        for p in objective.root.parameters():
            p.grad = torch.ones_like(p)  # so that a gradient that is added, or set to None, shows
        before = _snapshot(objective.root)
        _attacked(_defense(subject), objective)
        after = _snapshot(objective.root)
        for what, value in before.items():
            expect(
                _equal(value, after[what]),
                f"attack() changes {what} {where}; attack within `with objective.attacking():` and differentiate by "
                "torch.autograd.grad, not by backward()",
            )


def the_clean_inputs_are_left_alone(subject: Subject) -> None:
    """They are trained on too, and measured."""
    for objective, where in _objectives():
        kept = [x.clone() for x in objective.inputs]
        _trained(_defense(subject), objective)
        for x, before in zip(objective.inputs, kept, strict=True):
            expect(
                torch.equal(x, before) and not x.requires_grad,
                f"objective.inputs are changed in place, or ask for a gradient {where}; work on x.clone()",
            )


def attack_and_loss_follow_from_the_generator(subject: Subject) -> None:
    """Whatever the global generator's state, which they leave alone."""
    for make, where in _makers():
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            results.append(_step(_defense(subject), make()))
            expect(
                torch.equal(torch.get_rng_state(), state),
                f"it draws from torch's global generator {where}; draw from the generator that is given",
            )
        _expect_finite(results[0])
        expect(
            all(map(torch.equal, *results)),
            f"attack or loss differ between two calls with the same generator {where}; draw from it alone: "
            "torch.empty_like(x).normal_(generator=generator)",
        )


def it_keeps_nothing_from_step_to_step(subject: Subject) -> None:
    """A defense has no state that a checkpoint carries, so that a run would not resume as it was."""
    _expect_sure(subject)
    used = _defense(subject)
    _step(used, _objective(Mirror()))
    again, anew = (_step(defense, _objective(Mirror())) for defense in (used, _defense(subject)))
    expect(
        all(map(torch.equal, again, anew)),
        "a defense that was used before attacks otherwise than a new one; keep nothing on self from step to step: "
        "objective.progress tells how far training is",
    )


def its_loss_is_finite_and_reaches_every_parameter(subject: Subject) -> None:
    """Float32, a scalar, with a gradient for all that trains."""
    for objective, where in _objectives():
        loss = _trained(_defense(subject), objective)
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
    _expect_sure(subject)
    losses = []
    for constant in (0.0, PENALTY):
        objective, defense = _objective(Mirror(), made=_ConstantTerm), _defense(subject)
        assert isinstance(objective, _ConstantTerm)
        objective.constant = constant
        losses.append(_trained(defense, objective))
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
    _expect_finite(_step(_defense(subject), _objective(Mirror())))
    for lacks in ("logits", "labels"):
        try:
            total = _trained(_defense(subject), _objective(Mirror(**{lacks: False}))).total
        except UsageError as error:
            expect("\n" not in str(error), f"it refuses a task without {lacks} in several lines; say it in one")
            continue
        expect(
            total.isfinite() and total.requires_grad, f"its loss of a task without {lacks} is {float(total.detach())}"
        )


def it_trains_in_bfloat16_and_channels_last(subject: Subject) -> None:
    """Forward passes under autocast, inputs in the other memory layout."""
    _expect_finite(_step(_defense(subject), _objective(Mirror())))
    hows: list[dict[str, Any]] = [{"bf16": True}, {"memory_format": torch.channels_last}]
    for how in hows:
        found = _step(_defense(subject), _objective(Mirror(), **how))
        expect(all(t.isfinite().all() for t in found), f"attack or loss are not finite under {how}")


def it_works_on_another_device(subject: Subject) -> None:
    """Attack, loss and its gradient, with network and inputs moved as core moves them."""
    everywhere(partial(defense_works, subject))


def defense_works(subject: Subject, place: Place) -> None:
    """All that core calls of a defense, at a place."""
    objective = _objective(Mirror(), TwoSizes(), place=place)
    with place.within():
        draws, defense = place.generator(), _defense(subject)
        loss = _loss(defense, objective, _attacked(defense, objective, draws), draws)
        loss.total.backward()  # type: ignore[no-untyped-call]


class _ConstantTerm(TaskObjective):
    """An objective whose diversity term is a number, so that it shows how often a defense counts it."""

    constant = 0.0

    def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        """The losses, and the number unless ``penalty`` is false."""
        loss = super().__call__(inputs, penalty=False)
        return replace(loss, penalty=torch.tensor(self.constant) if penalty else 0.0)


def _objective(
    *tasks: PretextTask,
    stage: Stage = "pretrain",
    made: type[TaskObjective] = TaskObjective,
    place: Place | None = None,
    **how: Any,
) -> TaskObjective:
    """Newly made tasks on one small encoder as an objective, at a place; the same at every call."""
    members = {f"task{seed}": Ready(task, seed=seed) for seed, task in enumerate(tasks)}
    trunk = members["task0"].network
    built = {key: member.task for key, member in members.items()}
    views = tuple(m.views() for m in members.values())
    if place:
        place.move_module(nn.ModuleList([trunk, *built.values()]))
        views = tuple(map(place.views, views))
    objective = made(trunk, built, views, stage=stage, key=(0, stage), **how)
    if place:
        for laid in objective.views.values():
            place.views(laid)  # the objective has laid them out anew, and what is pretended is lost then
    return objective


def _partly_standing() -> TaskObjective:
    """As partial fine-tuning leaves a network: the first convolution stands, in eval mode."""
    objective = _objective(Mirror(), stage="finetune", progress=0.5)
    first = next(m for m in objective.root.modules() if isinstance(m, nn.Conv2d))
    first.requires_grad_(False).eval()
    return objective


def _makers() -> list[tuple[Callable[[], TaskObjective], str]]:
    """Objectives of every kind that core makes, and what messages say of them."""
    return [
        (lambda: _objective(Mirror(), progress=0.0), "with one task"),
        (_partly_standing, "in fine-tuning, with a part of the network standing"),
        (lambda: _objective(Mirror(), Mirror(), diversity=0.1), "with two tasks and the diversity term"),
        (lambda: _objective(TwoSizes()), "with two inputs of different sizes"),
    ]


def _objectives() -> Iterator[tuple[TaskObjective, str]]:
    return ((make(), where) for make, where in _makers())


def _defense(subject: Subject) -> Defense:
    defense = subject.new()
    assert isinstance(defense, Defense)
    return defense


def _draws() -> torch.Generator:
    return stream("cpu", "defense")


def _attacked(defense: Defense, objective: TaskObjective, draws: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """What attack() gives, where it is of its form."""
    found = defense.attack(objective, draws or _draws())
    as_in_training(check_form_of_attack, found, objective.inputs)
    return found


def _trained(defense: Defense, objective: TaskObjective) -> Loss:
    """What loss() gives at the attacked inputs."""
    return _loss(defense, objective, _attacked(defense, objective), _draws())


def _loss(defense: Defense, objective: TaskObjective, inputs: tuple[Tensor, ...], draws: torch.Generator) -> Loss:
    """What loss() gives, where it is of its form."""
    loss = defense.loss(objective, inputs, draws)
    as_in_training(check_form_of_loss, loss)
    return loss


def _step(defense: Defense, objective: TaskObjective) -> list[Tensor]:
    """Attacked inputs and training loss, of one stream of draws."""
    draws = _draws()
    inputs = _attacked(defense, objective, draws)
    return [*inputs, _loss(defense, objective, inputs, draws).total.detach()]


def _expect_finite(step: list[Tensor]) -> None:
    """Only what is finite compares; that it is not, a check of its own says."""
    if not all(t.isfinite().all() for t in step):
        raise UncheckedError("attack or loss are not finite")


def _expect_sure(subject: Subject) -> None:
    """Two new defenses do the same, so that two steps compare; that they do not, a check of its own says."""
    one, other = (_step(_defense(subject), _objective(Mirror())) for _ in range(2))
    _expect_finite(one)
    if not all(map(torch.equal, one, other)):
        raise UncheckedError("attack or loss do not repeat")


def _snapshot(root: nn.Module) -> dict[str, Any]:
    """All that an attack must leave."""
    seen: dict[str, Any] = {f"'{name}'": t.clone() for name, t in root.state_dict().items()}
    for name, p in root.named_parameters():
        seen[f"the gradient of '{name}'"] = None if p.grad is None else p.grad.clone()
        seen[f"requires_grad of '{name}'"] = p.requires_grad
    seen |= {f"the mode of '{name}'": module.training for name, module in root.named_modules()}
    return seen


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other
