"""What moves while something is tried, and is put back where it is broken off."""

from __future__ import annotations

import torch
from torch import Tensor

from advss.training.work import Modules


class Kept:
    """Buffers and frozen parameters, which forward passes and hooks may move, as they stood before what is tried."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._before = [t.detach().clone() for t in self._movable()]
        self.trying = False

    def keep(self) -> None:
        """Something is tried from here on."""
        if self._before:
            torch._foreach_copy_(self._before, self._movable())
        self.trying = True

    def put_back(self) -> None:
        """Forget what was tried, where it was not done."""
        if self.trying and self._before:
            torch._foreach_copy_(self._movable(), self._before)
        self.trying = False

    def done(self) -> None:
        """What was tried stands."""
        self.trying = False

    def _movable(self) -> list[Tensor]:
        return [*self._modules.buffers(), *(p.detach() for p in self._modules.frozen)]
