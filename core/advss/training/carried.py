"""What a defense carries from one training step to the next, such as the perturbation of free adversarial training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advss.errors import UsageError
from advss.hookspecs import Defense, Objective
from advss.training.form import check_form_of_attack
from advss.training.work import Work

Carried = tuple[Tensor, ...]


def carries(defense: Defense) -> bool:
    """Whether a defense carries anything."""
    return type(defense).carry is not Defense.carry


def hand_over(carried: Carried, defense: Defense, objective: Objective) -> None:
    """Give the objective of a training step what was carried to it, zeros at first.

    Raises:
        UsageError: the inputs have other shapes than those of the step before.
    """
    if not carries(defense):
        return
    had, now = ([tuple(x.shape) for x in some] for some in (carried, objective.inputs))
    if carried and had != now:
        raise UsageError(f"defense {defense.name} carries tensors of shapes {had}, and the inputs are of shapes {now}")
    objective.carried = carried or tuple(torch.zeros_like(x) for x in objective.inputs)


def trained_on(inputs: tuple[Tensor, ...], defense: Defense) -> tuple[Tensor, ...]:
    """The inputs of the training pass: leaves that have a gradient after it, where the defense carries anything."""
    return tuple(x.detach().requires_grad_() for x in inputs) if carries(defense) else inputs


def carried_on(defense: Defense, objective: Objective, inputs: tuple[Tensor, ...]) -> Carried:
    """What is carried to the next step, after the backward pass of the training loss at ``inputs``.

    Raises:
        MisfitError: it is not of the inputs' form.
    """
    if not carries(defense):
        return ()
    gradients = tuple(torch.zeros_like(x) if x.grad is None else x.grad for x in inputs)
    with torch.no_grad():
        given = defense.carry(objective, tuple(x.detach() for x in inputs), gradients)
    if not (isinstance(given, tuple) and given == ()):
        check_form_of_attack(given, objective.inputs, by="carry()")
    return tuple(x.detach() for x in given)


def laid_out(stored: Mapping[str, Tensor], work: Work) -> Carried:
    """What a checkpoint has of it, by place, as the inputs of a stage are laid out."""
    ordered = (stored[place] for place in sorted(stored, key=int))
    return tuple(x.to(work.device).contiguous(memory_format=work.memory_format) for x in ordered)
