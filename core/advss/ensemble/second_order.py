"""Batch normalisation with a fast second derivative: most of what the diversity term adds to a step is spent there.

The term is made of input gradients, so an attack and a training step differentiate through a backward pass. PyTorch
does that for batch normalisation by some twenty elementwise operations; the derivative below needs one fused kernel,
one reduction and one linear combination.

With N the values of a channel, x̂ = (x - mean)·r, r = 1/std and P(h) = h - mean(h) - x̂·mean(h·x̂), the backward pass is
dx = γ·r·P(dy). For a gradient v of dx, as P is symmetric,

    d(dy) = γ·r·P(v),    dγ = N·r·q,    d(x) = -γ·r²·[mean(dy·x̂)·P(v) + mean(v·x̂)·P(dy) + q·x̂],    q = mean(v·P(dy)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Gradients = tuple[Tensor | None, ...]


class FastSecondOrder(TorchFunctionMode):
    """Within this context, batch normalisation by the batch's own statistics has the fast second derivative."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace ``F.batch_norm``, and leave every other function alone."""
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    out: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    return out


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, invstd = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        x, weight, mean, invstd = ctx.saved_tensors
        dx, dweight, dbias = _Backward.apply(dy, x, weight, mean, invstd, ctx.eps)
        return dx, dweight if ctx.needs_input_grad[1] else None, dbias if ctx.needs_input_grad[2] else None, *[None] * 4


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dx, dweight, dbias = _fused(dy, x, weight, mean, invstd, eps)
        ctx.save_for_backward(dy, x, weight, mean, invstd, dx, dweight, dbias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return dx, dweight, dbias

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor | None, vweight: Tensor | None, vbias: Tensor | None) -> Gradients:
        dy, x, weight, mean, invstd, dx, dweight, dbias = ctx.saved_tensors
        grad_dy, grad_x, grad_weight = torch.zeros_like(dy), torch.zeros_like(x), None
        if v is not None:
            grad_dy, v_x, v_1 = _fused(v, x, weight, mean, invstd, ctx.eps)  # Σ v·x̂ and Σ v a channel
            count = x.numel() // x.shape[1]
            sums = (v * dy).sum([d for d in range(x.ndim) if d != 1], dtype=mean.dtype)
            q = (sums - v_1 * dbias / count - v_x * dweight / count) / count
            grad_weight = None if weight is None else (count * invstd * q).to(weight.dtype)
            slope = -(invstd**3) * q * (1 if weight is None else weight)
            grad_x = _affine(x, slope, -slope * mean)
            grad_x.addcmul_(grad_dy, _channels(-invstd * dweight / count, x))
            grad_x.addcmul_(dx, _channels(-invstd * v_x / count, x))
        if vweight is not None:
            grad_dy = grad_dy + _affine(x, vweight * invstd, -vweight * invstd * mean)
            grad_x = grad_x + _fused(dy * _channels(vweight, dy), x, None, mean, invstd, ctx.eps)[0]
        if vbias is not None:
            grad_dy = grad_dy + _channels(vbias, dy)
        return grad_dy, grad_x, grad_weight, None, None, None


def _fused(
    dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """γ·r·P(dy), Σ dy·x̂ and Σ dy, the sums a channel."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        dy, x, weight, None, None, mean, invstd, True, eps, [True, True, True]
    )
    return found


def _channels(values_C: Tensor, like: Tensor) -> Tensor:
    return values_C.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))


def _affine(x: Tensor, slope_C: Tensor, offset_C: Tensor) -> Tensor:
    return torch.addcmul(_channels(offset_C, x), x, _channels(slope_C, x))
