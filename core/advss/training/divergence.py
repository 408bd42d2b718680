"""When training has gone astray: which weights are good, and what is said where it cannot go on."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from advss.config import StageSettings
from advss.errors import UsageError
from advss.naming import as_typed
from advss.training.checkpoints import back_to_good, has_checkpoint
from advss.training.work import Metrics


class DivergedError(UsageError):
    """Training cannot go on: what is in memory is not worth saving."""


def all_finite(modules: nn.Module, kept: nn.Module, optimizer: Optimizer) -> bool:
    """Whether the weights that train, those that are kept and the optimiser's state are finite.

    Buffers are left to the validation loss: a mask of minus infinities may be one.
    """
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    held = [*modules.parameters(), *kept.parameters(), *states]
    # one by one: AdamW counts its steps on the CPU wherever the weights are
    return all(bool(tensor.detach().isfinite().all()) for tensor in held)


def losses_finite(validated: Metrics) -> bool:
    """Whether every loss among the metrics of a validation is finite: of exploded weights it is not."""
    return all(math.isfinite(value) for name, value in validated.items() if name.rpartition("/")[2] == "loss")


def not_chosen(stage: str, epoch: int, *, kept: bool) -> str:
    """The warning of an epoch that is not good; ``kept`` where a good one came before it."""
    line = f"advss: warning: weights or validation loss of {stage} epoch {epoch} are not finite; it cannot be chosen"
    return f"{line}, and the good checkpoint before it is kept" if kept else line


def diverged(what: str, *, stage: str, settings: StageSettings, last: Path) -> DivergedError:
    """The error that ends a stage, once ``last`` holds the last good checkpoint again, where there is one."""
    run, good = last.parent.parent, back_to_good(last)
    cure = f"a lower --{stage}-lr" + ("" if settings.clip else f" or with --{stage}-clip 5")
    encoder = stage == "finetune" and has_checkpoint(run / "pretrain/best.safetensors")
    again = f"advss finetune --from {as_typed(run)} starts again from its encoder" if encoder else "start again"
    if good is None:
        return DivergedError(f"{what}; no epoch of {stage} was good; {again}, with {cure}")
    on = f"--resume {as_typed(run)} tries on"
    kept = f"the last good weights, of epoch {good['progress']['epoch']}, are in {last}, and {on}"
    return DivergedError(f"{what}; {kept}; {again}, with {cure}")
