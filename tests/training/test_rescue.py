"""What raises in the middle of training costs nothing: the state before the step is saved, and resuming is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from advss.config import StageSettings
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Silent
from advss.training.trainer import Trainer
from advss.training.work import Work

PLAIN = StageSettings(epochs=2, batch_size=8, lr=0.1, schedule="onecycle", ema=0.9)  # 4 steps an epoch
MakeWork = Callable[..., Work]
MakeTrainer = Callable[..., Trainer]
State = dict[str, Tensor]


class Lines(Silent):
    """Keeps what a trainer says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


class BoomError(Exception):
    """What a plugin raises."""


def break_(thing: Any, name: str, call: int, error: BaseException | None = None) -> None:
    """Let a method raise, its work done, when it is called for the ``call``-th time, counted from 1."""
    method, calls = getattr(thing, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = method(*args, **kwargs)
        if calls == call:
            raise error or BoomError
        return result

    setattr(thing, name, wrapped)


def task_of(work: Work) -> Any:
    return work.modules.members["brightness"]


MISHAPS: dict[str, tuple[Callable[[Work], Any], str, int, int]] = {  # whose method, at which call, after which step
    "views": (task_of, "views", 6, 5),
    "loss": (task_of, "loss", 6, 5),
    "attack": (lambda work: work.defense, "attack", 6, 5),
    "data": (lambda work: work.loader, "batch", 6, 5),
    "validation": (lambda work: work, "validate", 1, 4),
}


@pytest.mark.parametrize("what", MISHAPS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_after_an_exception_is_uninterrupted(
    what: str, optimizer: str, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    settings = replace(PLAIN, optimizer=optimizer)  # type: ignore[arg-type]
    broken, lines, (whose, name, call, step) = make_work(settings), Lines(), MISHAPS[what]
    break_(whose(broken), name, call)
    with pytest.raises(BoomError):
        make_trainer(broken, reporter=lines, log_every=100).run()
    resumed = make_work(settings)
    trainer = make_trainer(resumed)
    assert load_checkpoint(trainer.last).manifest["step"] == step
    run = trainer.last.parent.parent
    end = f"all that was learned is saved, and --resume {run} goes on from there"
    assert lines.said == [f"advss: pretrain stopped after step {step}; {end}"]
    trainer.run()
    for left in trainer.last.parent.glob("*"):
        left.unlink()
    whole = make_work(settings)
    unbroken = make_trainer(whole)
    unbroken.run()
    assert same(resumed.modules.named_state(), whole.modules.named_state())
    assert same(trainer._kept_modules().named_state(), unbroken._kept_modules().named_state())
    assert trainer.progress.best_metrics == unbroken.progress.best_metrics


def test_a_plugin_that_exits_costs_nothing_either(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    work = make_work(PLAIN)
    break_(task_of(work), "loss", 6, SystemExit(3))
    trainer = make_trainer(work)
    with pytest.raises(SystemExit):
        trainer.run()
    assert load_checkpoint(trainer.last).manifest["step"] == 5


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_half_done_is_not_saved(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    work, lines = make_work(PLAIN), Lines()
    break_(task_of(work), "after_step", 6)
    trainer = make_trainer(work, reporter=lines)
    with pytest.raises(BoomError):
        trainer.run()
    assert load_checkpoint(trainer.last).manifest["step"] == 4  # the end of the epoch before
    assert lines.said == []


def test_where_nothing_was_learned_nothing_is_saved(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    work, lines = make_work(PLAIN), Lines()
    break_(task_of(work), "loss", 1)
    trainer = make_trainer(work, reporter=lines)
    with pytest.raises(BoomError):
        trainer.run()
    assert not trainer.last.exists()
    assert lines.said == []


def test_what_stops_the_saving_does_not_hide_what_stopped_the_training(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    work, lines = make_work(PLAIN), Lines()
    break_(task_of(work), "loss", 6)
    trainer = make_trainer(work, reporter=lines)
    break_(trainer, "_save_last", 2, OSError(28, "No space left on device"))
    with pytest.raises(BoomError):
        trainer.run()
    assert lines.said == []
