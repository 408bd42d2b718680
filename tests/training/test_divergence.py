"""After a divergence the last good weights are on disk, and what is said of them is true."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advss.config import StageSettings
from advss.errors import UsageError
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest
from advss.training.trainer import Trainer
from advss.training.work import Work

PLAIN = StageSettings(epochs=3, batch_size=8, lr=0.1, schedule="constant")  # 4 steps an epoch
EVERY_STEP = {"checkpoint_minutes": 0.0}
MakeWork = Callable[..., Work]
MakeTrainer = Callable[..., Trainer]


class Lines(Silent):
    """Keeps what a trainer says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def exploding(work: Work, *, step: int, factor: float = 1e30) -> Work:
    """``work``, whose weights are multiplied after optimiser step ``step`` and whose losses are NaN from there on."""
    task: Any = work.modules.members["brightness"]
    after_step = task.after_step

    def explode(*given: Any) -> None:
        after_step(*given)
        if int(task.steps) == step:
            task.bad = set(range(1000))
            for parameter in work.modules.parameters():
                parameter.mul_(factor)

    task.after_step = explode
    return work


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_last_good_weights_are_where_the_message_says(
    ema: float, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    """Weights explode after step 5 of 4 an epoch and are saved at each step; the three after it are not finite."""
    whole = make_trainer(make_work(replace(PLAIN, epochs=1, ema=ema)))
    whole.run()
    good = load_checkpoint(whole.last).tensors
    for left in whole.last.parent.glob("*"):
        left.unlink()
    trainer = make_trainer(exploding(make_work(replace(PLAIN, ema=ema)), step=5), **EVERY_STEP)
    line = (
        f"the last good weights, of epoch 1, are in {trainer.last}, and --resume {trainer.last.parent.parent} tries on"
    )
    with pytest.raises(UsageError, match=re.escape(line + "; start again, with a lower --pretrain-lr or with ")):
        trainer.run()
    assert same(load_checkpoint(trainer.last).tensors, good)


def test_resuming_after_a_divergence_goes_on_from_the_good_weights(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(UsageError, match="3 non-finite losses in a row at pretrain step 7"):
        make_trainer(exploding(make_work(PLAIN), step=5), **EVERY_STEP).run()
    resumed = make_work(PLAIN)
    trainer = make_trainer(resumed)
    trainer.run()
    for left in trainer.last.parent.glob("*"):
        left.unlink()
    whole = make_work(PLAIN)
    make_trainer(whole).run()
    assert same(resumed.modules.named_state(), whole.modules.named_state())


def test_a_divergence_before_any_good_epoch_leaves_nothing(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(make_work(replace(PLAIN, clip=1.0), bad=range(1, 100)))
    with pytest.raises(UsageError, match=r"no epoch of pretrain was good; start again, with a lower --pretrain-lr$"):
        trainer.run()
    assert list(trainer.last.parent.iterdir()) == []


class StopAfter(Lines):
    """Asks for an end after an epoch."""

    def __init__(self, stop: StopRequest, epoch: int) -> None:
        super().__init__()
        self.stop, self.at = stop, epoch

    def epoch(self, *, epoch: int, epochs: int, metrics: Any) -> None:
        if epoch == self.at:
            self.stop.number = 15


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_checkpoint_of_non_finite_validation_loss_leaves_the_good_one_before_it(
    bad: float, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    stop = StopRequest()
    work = make_work(PLAIN, losses=[1.0, bad, bad], scores=[(0.1,), (0.2,), (0.3,)], stop=stop)
    trainer = make_trainer(work, reporter=(lines := StopAfter(stop, 3)), **EVERY_STEP)
    trainer.run()
    previous = trainer.last.with_name("last.previous.safetensors")
    epochs = [load_checkpoint(path).manifest["progress"]["epoch"] for path in (trainer.last, previous)]
    assert epochs == [3, 1]
    assert load_checkpoint(trainer.best).manifest["epoch"] == trainer.progress.best_epoch == 1
    said = "advss: warning: weights or validation loss of pretrain epoch 2 are not finite; it cannot be chosen"
    assert lines.said[0] == f"{said}, and the good checkpoint before it is kept"


def test_weights_that_are_not_finite_are_never_the_best(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    """They are so after the last step of epoch 2, on a validation that sees nothing of it."""
    work = exploding(make_work(replace(PLAIN, epochs=2), scores=[(0.1,), (0.2,)]), step=8, factor=math.inf)
    trainer = make_trainer(work, reporter=Lines())
    trainer.run()
    assert load_checkpoint(trainer.best).manifest["epoch"] == trainer.progress.best_epoch == 1


def test_a_stage_without_a_good_epoch_is_an_error(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(make_work(PLAIN, losses=[math.nan] * 3), reporter=(lines := Lines()))
    with pytest.raises(UsageError, match="no epoch of pretrain had finite weights and a finite validation loss"):
        trainer.run()
    assert lines.said[0].endswith("validation loss of pretrain epoch 1 are not finite; it cannot be chosen")
    assert not Path(trainer.best).exists()


def test_an_end_in_a_bad_stretch_is_gone_on_with_as_it_was(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    losses, stop = [1.0, math.nan, 1.0], StopRequest()
    with pytest.raises(Interrupted):
        make_trainer(make_work(PLAIN, losses=losses, stop=stop), reporter=StopAfter(stop, 2)).run()
    resumed = make_work(PLAIN)
    trainer = make_trainer(resumed)
    trainer.run()
    for left in trainer.last.parent.glob("*"):
        left.unlink()
    whole = make_work(PLAIN, losses=losses)
    make_trainer(whole, reporter=Lines()).run()
    assert same(resumed.modules.named_state(), whole.modules.named_state())
