"""What the parts of a configuration must be together, each of them right by itself."""

from __future__ import annotations

from advss.config import RunConfig
from advss.errors import UsageError, did_you_mean


def check_together(config: RunConfig) -> None:
    """Raise UsageError where one part of a configuration asks for another one than it has."""
    _check_evaluations(config)
    said = ", ".join(member.key for member in config.pretext) or "none"
    if config.diversity and len(config.pretext) < 2:
        raise UsageError(f"--diversity {config.diversity} needs two or more pretext tasks, got --pretext {said}")
    for name in ("in", "sign", "every", "pixels"):
        value = getattr(config, f"diversity_{name}")
        if not config.diversity and value != getattr(RunConfig, f"diversity_{name}"):
            raise UsageError(f"--diversity-{name} {value} has no effect with --diversity 0; give --diversity 0.1, say")
    if config.pretrain_data and not config.pretraining.epochs:
        none = "--pretrain-epochs 0" if config.pretext else "--pretext none"
        raise UsageError(f"--pretrain-data {config.pretrain_data.name}: nothing is pretrained by {none}")
    for name in ("limit", "size", "resize"):
        if (said_of := getattr(config, f"pretrain_data_{name}")) and not config.pretrain_data:
            raise UsageError(f"--pretrain-data.{name} {said_of}: no --pretrain-data is chosen")
    tails = ["auto", *(["fresh"] if config.pretext or config.start else []), *(member.key for member in config.pretext)]
    if config.finetune_tail not in tails:
        hint = did_you_mean(config.finetune_tail, tails)
        raise UsageError(f"--finetune-tail {config.finetune_tail} is no task of --pretext {said}{hint}")


def _check_evaluations(config: RunConfig) -> None:
    for place, one in enumerate(config.evaluate):
        if (one.name, one.options) in [(other.name, other.options) for other in config.evaluate[:place]]:
            raise UsageError(f"--evaluate {one.name},{one.name}: both are the same; --{one.key}.OPTION is the second's")
