from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from advss.config import RunConfig
from advss.stages.fit import fit
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, torch.Tensor]]
Stop = Callable[[str, str, int], Reporter]

MOMENTS = (
    ("pretrain", "start", 0),
    ("pretrain", "step", 3),  # mid-epoch
    ("pretrain", "step", 4),  # between the epoch's last step and its validation
    ("pretrain", "epoch", 1),  # at an epoch's end
    ("finetune", "step", 2),
    ("finetune", "epoch", 1),
    ("finetune", "epoch", 2),
    ("evaluate pgd", "step", 20),
)
IN_PASSES = (  # of 4 steps, two an epoch
    ("pretrain", "step", 3),
    ("pretrain", "step", 4),  # between two passes of an epoch
    ("pretrain", "step", 7),
    ("pretrain", "step", 8),  # between the epoch's last step and its validation
    ("pretrain", "step", 14),
    ("finetune", "step", 6),
    ("finetune", "epoch", 1),
    ("finetune", "step", 12),
)
SAME = ("ta", "ra", "best_epoch", "best_epochs", "best_metrics", "epochs")  # of a run's result
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "jigsaw, SGD, one-cycle, moving average": (
        {"pretext": "jigsaw"},
        {"schedule": "onecycle", "ema": 0.9, "crop": 2},
    ),
    "selfie, AdamW, cosine with warm-up, partial": (
        {"pretext": "selfie", "finetune": "partial"},
        {"optimizer": "adamw", "lr": 0.003, "schedule": "cosine", "warmup_steps": 3, "ema": 0.5},
    ),
    "ensemble, nesterov, multistep, channels_last, bf16": (
        {
            "pretext": "rotation,selfie",
            "diversity": 0.1,
            "memory_format": "channels_last",
            "precision": "bf16",
            "finetune_defense": "none",
        },
        {"schedule": "multistep", "milestones": (1,), "nesterov": True, "flip": True},
    ),
}


def interrupted_everywhere(
    config: RunConfig, stop: Stop, moments: Sequence[tuple[str, str, int]] = MOMENTS
) -> dict[str, Any]:
    resume = False
    for moment in moments:
        with pytest.raises(Interrupted) as stopped:
            fit(config, resume=resume, reporter=stop(*moment))
        assert stopped.value.exit_code == 143
        resume = True
    return fit(config, resume=True, reporter=Silent())


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(
    case: str, settings: Settings, stopper: Stop, tensors: Tensors
) -> None:
    choices, stage = CASES[case]
    whole = settings(**choices, stage=stage | {"epochs": 2, "batch_size": 16}, name="whole")
    broken = replace(whole, name="broken")
    expected, found = fit(whole, reporter=Silent()), interrupted_everywhere(broken, stopper)
    assert_same_run(whole, broken, tensors)
    assert {key: found[key] for key in SAME} == {key: expected[key] for key in SAME}


def test_epochs_of_several_passes_resume_bit_for_bit(settings: Settings, stopper: Stop, tensors: Tensors) -> None:
    stage = {"epochs": 2, "batch_size": 16, "epoch_steps": 6, "schedule": "onecycle", "ema": 0.9, "crop": 2}
    whole = settings(stage=stage, name="whole")
    broken = replace(whole, name="broken")
    expected, found = fit(whole, reporter=Silent()), interrupted_everywhere(broken, stopper, IN_PASSES)
    assert_same_run(whole, broken, tensors)
    assert {key: found[key] for key in SAME} == {key: expected[key] for key in SAME}


def assert_same_run(one: RunConfig, other: RunConfig, tensors: Tensors) -> None:
    for stage in ("pretrain", "finetune"):
        for which in ("last", "best"):
            assert_equal(tensors(one, stage, which), tensors(other, stage, which))


def assert_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_same_seed_gives_the_same_bytes(settings: Settings) -> None:
    paths = []
    for name in ("one", "two"):
        config = settings(name=name)
        fit(config, reporter=Silent())
        paths.append(config.runs_dir / name / "finetune/best.safetensors")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_seed_gives_other_weights(settings: Settings, tensors: Tensors) -> None:
    heads = []
    for seed in (0, 1):
        config = settings("none", "none", seed=seed, name=f"run{seed}")
        fit(config, reporter=Silent())
        heads.append(tensors(config, "finetune", "best")["head.weight"])
    assert not torch.equal(*heads)
