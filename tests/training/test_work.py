from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from advss.config import StageSettings
from advss.errors import UsageError
from advss.hookspecs import Phase
from advss.training.work import Work, set_trainable

PLAIN = StageSettings(epochs=8, batch_size=8)
MakeWork = Callable[..., Work]


@pytest.mark.parametrize(
    ("shares", "starts"),
    [((1.0,), [0, 8]), ((0.5, 0.5), [0, 4, 8]), ((1, 1, 2), [0, 2, 4, 8]), ((3.0, 1.0), [0, 6, 8])],
)
def test_shares_of_phases_become_epochs(shares: tuple[float, ...], starts: list[int], make_work: MakeWork) -> None:
    work = make_work(PLAIN, phases=lambda modules: [Phase(share, []) for share in shares])
    assert work.phase_starts() == starts


@pytest.mark.parametrize(("epochs", "idle"), [(8, []), (1, [0]), (0, [])])
def test_a_phase_that_is_rounded_to_no_epoch_is_known(epochs: int, idle: list[int], make_work: MakeWork) -> None:
    work = make_work(replace(PLAIN, epochs=epochs), phases=lambda modules: [Phase(0.3, []), Phase(0.7, [])])
    assert work.idle_phases() == idle


def test_names_in_a_checkpoint_say_encoder_and_task(make_work: MakeWork) -> None:
    names = make_work(PLAIN).modules.named_state()
    assert {"encoder.0.weight", "encoder.1.running_var", "tasks.brightness.head.bias"} <= set(names)


def test_state_that_lacks_a_key_is_refused_and_nothing_is_loaded(make_work: MakeWork) -> None:
    modules = make_work(PLAIN).modules
    state = {name: torch.ones_like(tensor) for name, tensor in modules.named_state().items()}
    state["encoder.0.wieght"] = state.pop("encoder.0.weight")
    with pytest.raises(UsageError, match=r"encoder\.0\.weight.*encoder\.0\.wieght"):
        modules.load_named_state(state, what="x.safetensors")
    assert not torch.equal(modules.named_state()["encoder.0.bias"], torch.ones(4))


def test_subtree_without_trainable_parameters_stands_in_eval_mode() -> None:
    frozen = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    learning = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())
    whole = nn.Sequential(frozen, learning)
    set_trainable(whole, Phase(1.0, [{"params": list(learning.parameters())}]))
    assert not any(module.training for module in frozen.modules())
    assert all(module.training for module in learning.modules())
    assert [p.requires_grad for p in whole.parameters()] == [False] * 4 + [True] * 2


def test_next_phase_wakes_what_stood() -> None:
    whole = nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 2))
    set_trainable(whole, Phase(1.0, [{"params": list(whole[1].parameters())}]))
    set_trainable(whole, Phase(1.0, [{"params": list(whole.parameters())}]))
    assert whole[0].training
    assert all(p.requires_grad for p in whole.parameters())


def test_an_objective_knows_how_far_its_stage_is(make_work: MakeWork) -> None:
    work = make_work(PLAIN)
    assert work.objective(work.loader.batch(0, 0, progress=0.25), step=0).progress == 0.25


@pytest.mark.parametrize("precision", ["bf16", "channels_last"])
def test_other_arithmetic_comes_close_to_float32(precision: str, make_work: MakeWork) -> None:
    more = {"bf16": True} if precision == "bf16" else {"memory_format": torch.channels_last}
    losses = []
    for options in ({}, more):
        work = make_work(replace(PLAIN, batch_size=32), **options)
        work.modules.to(memory_format=work.memory_format)
        objective = work.objective(work.loader.batch(0, 0, progress=0.0), step=0)
        loss = objective(objective.inputs).total
        loss.backward()  # type: ignore[no-untyped-call]
        weight = work.modules.trunk.get_parameter("0.weight")
        assert weight.grad is not None
        losses.append((float(loss.detach()), weight.grad))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2e-2 if precision == "bf16" else 1e-5)
    similarity = torch.cosine_similarity(losses[0][1].flatten(), losses[1][1].flatten(), dim=0)
    assert float(similarity) > 0.98
