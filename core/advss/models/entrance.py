"""What stands before a loaded model: images of another form, or in 0...255, are refused in one line.

Every answer to them would be wrong, and nothing else says so: a convolution takes any side, and float32 any range.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from advss.errors import UsageError
from advss.hookspecs import DataFacts, Encoder

Model = TypeVar("Model", bound=nn.Module)
LARGEST = 16.0  # noise, as smoothing adds it, leaves [0, 1] by a few units at most; images in 0...255 are far above


def guarded(model: Model) -> Model:
    """``model``, a classifier or features, with an :class:`Entrance` before it, made for the images of its encoder."""
    encoder = next(module for module in model.modules() if isinstance(module, Encoder))
    model.register_forward_pre_hook(Entrance(encoder.data))
    return model


class Entrance:
    """Looks at what a model is called with: at dtype and shape always, at the values on its first eager call.

    Values are not looked at where they are not known or would become part of a graph: while a model is exported, traced
    or compiled, in torch.func's transforms, and of tensors without data. A traced model's shapes are no numbers either.

    Args:
        data: the images that the model was made for.
    """

    def __init__(self, data: DataFacts) -> None:
        self.channels, self.side = data.channels, data.side
        self.looked = False

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Look at the first argument.

        Raises:
            UsageError: it is no batch of such images.
        """
        compiling = torch.compiler.is_compiling()
        if not given or (not compiling and torch._C._is_tracing()):
            return
        x = given[0]
        if not isinstance(x, Tensor):
            raise UsageError(f"{self._expected(torch.float32)}, got {type(x).__name__}")
        if tuple(x.shape[1:]) != (self.channels, self.side, self.side):
            raise UsageError(
                f"{self._expected(torch.float32)}, got {_short(x.dtype)} {tuple(x.shape)}{self._reshaped(x)}"
            )
        wanted = next((p.dtype for p in module.parameters()), torch.float32)
        if x.dtype != wanted and not (x.is_floating_point() and torch.is_autocast_enabled(x.device.type)):
            fix = f"; say x.to(torch.{_short(wanted)})" if x.is_floating_point() else "; say x.float() / 255"
            raise UsageError(f"{self._expected(wanted)}, got {_short(x.dtype)}{fix}")
        if not self.looked and not compiling and _has_values(x):
            if (x.detach() > LARGEST).any():
                raise UsageError(f"{self._expected(wanted)}, got values up to {float(x.max()):g}; say x / 255")
            self.looked = True

    def _expected(self, dtype: torch.dtype) -> str:
        shape = f"(B, {self.channels}, {self.side}, {self.side})"
        return f"the model takes {_short(dtype)} images {shape} in [0, 1]"

    def _reshaped(self, x: Tensor) -> str:
        """How to come to the right shape, where one can tell."""
        one = (self.channels, self.side, self.side)
        if tuple(x.shape) == one:
            return "; say x[None]"
        if tuple(x.shape[1:]) == (*one[1:], one[0]):
            return "; say x.permute(0, 3, 1, 2)"
        if x.ndim == len(one) + 1 and x.shape[1] == self.channels:
            return f"; resize to {self.side} x {self.side}"
        return ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _has_values(x: Tensor) -> bool:
    """Whether the values can be looked at: not in a transform or a graph's capture, nor of a fake or meta tensor."""
    plain = type(x) in (Tensor, nn.Parameter) and not x.is_meta
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return plain and not transformed and not (x.is_cuda and torch.cuda.is_current_stream_capturing())
