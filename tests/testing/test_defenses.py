from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.hookspecs import Defense, Loss, Objective
from advss.testing.checks import carried, defenses
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
Inputs = tuple[Tensor, ...]
FACTS = [
    defenses.an_attack_gives_as_many_inputs_of_the_same_form,
    defenses.attacked_inputs_are_in_0_to_1,
    defenses.an_attack_leaves_the_network_as_found,
    defenses.the_clean_inputs_are_left_alone,
    defenses.attack_and_loss_follow_from_the_generator,
    defenses.it_keeps_nothing_from_step_to_step,
    defenses.its_loss_is_finite_and_reaches_every_parameter,
    defenses.the_diversity_term_counts_once,
    defenses.a_task_without_logits_or_labels_is_trained_or_refused,
    defenses.it_trains_in_bfloat16_and_channels_last,
    defenses.it_works_on_another_device,
    carried.what_it_carries_is_of_the_inputs_form,
]
form, bounded, as_found, clean_kept, drawn, stateless, loss_reached, once, no_logits, layouts, device, carry = FACTS


class Sound(Defense):
    """One signed step from a random start, the clean loss beside."""

    name = "sound"

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        start = [
            torch.empty_like(x).uniform_(-0.01, 0.01, generator=generator).add_(x).clamp_(0, 1).requires_grad_()
            for x in objective.inputs
        ]
        with objective.attacking(), torch.enable_grad():
            gradients = torch.autograd.grad(objective(tuple(start)).total, start)
        return tuple((x.detach() + 0.02 * g.sign()).clamp(0, 1) for x, g in zip(start, gradients, strict=True))

    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        clean, attacked = objective(objective.inputs, penalty=False), objective(inputs)
        return Loss((clean.value + attacked.value) / 2, attacked.logits, attacked.metrics, attacked.penalty)


class Told(Sound):
    """Hands on what :meth:`changed` makes of the attacked inputs."""

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return self.changed(super().attack(objective, generator))

    def changed(self, inputs: Inputs) -> Inputs:
        raise NotImplementedError


class FirstOnly(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return inputs[:1]


class AsList(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return list(inputs)  # type: ignore[return-value]


class Copies(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(torch.cat([x, x]) for x in inputs)


class WithGraph(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x.requires_grad_() for x in inputs)


class NotFinite(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x / 0 for x in inputs)


class Unclamped(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x + 0.5 for x in inputs)


class NegativeNoise(Sound):
    noise = -1.0


class Backward(Sound):
    """Differentiates by backward(), outside attacking()."""

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        start = [x.clone().requires_grad_() for x in objective.inputs]
        with objective.holding_statistics():
            objective(tuple(start)).total.backward()  # type: ignore[no-untyped-call]
        return tuple(x.detach() for x in start)


class MovesStatistics(Sound):
    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        objective(objective.inputs)
        return objective.inputs


class Thaws(Sound):
    """Lets all parameters train, those that stood too."""

    def attack(self, objective: Any, generator: Generator) -> Inputs:
        found = super().attack(objective, generator)
        objective.root.requires_grad_(True)
        return found


class TrainMode(Sound):
    def attack(self, objective: Any, generator: Generator) -> Inputs:
        found = super().attack(objective, generator)
        objective.root.train()
        return found


class InPlace(Sound):
    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple(x.mul_(0.5) for x in objective.inputs)


class AsksOfTheInputs(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        for x in objective.inputs:
            x.requires_grad_()
        return super().loss(objective, inputs, generator)


class GlobalDraw(Sound):
    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple((x + 0.1 * torch.rand_like(x)).clamp(0, 1) for x in objective.inputs)


class OwnGenerator(Told):
    own = torch.Generator()

    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x * torch.rand(x.shape, generator=self.own) for x in inputs)


class Momentum(Told):
    """Grows from step to step."""

    def __init__(self) -> None:
        self.steps = 0

    def changed(self, inputs: Inputs) -> Inputs:
        self.steps += 1
        return tuple(x * (1 - 0.1 / self.steps) for x in inputs)


class DetachedLoss(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return Loss(objective(inputs).value.detach())


class InfiniteLoss(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return Loss(objective(inputs).value / 0)


class BareLoss(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return objective(inputs).total  # type: ignore[return-value]


class DoubleLoss(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return Loss(objective(inputs).value.double())


class HeadsOnly(Sound):
    """Leaves the trunk untrained."""

    def loss(self, objective: Any, inputs: Inputs, generator: Generator) -> Loss:
        names = [name for name in objective.parameters() if name.startswith("trunk.")]
        fixed = {name: p.detach() for name, p in objective.parameters().items() if name in names}
        with objective.at(fixed):
            loss: Loss = objective(inputs)
        return loss


class GraphMetric(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        loss = objective(inputs)
        return Loss(loss.value, loss.logits, {"more": loss.value * 2}, loss.penalty)


class TermTwice(Sound):
    """The clean pass counts it too."""

    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        clean, attacked = objective(objective.inputs), objective(inputs)
        return Loss(clean.value + attacked.value, penalty=clean.penalty + attacked.penalty)


class TermDropped(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        return Loss(objective(inputs).value)


class TermInside(Sound):
    """Twice: in the value and beside it."""

    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        loss = objective(inputs)
        return Loss(loss.total, loss.logits, loss.metrics, loss.penalty)


class NeedsLogits(Sound):
    def loss(self, objective: Objective, inputs: Inputs, generator: Generator) -> Loss:
        loss = objective(inputs)
        return Loss(loss.value + loss.logits[0].square().mean(), penalty=loss.penalty)


class Float32Only(Sound):
    def loss(self, objective: Any, inputs: Inputs, generator: Generator) -> Loss:
        if objective.bf16:
            raise RuntimeError("expected Float but got BFloat16")
        return super().loss(objective, inputs, generator)


class FlatView(Sound):
    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple(x.view(-1).view(x.shape) for x in super().attack(objective, generator))


class CpuNoise(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x * torch.full(x.shape, 0.5) for x in inputs)


class DoubleInputs(Told):
    def changed(self, inputs: Inputs) -> Inputs:
        return tuple(x.double() for x in inputs)


class Carrying(Sound):
    """Trains on what :meth:`carry` gave before."""

    replays = 2

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        if not objective.carried:  # where it is validated
            return super().attack(objective, generator)
        return tuple((x + d).clamp(0, 1) for x, d in zip(objective.inputs, objective.carried, strict=True))

    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return tuple((d + 0.02 * g.sign()).clamp(-0.1, 0.1) for d, g in zip(objective.carried, gradients, strict=True))


class CarriesTheFirst(Carrying):
    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return super().carry(objective, inputs, gradients)[:1]


class CarriesNan(Carrying):
    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return tuple(g / g.abs() for g in map(torch.zeros_like, gradients))


class CarriesInPlace(Carrying):
    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return tuple(d.add_(g.sign(), alpha=0.02) for d, g in zip(objective.carried, gradients, strict=True))


class CarriesDraws(Carrying):
    def carry(self, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
        return tuple(torch.rand_like(g) for g in gradients)


class NoReplays(Carrying):
    replays = 0


class CarriedFarAway(Carrying):
    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        attacked, carried = super().attack(objective, generator), objective.carried
        return tuple(x + d for x, d in zip(attacked, carried, strict=True)) if carried else attacked


BROKEN = [
    (DoubleInputs, form, r"attack\(\) returns torch.float64 for torch.float32 with one task"),
    (
        FirstOnly,
        form,
        r"attack\(\) returns tensors of shapes \[(\(6, 3, 32, 32\))\] for objective.inputs of shapes \[\1, \1\]",
    ),
    (AsList, form, r"attack\(\) returns list \(Tensor of shape .*\); return a tuple of tensors"),
    (
        Copies,
        form,
        r"attack\(\) returns tensors of shapes \[\(12, 3, 32, 32\)\] for objective.inputs of shapes \[\(6, ",
    ),
    (WithGraph, form, r"attack\(\) returns an input with a graph with one task; return x.detach\(\)"),
    (NotFinite, form, r"attack\(\) returns an input that is not finite"),
    (Unclamped, bounded, r"attacked inputs have values from 0.\d+ to 1.\d+ with one task; clamp to \[0, 1\]"),
    (NegativeNoise, bounded, "noise is -1.0; give a standard deviation"),
    (Backward, as_found, r"attack\(\) changes the gradient of 'trunk.stages.0.weight' with one task; attack within"),
    (MovesStatistics, as_found, r"attack\(\) changes 'trunk.stages.1.running_mean' with one task"),
    (Thaws, as_found, "changes requires_grad of 'trunk.stages.0.weight' in fine-tuning, with a part of the network"),
    (TrainMode, as_found, "changes the mode of 'trunk.stages.0' in fine-tuning, with a part of the network"),
    (InPlace, clean_kept, r"objective.inputs are changed in place.* with one task; work on x.clone\(\)"),
    (AsksOfTheInputs, clean_kept, "or ask for a gradient"),
    (GlobalDraw, drawn, "draws from torch's global generator with one task; draw from the generator that is given"),
    (OwnGenerator, drawn, "attack or loss differ between two calls with the same generator with one task"),
    (Momentum, stateless, "a defense that was used before attacks otherwise than a new one; keep nothing on self"),
    (DetachedLoss, loss_reached, "the loss has no gradient with one task; was it detached"),
    (InfiniteLoss, loss_reached, "the loss is inf with one task"),
    (BareLoss, loss_reached, r"loss\(\) returns Tensor of shape \(\); return Loss\(value, logits, metrics\)"),
    (DoubleLoss, loss_reached, "Loss.value is torch.float64; give float32"),
    (HeadsOnly, loss_reached, "'trunk.stages.0.weight' gets no finite gradient with one task"),
    (GraphMetric, loss_reached, "metric 'more' has a gradient; give a scalar tensor without gradient"),
    (
        TermTwice,
        once,
        r"Loss.penalty is 1.4 where the diversity term is 0.7; return .* and call others with penalty=False",
    ),
    (TermDropped, once, "Loss.penalty is 0 where the diversity term is 0.7"),
    (TermInside, once, "Loss.value is another with the diversity term; .*build value from .value, not .total"),
    (NeedsLogits, no_logits, "it raised IndexError: tuple index out of range"),
    (Float32Only, layouts, "it raised RuntimeError: expected Float"),
    (FlatView, layouts, "it raised RuntimeError: view size is not compatible"),
    (
        CarriesTheFirst,
        carry,
        r"carry\(\) returns tensors of shapes .* for objective.inputs of shapes \[.*, .*\]",
    ),
    (CarriesNan, carry, r"what carry\(\) gives for input 0 is not finite with one task"),
    (CarriesInPlace, carry, r"carry\(\) changes objective.carried in place with one task; return new tensors"),
    (CarriesDraws, carry, r"carry\(\) gives another result for the same gradients with one task"),
    (NoReplays, carry, "replays is 0; give a whole number of at least 1"),
    (CarriedFarAway, bounded, r"attacked inputs have values from -0.\d+ to 1.\d+ with what was carried to it; clamp"),
    (CpuNoise, device, r"mul\(\) mixes a tensor on the run's device"),
]


class Noisy(Defense):
    """Leaves [0, 1] and says why."""

    name = "noisy"
    noise = 0.25

    def attack(self, objective: Objective, generator: Generator) -> Inputs:
        return tuple(torch.empty_like(x).normal_(0, 0.25, generator=generator).add_(x) for x in objective.inputs)


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("offered", [Sound, Noisy, Defense, Carrying])
def test_a_sound_defense_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    class Named(offered):  # type: ignore[misc]
        name = "named"

    assert ask(Named, fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed"
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.filterwarnings("error::UserWarning")
def test_inputs_with_a_graph_are_measured_without_a_warning(ask: Ask) -> None:
    assert ask(WithGraph, bounded).message == ""
