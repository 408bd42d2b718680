"""What one run is told: plain values, no torch, equal whether it comes from flags, YAML or Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "bf16"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]


@dataclass(frozen=True)
class Choice:
    """A component by name with its options: a plugin, a data source or a backbone.

    ``key`` tells members apart ("selfie", "selfie#2"); ``name`` is what was asked for, ``options`` what was said.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class StageSettings:
    """Optimisation of one stage; on the command line each has the prefix ``--pretrain-`` or ``--finetune-``."""

    epochs: int  # passes over the training part; 0 skips the stage
    batch_size: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1  # peak learning rate
    momentum: float = 0.9  # of SGD
    nesterov: bool = False
    weight_decay: float = 3e-4
    schedule: Literal["cosine", "onecycle", "multistep", "constant"] = "cosine"
    warmup_steps: int = 0  # optimiser steps of linear warm-up (cosine, multistep, constant)
    warmup_lr: float = 0.01  # learning rate at the first warm-up step
    min_lr: float = 0.0  # learning rate at the end of the cosine
    milestones: tuple[int, ...] = ()  # epochs at which multistep multiplies the learning rate by 0.1
    clip: float = 0.0  # largest norm of the gradient; 0 does not clip
    ema: float = 0.0  # decay of the moving average of the weights that is validated and kept; 0 keeps the weights
    crop: int = 0  # padding in pixels of the random crop; 0 does not crop
    flip: bool = False  # horizontal flips


@dataclass(frozen=True)
class EvalSettings:
    """The attack that measures RA; flags ``--eval-...``."""

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255  # radius of the ball, pixels in [0, 1]
    step_size: float = 2 / 255
    steps: int = 20
    restarts: int = 1
    limit: int = 0  # attack a seeded, class-balanced subset of this many test images; 0 takes all
    batch_size: int = 256  # images at once; halved when memory runs out
    valid_steps: int = 10  # steps of the attack on the validation images after each epoch


@dataclass(frozen=True)
class RunConfig:
    """One run, resolved."""

    pretext: tuple[Choice, ...]  # none: P1
    defense: Choice
    finetune: Choice
    finetune_defense: Choice
    data: Choice
    backbone: Choice
    pretraining: StageSettings
    finetuning: StageSettings
    evaluation: EvalSettings = EvalSettings()
    diversity: float = 0.0  # weight of the diversity term of an ensemble, eq. (4)
    limit: int = 0  # --data.limit: keep that many training and at most that many test images; 0 keeps all
    seed: int = 0
    name: str | None = None  # of the run; made from the date and the choices when absent
    precision: Precision = "float32"
    device: str = "auto"  # cuda when there is one, else cpu
    memory_format: MemoryFormat = "auto"
    runs_dir: Path = Path("runs")
    checkpoint_minutes: float = 10.0  # minutes between checkpoints within an epoch
    log_every: int = 10  # optimiser steps between logged training metrics
    tracking: bool = True  # send the journal to MLflow
