"""The keywords of :func:`advss.fit` and :func:`advss.evaluate`, which editors complete and type checkers judge.

They are the flags, with underscores. A test holds this page equal to the settings there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

Component = str | Mapping[str, Any]  # a name, or {name: {option: value}}


class MeasuringKeywords(TypedDict, total=False):
    """What may be said of how a run is measured."""

    evaluate: Component | Sequence[Component]
    device: str
    eval_norm: Literal["linf", "l2", "l1"]
    eval_eps: float | None
    eval_step_size: float | None
    eval_steps: int
    eval_top_share: float | None
    eval_restarts: int
    eval_loss: Literal["ce", "margin", "dlr"]
    eval_limit: int
    eval_batch_size: int
    eval_precision: Literal["float32", "bf16"]


class Keywords(MeasuringKeywords, total=False):
    """What may be said of a run; :mod:`advss.config` says what each means."""

    config: str | Path | Sequence[str | Path]
    pretext: Component | Sequence[Component]
    defense: Component
    finetune: Component
    finetune_defense: Component
    data: Component
    pretrain_data: Component
    backbone: Component
    diversity: float
    diversity_in: Literal["both", "attack", "loss"]
    diversity_sign: Literal["plus", "minus"]
    diversity_every: int
    diversity_pixels: Literal["task", "image"]
    ensemble_loss: Literal["sum", "mean"]
    finetune_tail: str
    data_limit: int
    data_size: int
    data_resize: int
    pretrain_data_limit: int
    pretrain_data_size: int
    pretrain_data_resize: int
    seed: int
    split_seed: int | None
    name: str | None
    precision: Literal["auto", "float32", "bf16"]
    memory_format: Literal["auto", "contiguous", "channels_last"]
    runs_dir: str | Path
    checkpoint_minutes: float
    log_every: int
    tracking: bool
    pretrain_epochs: int
    pretrain_batch_size: int
    pretrain_epoch_steps: int
    pretrain_optimizer: Literal["sgd", "adamw"]
    pretrain_lr: float
    pretrain_momentum: float
    pretrain_nesterov: bool
    pretrain_weight_decay: float
    pretrain_schedule: Literal["cosine", "onecycle", "multistep", "constant"]
    pretrain_warmup_steps: int
    pretrain_warmup_lr: float
    pretrain_min_lr: float
    pretrain_milestones: Sequence[int]
    pretrain_clip: float
    pretrain_ema: float
    pretrain_crop: int
    pretrain_flip: bool
    pretrain_resized_crop: float
    finetune_epochs: int
    finetune_batch_size: int
    finetune_epoch_steps: int
    finetune_optimizer: Literal["sgd", "adamw"]
    finetune_lr: float
    finetune_momentum: float
    finetune_nesterov: bool
    finetune_weight_decay: float
    finetune_schedule: Literal["cosine", "onecycle", "multistep", "constant"]
    finetune_warmup_steps: int
    finetune_warmup_lr: float
    finetune_min_lr: float
    finetune_milestones: Sequence[int]
    finetune_clip: float
    finetune_ema: float
    finetune_crop: int
    finetune_flip: bool
    finetune_resized_crop: float
    eval_valid_steps: int
    eval_valid_limit: int
