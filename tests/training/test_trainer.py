from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from advss.config import StageSettings
from advss.errors import UsageError
from advss.hookspecs import Phase
from advss.training.checkpoints import load_checkpoint
from advss.training.optimisation import pack_optimizer
from advss.training.reporting import Silent
from advss.training.signals import Interrupted, StopRequest
from advss.training.trainer import Trainer
from advss.training.work import Modules, Work

PLAIN = StageSettings(epochs=2, batch_size=8, lr=0.1, schedule="constant")
MakeWork = Callable[..., Work]
MakeTrainer = Callable[..., Trainer]
State = dict[str, Tensor]


class Recorder(Silent):
    """Keeps what a trainer says, and the state of its modules after every step that counted."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.states: dict[int, State] = {}
        self.metrics: list[Mapping[str, float]] = []
        self.lines: list[str] = []

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        self.states[step] = copy.deepcopy(self.modules.named_state())
        self.metrics.append(metrics)

    def say(self, line: str) -> None:
        self.lines.append(line)


def trained(work: Work, make_trainer: MakeTrainer) -> tuple[Trainer, Recorder]:
    recorder = Recorder(work.modules)
    trainer = make_trainer(work, reporter=recorder)
    trainer.run()
    return trainer, recorder


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- non-finite losses
def test_step_with_a_nan_loss_changes_nothing(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    settings = replace(PLAIN, optimizer="adamw", ema=0.9)
    trainer, after = trained_until(make_work(settings, bad=[3]), make_trainer, steps=4)
    good, before = trained_until(make_work(settings), make_trainer, steps=3)
    assert trainer.progress.skipped == 1
    assert same(after, before)
    assert same(trainer._kept_modules().named_state(), good._kept_modules().named_state())
    assert same(pack_optimizer(trainer.optimizer)[0], pack_optimizer(good.optimizer)[0])


def test_training_goes_on_after_a_nan_loss(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    _, recorder = trained(make_work(PLAIN, bad=[3]), make_trainer)
    assert sorted(recorder.states) == [1, 2, 3, 5, 6, 7, 8]
    assert not same(recorder.states[3], recorder.states[5])


def trained_until(work: Work, make_trainer: MakeTrainer, *, steps: int) -> tuple[Trainer, State]:
    """What the first ``steps`` steps come to, on a trainer that keeps no checkpoint."""
    trainer = make_trainer(work)
    trainer._enter_phase()
    for _ in range(steps):
        trainer._train_step()
    return trainer, work.modules.named_state()


def test_nan_leaves_buffers_and_moving_average_finite(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    work = make_work(replace(PLAIN, ema=0.9), bad=[0, 1, 5])
    trainer, _ = trained(work, make_trainer)
    assert all(t.isfinite().all() for t in load_checkpoint(trainer.last).tensors.values())


def test_skipped_step_is_said_in_one_line(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    _, recorder = trained(make_work(PLAIN, bad=[2]), make_trainer)
    assert recorder.lines == ["advss: warning: loss is not finite at pretrain step 2; step skipped"]


def test_two_in_a_row_and_two_more_do_not_stop(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer, _ = trained(make_work(PLAIN, bad=[1, 2, 4, 5]), make_trainer)
    assert trainer.progress.epoch == 2


# ---------------------------------------------------------------- clipping, moving average
def test_norm_of_the_gradient_is_clipped(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    settings = replace(PLAIN, epochs=1, clip=1e-3, momentum=0.0, weight_decay=0.0)
    start = copy.deepcopy(make_work(settings).modules.state_dict())
    work = make_work(settings)
    _, _ = trained_until(work, make_trainer, steps=1)
    moved = torch.cat([(p - start[name]).flatten() for name, p in work.modules.named_parameters()])
    assert float(moved.detach().norm()) == pytest.approx(0.1 * 1e-3, rel=1e-2)  # lr times the largest norm


def test_gradient_norm_is_reported_unclipped(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    _, clipped = trained(make_work(replace(PLAIN, epochs=1, clip=1e-3)), make_trainer)
    assert clipped.metrics[0]["gradient_norm"] > 1e-2


@pytest.mark.parametrize("name", ["encoder.0.weight", "encoder.1.running_mean", "encoder.1.running_var"])
def test_moving_average_of_weights_and_statistics_is_the_recursion(
    name: str, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    work = make_work(replace(PLAIN, ema=0.42), bad=[2])  # of 8 steps one is skipped; 0.42 is reached at t = 6
    by_hand = work.modules.named_state()[name].double()
    trainer, recorder = trained(work, make_trainer)
    states = [recorder.states[step][name].double() for step in sorted(recorder.states)]
    for weight, state in zip((2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.42, 0.42), states, strict=True):
        by_hand = weight * by_hand + (1 - weight) * state
    kept = load_checkpoint(trainer.last).tensors["average." + name]
    assert torch.allclose(kept.double(), by_hand, rtol=1e-5, atol=1e-7)


def test_other_buffers_are_copied_to_the_average(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer, _ = trained(make_work(replace(PLAIN, epochs=1, ema=0.7)), make_trainer)
    assert int(load_checkpoint(trainer.best).tensors["tasks.brightness.steps"]) == 4


# ---------------------------------------------------------------- phases
def head_then_all(modules: Modules) -> list[Phase]:
    """As linear probing then fine-tuning: the head alone, then everything with a slower trunk."""
    head = list(modules.members.parameters())
    return [
        Phase(0.5, [{"params": head}]),
        Phase(0.5, [{"params": head}, {"params": list(modules.trunk.parameters()), "lr_scale": 0.1}]),
    ]


def test_trunk_stands_in_the_first_phase_and_trains_in_the_second(
    make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    work = make_work(PLAIN, phases=head_then_all)
    start = copy.deepcopy(work.modules.named_state())
    _, recorder = trained(work, make_trainer)
    trunk = [name for name in start if name.startswith("encoder.")]
    assert all(torch.equal(start[name], recorder.states[4][name]) for name in trunk)
    assert not any(torch.equal(start[name], recorder.states[5][name]) for name in trunk)
    assert not torch.equal(start["tasks.brightness.head.weight"], recorder.states[1]["tasks.brightness.head.weight"])


def test_schedule_begins_anew_in_each_phase(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trainer, _ = trained(make_work(replace(PLAIN, schedule="cosine"), phases=head_then_all), make_trainer)
    rate = 0.1 * (1 + 2**-0.5) / 2  # the last of 4 steps: cos(3/4 π) = -1/√2
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 - rate)
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(0.1 * (0.1 - rate))


class StopAt(Silent):
    """Asks a stop request for an end after a step."""

    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.at = stop, step

    def step(self, *, step: int, images: int, metrics: Mapping[str, float]) -> None:
        if step == self.at:
            self.stop.number = 15


@pytest.mark.parametrize("step", [2, 4, 6, 8])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_in_either_phase_is_uninterrupted(
    optimizer: str, step: int, make_work: MakeWork, make_trainer: MakeTrainer
) -> None:
    settings = replace(PLAIN, schedule="onecycle", optimizer=optimizer)  # type: ignore[arg-type]
    stop = StopRequest()
    with pytest.raises(Interrupted):
        make_trainer(make_work(settings, phases=head_then_all, stop=stop), reporter=StopAt(stop, step)).run()
    resumed = make_work(settings, phases=head_then_all)
    trainer = make_trainer(resumed)
    trainer.run()
    trainer.last.unlink()
    trainer.last.with_suffix(".json").unlink()
    for left in trainer.last.parent.glob("*"):
        left.unlink()
    whole = make_work(settings, phases=head_then_all)
    make_trainer(whole).run()
    assert same(resumed.modules.named_state(), whole.modules.named_state())


# ---------------------------------------------------------------- which epoch is best
SCORES: dict[str, tuple[list[tuple[float, ...]], int]] = {
    "the greatest": ([(0.1,), (0.4,), (0.3,)], 2),
    "the earliest of equals": ([(0.1,), (0.4,), (0.4,)], 2),
    "the second part breaks ties": ([(0.4, 0.5), (0.4, 0.7), (0.3, 0.9)], 2),
    "not a number is least": ([(float("nan"),), (0.1,), (float("nan"),)], 2),
}


@pytest.mark.parametrize("name", SCORES)
def test_best_epoch_is(name: str, make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    scores, best = SCORES[name]
    work = make_work(replace(PLAIN, epochs=3), scores=scores)
    trainer, recorder = trained(work, make_trainer)
    assert trainer.progress.best_epoch == best
    kept = load_checkpoint(trainer.best)
    assert kept.manifest["epoch"] == best
    assert same(kept.tensors, recorder.states[4 * best])


def test_best_epoch_survives_a_kill_before_the_last_checkpoint(
    make_work: MakeWork, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def killed(self: Trainer, *, good: bool = False) -> None:
        raise KilledError

    work = make_work(PLAIN, scores=[(0.5,)])
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_last", killed)
        with pytest.raises(KilledError):
            make_trainer(work).run()
    trainer = make_trainer(make_work(PLAIN, scores=[(0.5,), (0.4,)]))
    # a checkpoint within epoch 1 is what the next start finds
    trainer._save_last()
    resumed = make_trainer(make_work(PLAIN, scores=[(0.5,), (0.4,)]))
    assert resumed.run().best_epoch == 1


# ---------------------------------------------------------------- resuming what does not belong
def test_checkpoint_of_another_model_is_named(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trained(make_work(replace(PLAIN, epochs=1), manifest={"kind": "pretrain", "model": "a"}), make_trainer)
    other = make_work(replace(PLAIN, epochs=2), manifest={"kind": "pretrain", "model": "b"})
    with pytest.raises(UsageError, match="is of another model: a, not b"):
        make_trainer(other).run()


def test_finished_stage_trains_no_further(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    trained(make_work(PLAIN), make_trainer)
    again = make_work(PLAIN)
    _, recorder = trained(again, make_trainer)
    assert recorder.states == {}


def test_parameters_without_gradient_stand(make_work: MakeWork, make_trainer: MakeTrainer) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

    work = make_work(replace(PLAIN, epochs=1))
    unused = Unused()
    work.modules.trunk.add_module("unused", unused)
    work.modules.trunk.forward = lambda x: work.modules.trunk[1](work.modules.trunk[0](x))  # type: ignore[index]
    work.phases[0] = Phase(1.0, [{"params": list(work.modules.parameters())}])
    trained(work, make_trainer)
    assert torch.equal(unused.weight, torch.ones(3))
