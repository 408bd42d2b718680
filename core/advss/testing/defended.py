"""What a defense is tried on: objectives of every kind that core makes, and the passes of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advss.ensemble.objective import Stage, TaskObjective
from advss.hookspecs import Defense, Loss, PretextTask
from advss.randomness import stream
from advss.testing.checks.device import Place
from advss.testing.ready import Ready
from advss.testing.stand_ins import Mirror, TwoSizes
from advss.testing.subject import Subject
from advss.testing.verdicts import UncheckedError, as_in_training
from advss.training.form import check_form_of_attack, check_form_of_loss


class ConstantTerm(TaskObjective):
    """An objective whose diversity term is a number, so that it shows how often a defense counts it."""

    constant = 0.0

    def __call__(self, inputs: tuple[Tensor, ...], *, penalty: bool = True) -> Loss:
        """The losses, and the number unless ``penalty`` is false."""
        loss = super().__call__(inputs, penalty=False)
        return replace(loss, penalty=torch.tensor(self.constant) if penalty else 0.0)


def objective_of(
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
    objective = objective_of(Mirror(), stage="finetune", progress=0.5)
    first = next(m for m in objective.root.modules() if isinstance(m, nn.Conv2d))
    first.requires_grad_(False).eval()
    return objective


def _carried_to() -> TaskObjective:
    """As in training, where the defense carries anything from step to step."""
    objective = objective_of(TwoSizes())
    objective.carried = tuple(0.05 * (x - 0.5) for x in objective.inputs)
    return objective


def makers() -> list[tuple[Callable[[], TaskObjective], str]]:
    """Objectives of every kind that core makes, and what messages say of them."""
    return [
        (lambda: objective_of(Mirror(), progress=0.0), "with one task"),
        (_partly_standing, "in fine-tuning, with a part of the network standing"),
        (lambda: objective_of(Mirror(), Mirror(), diversity=0.1), "with two tasks and the diversity term"),
        (lambda: objective_of(TwoSizes()), "with two inputs of different sizes"),
        (_carried_to, "with what was carried to it"),
    ]


def objectives() -> Iterator[tuple[TaskObjective, str]]:
    """One of every kind."""
    return ((make(), where) for make, where in makers())


def defense_of(subject: Subject) -> Defense:
    """The defense that is tried, made anew."""
    defense = subject.new()
    assert isinstance(defense, Defense)
    return defense


def new_draws() -> torch.Generator:
    """The generator of a step, the same at every call."""
    return stream("cpu", "defense")


def attacked(defense: Defense, objective: TaskObjective, draws: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """What attack() gives, where it is of its form."""
    found = defense.attack(objective, draws or new_draws())
    as_in_training(check_form_of_attack, found, objective.inputs)
    return found


def trained(defense: Defense, objective: TaskObjective) -> Loss:
    """What loss() gives at the attacked inputs."""
    return loss_at(defense, objective, attacked(defense, objective), new_draws())


def loss_at(defense: Defense, objective: TaskObjective, inputs: tuple[Tensor, ...], draws: torch.Generator) -> Loss:
    """What loss() gives, where it is of its form."""
    loss = defense.loss(objective, inputs, draws)
    as_in_training(check_form_of_loss, loss)
    return loss


def step(defense: Defense, objective: TaskObjective) -> list[Tensor]:
    """Attacked inputs and training loss, of one stream of draws."""
    draws = new_draws()
    inputs = attacked(defense, objective, draws)
    return [*inputs, loss_at(defense, objective, inputs, draws).total.detach()]


def expect_finite(step: list[Tensor]) -> None:
    """Only what is finite compares; that it is not, a check of its own says."""
    if not all(t.isfinite().all() for t in step):
        raise UncheckedError("attack or loss are not finite")


def expect_sure(subject: Subject) -> None:
    """Two new defenses do the same, so that two steps compare; that they do not, a check of its own says."""
    one, other = (step(defense_of(subject), objective_of(Mirror())) for _ in range(2))
    expect_finite(one)
    if not all(map(torch.equal, one, other)):
        raise UncheckedError("attack or loss do not repeat")
