"""The moving average of a stage's weights, of use from the first epoch on."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from advss.training.work import Modules


class MovingAverage:
    """A copy of a stage's modules that follows them: a ← w·a + (1 - w)·θ after optimiser step t, counted from 1.

    w is min(decay, (1 + t) / (10 + t)), so that a short stage, too, leaves its start behind. BatchNorm's statistics,
    which belong to the weights, are averaged alike; what else is in buffers, an average of which may mean nothing (a
    permutation's, say), is copied, and so is a parameter that a task has frozen.
    """

    def __init__(self, modules: Modules, decay: float) -> None:
        self.modules, self.decay = copy.deepcopy(modules), decay

    @torch.no_grad()
    def update(self, modules: Modules, *, step: int) -> None:
        """Take in what optimiser step ``step`` of the stage left in ``modules``."""
        weight = min(self.decay, (1 + step) / (10 + step))
        (own_means, own_rest), (means, rest) = _state(self.modules), _state(modules)
        torch._foreach_lerp_(own_means, means, 1 - weight)
        for kept, buffer in zip(own_rest, rest, strict=True):
            kept.copy_(buffer)


def _state(modules: Modules) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and BatchNorm's running statistics; and all other buffers, and the parameters that are frozen."""
    frozen = {id(p) for p in modules.frozen}
    norms = [m for m in modules.modules() if isinstance(m, _NormBase)]
    statistics = {id(b): b for norm in norms for b in norm.buffers(recurse=False) if b.is_floating_point()}
    rest = [*modules.frozen, *(b for b in modules.buffers() if id(b) not in statistics)]
    return [*(p.detach() for p in modules.parameters() if id(p) not in frozen), *statistics.values()], rest
