"""Several steps on a batch, and what a defense carries from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.config import StageSettings
from advss.errors import UsageError
from advss.hookspecs import Defense, Loss, Objective
from advss.training.checkpoints import load_checkpoint
from advss.training.first_batch import check_runs
from advss.training.signals import Interrupted, StopRequest
from advss.training.trainer import Trainer
from advss.training.work import Work

PLAIN = StageSettings(epochs=2, batch_size=8, lr=0.1, schedule="constant", ema=0.9)
MakeWork = Callable[..., Work]
MakeTrainer = Callable[..., Trainer]
Seen = tuple[Tensor, ...]


class Carrying(Defense):
    """Trains on what it carries, added to the inputs: a tenth of the sign of the last gradient. Keeps all it saw."""

    name = "carrying"

    def __init__(self, replays: int = 3, *, stop: StopRequest | None = None, stop_at: int = -1, gives: Any = None):
        self.replays, self.stop, self.stop_at, self.gives = replays, stop, stop_at, gives
        self.clean, self.had, self.draws = list[Tensor](), list[Seen](), list[float]()
        self.gradients, self.expected, self.gave = list[Tensor](), list[Tensor](), list[Tensor]()

    def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
        self.clean.append(objective.inputs[0].clone())
        self.had.append(objective.carried)
        self.draws.append(float(torch.rand((), generator=generator)))
        return tuple((x + d).clamp(0, 1) for x, d in zip(objective.inputs, objective.carried, strict=True))

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        again = inputs[0].detach().clone().requires_grad_()
        with objective.holding_statistics():
            self.expected += torch.autograd.grad(2 * objective((again,)).total, again)
        loss = objective(inputs)
        return Loss(2 * loss.value)

    def carry(
        self, objective: Objective, inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        self.gradients += gradients
        self.gave.append(0.1 * gradients[0].sign())
        if self.stop is not None and len(self.gave) == self.stop_at:
            self.stop.number = 15
        return (self.gave[-1],) if self.gives is None else self.gives


def trained(
    make_work: MakeWork, make_trainer: MakeTrainer, defense: Carrying, bad: list[int] | None = None
) -> tuple[Trainer, Carrying]:
    work = replace(make_work(PLAIN, bad=bad or []), defense=defense, stop=defense.stop or StopRequest())
    trainer = make_trainer(work)
    trainer.run()
    return trainer, defense


def test_each_batch_has_its_steps_in_a_row_on_the_same_views(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer, defense = trained(make_work, make_trainer, Carrying(3))
    assert len(defense.clean) == 3 * 4 * 2
    assert int(trainer.work.modules.named_state()["tasks.brightness.steps"]) == 24  # after_step, after each
    for batch in range(8):
        one, *others = defense.clean[3 * batch : 3 * batch + 3]
        assert all(torch.equal(one, other) for other in others)
        assert not any(torch.equal(one, other) for other in defense.clean[3 * batch + 3 :])
    assert len(set(defense.draws)) == 24  # what is drawn is drawn anew


def test_what_is_carried_begins_at_0_and_goes_from_step_to_step_and_batch_to_batch(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    _, defense = trained(make_work, make_trainer, Carrying(2))
    assert torch.equal(defense.had[0][0], torch.zeros(8, 3, 8, 8))
    assert all(torch.equal(had[0], gave) for had, gave in zip(defense.had[1:], defense.gave[:-1], strict=True))


def test_the_gradients_are_those_of_the_training_loss_at_what_was_trained_on(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    _, defense = trained(make_work, make_trainer, Carrying(2))
    assert defense.gradients[3].abs().amax() > 0
    for found, expected in zip(defense.gradients, defense.expected, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5, 12])  # the third is the last of its batch, the twelfth of its epoch
def test_stopped_between_two_steps_of_a_batch_and_resumed_is_bit_for_bit(
    stop_at: int, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    whole, _ = trained(make_work, make_trainer, Carrying(3))
    expected = load_checkpoint(whole.last)
    whole.last.unlink()
    whole.last.with_suffix(".json").unlink()
    with pytest.raises(Interrupted):
        trained(make_work, make_trainer, Carrying(3, stop=StopRequest(), stop_at=stop_at))
    stopped = load_checkpoint(whole.last)
    assert (stopped.manifest["progress"]["batch"], stopped.manifest["progress"]["replay"]) == divmod(stop_at, 3)
    found = load_checkpoint(trained(make_work, make_trainer, Carrying(3))[0].last)
    assert expected.tensors.keys() == found.tensors.keys()
    assert "carried.0" in found.tensors
    assert all(torch.equal(t, found.tensors[name]) for name, t in expected.tensors.items())


def test_a_step_that_is_skipped_leaves_what_is_carried_and_its_batch(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    trainer, defense = trained(make_work, make_trainer, Carrying(3), bad=[4])
    assert trainer.progress.skipped == 1
    assert torch.equal(defense.had[4][0], defense.gave[3])
    assert torch.equal(defense.had[5][0], defense.gave[3])  # not what came of a loss that is nan
    assert not torch.equal(defense.clean[4], defense.clean[5])
    assert len(defense.clean) == 24 - 1
    assert trainer.progress.updates == 24 - 2


def test_a_defense_that_carries_nothing_is_handed_nothing(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    handed = []

    class Plain(Defense):
        replays = 2

        def attack(self, objective: Objective, generator: Generator) -> tuple[Tensor, ...]:
            handed.append((objective.carried, objective.inputs[0].requires_grad))
            return objective.inputs

    trainer = make_trainer(replace(make_work(PLAIN), defense=Plain()))
    trainer.run()
    assert handed == [((), False)] * 16
    assert not [name for name in load_checkpoint(trainer.last).tensors if name.startswith("carried")]


@pytest.mark.parametrize(
    ("replays", "gives", "said"),
    [
        (1, torch.zeros(8), r"carrying: carry\(\) returns Tensor of shape \(8,\); return a tuple of tensors, one for"),
        (1, (torch.zeros(8),), r"carry\(\) returns tensors of shapes \[\(8,\)\] for objective.inputs of shapes"),
        (0, None, "replays is 0; give a whole number of at least 1"),
        (2.0, None, r"replays is 2\.0; give a whole number of at least 1"),
    ],
    ids=str,
)
def test_what_is_not_of_its_form_is_one_line_before_training(
    replays: int, gives: Any, said: str, make_work: MakeWork
) -> None:
    with pytest.raises(UsageError, match=said) as error:
        check_runs(replace(make_work(PLAIN), defense=Carrying(replays, gives=gives)))
    assert "\n" not in str(error.value)
