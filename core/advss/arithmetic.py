"""How a network's passes are computed: in which precision and which memory layout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Arithmetic:
    """Of the passes of a stage, in training and in its validation.

    Attributes:
        bf16: they run under bfloat16 autocast, with weights and inputs in float32.
        memory_format: layout of the images.
    """

    bf16: bool = False
    memory_format: torch.memory_format = torch.contiguous_format


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """Within, passes run in bfloat16 where that is asked for."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


class Computed(nn.Module):
    """A classifier whose passes are computed as ``arithmetic`` says; its logits (B, K) are float32 or wider.

    The images (B, C, H, W) are brought into the layout here, so that what an attack draws hangs on none.
    """

    def __init__(self, model: nn.Module, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.model, self.arithmetic = model, arithmetic

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits of images."""
        with autocast(x_BCHW.device, bf16=self.arithmetic.bf16):
            logits_BK: Tensor = self.model(x_BCHW.contiguous(memory_format=self.arithmetic.memory_format))
        return logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
