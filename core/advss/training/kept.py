"""What moves while something is tried, and is put back where it is broken off."""

from __future__ import annotations

import torch
from torch import Tensor

from advss.training.work import Modules


class Kept:
    """Buffers, which forward passes may move, and what hooks may move beside them, as they stood before it is tried."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._buffers = [buffer.clone() for buffer in modules.buffers()]
        self._frozen: list[Tensor] = []  # as they stood before a hook; a step does not move them until it is done
        self.trying = False

    def keep(self, *, frozen: bool = False) -> None:
        """Something is tried from here on, which may move frozen parameters, too."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, list(self._modules.buffers()))
        self._frozen = [p.detach().clone() for p in self._modules.frozen] if frozen else []
        self.trying = True

    def put_back(self) -> None:
        """Forget what was tried, where it was not done."""
        if self.trying and self._buffers:
            torch._foreach_copy_(list(self._modules.buffers()), self._buffers)
        if self.trying and self._frozen:
            torch._foreach_copy_([p.detach() for p in self._modules.frozen], self._frozen)
        self.done()

    def done(self) -> None:
        """What was tried stands."""
        self.trying, self._frozen = False, []
