from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from advss.config import StageSettings
from advss.hookspecs import Loss, Objective
from advss.training.checkpoints import load_checkpoint
from advss.training.first_batch import check_runs, trial
from advss.training.signals import HEARD, Interrupted, StopRequest
from advss.training.trainer import Trainer
from advss.training.work import Work

SETTINGS = StageSettings(epochs=2, batch_size=8, lr=0.1, schedule="onecycle", ema=0.9)  # 4 steps an epoch
MakeWork = Callable[..., Work]
MakeTrainer = Callable[..., Trainer]


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR2, 140)]
)
def test_signal_is_noted_and_answered_at_the_next_check(number: signal.Signals, code: int) -> None:
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as interrupted:
            stop.check()
    assert interrupted.value.exit_code == code


def test_handlers_are_as_found_afterwards() -> None:
    before = [signal.getsignal(number) for number in HEARD]
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[HEARD.index(signal.SIGTERM)]
    assert [signal.getsignal(number) for number in HEARD] == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])  # nohup; a shell's background
def test_signal_that_is_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            stop.check()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("signals", "code"), [(("SIGINT", "SIGINT"), 130), (("SIGTERM", "SIGINT"), 130)])
def test_ctrl_c_after_a_first_request_exits_at_once(signals: tuple[str, str], code: int) -> None:
    program = f"""
import os, signal
from advss.training.signals import StopRequest
with StopRequest():
    for number in (signal.{signals[0]}, signal.{signals[1]}):
        os.kill(os.getpid(), number)
    print("still here")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (code, "")


def test_second_sigterm_is_patient() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


# ---------------------------------------------------------------- in the midst of a step
def asked_in(thing: Any, name: str, call: int, stop: StopRequest) -> None:
    """Let the request come at the end of a method's ``call``-th call, counted from 1."""
    method, calls = getattr(thing, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = method(*args, **kwargs)
        if calls == call:
            stop.number = signal.SIGTERM
        return result

    setattr(thing, name, wrapped)


def swallow(work: Work) -> None:
    """Let the defense swallow whatever is raised in its objective, and give another loss."""

    def loss(objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        try:
            return objective(inputs)
        except BaseException:
            return Loss(torch.stack([p.sum() for p in objective.parameters().values()]).sum())

    work.defense.loss = loss  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("method", "swallowed"),
    [("views", False), ("loss", False), ("views", True)],
    ids=["before the objective", "before the backward pass, buffers moved", "swallowed by a plugin"],
)
def test_stopped_in_a_step_and_resumed_is_uninterrupted(
    method: str, swallowed: bool, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    broken = make_work(SETTINGS)
    asked_in(broken.modules.members["brightness"], method, 6, broken.stop)
    if swallowed:
        swallow(broken)
    with pytest.raises(Interrupted):
        make_trainer(broken).run()
    resumed = make_work(SETTINGS)
    trainer = make_trainer(resumed)
    assert load_checkpoint(trainer.last).manifest["step"] == 5
    trainer.run()
    for left in trainer.last.parent.glob("*"):
        left.unlink()
    whole = make_work(SETTINGS)
    make_trainer(whole).run()
    ours, theirs = resumed.modules.named_state(), whole.modules.named_state()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_validation_whose_interruption_was_swallowed_chooses_no_epoch(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    work = make_work(SETTINGS)
    asked_in(work, "validate", 1, work.stop)
    trainer = make_trainer(work)
    with pytest.raises(Interrupted):
        trainer.run()
    assert not trainer.best.exists()
    assert load_checkpoint(trainer.last).manifest["step"] == 4


def test_heard_while_a_stage_is_tried_on_its_first_batch(make_work: MakeWork) -> None:
    work = make_work(SETTINGS)
    work.stop.number = signal.SIGTERM
    with pytest.raises(Interrupted):
        check_runs(work)
    with pytest.raises(Interrupted):
        trial(work, torch.channels_last)


def test_model_is_asked_at_each_forward_pass_within_only() -> None:
    stop, model = StopRequest(), torch.nn.Identity()
    with stop.asked_by(model):
        model(1)
        stop.number = signal.SIGTERM
        with pytest.raises(Interrupted):
            model(2)
    assert model(3) == 3
