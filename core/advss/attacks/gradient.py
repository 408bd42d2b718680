"""Projected gradient ascent (Madry et al. 2018; the paper's section 3.1) over any number of inputs at once.

A norm is three small methods: where to start, how to step, how to come back into the ball. Iterates, the start too,
stay in the ball and in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

Norm = Literal["linf", "l2"]
Criterion = Callable[[tuple[Tensor, ...]], Tensor]


class _Ball(Protocol):
    def start(self, generator: Generator) -> Tensor: ...
    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor: ...


class _LinfBall:
    """max |δ| ≤ eps: its meet with [0, 1] is a box, so projecting is one clamp."""

    def __init__(self, clean: Tensor, eps: float) -> None:
        self.clean, self.eps = clean, eps
        self.low, self.high = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)

    def start(self, generator: Generator) -> Tensor:
        noise = torch.empty_like(self.clean).uniform_(-self.eps, self.eps, generator=generator)
        return noise.add_(self.clean).clamp_(0, 1).clamp_(self.low, self.high)

    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        return torch.add(x, gradient.sign(), alpha=step_size).clamp_(self.low, self.high)


class _L2Ball:
    """‖δ‖₂ ≤ eps an image. Clamping to [0, 1] afterwards only shortens δ, since the clean image lies inside."""

    def __init__(self, clean: Tensor, eps: float) -> None:
        self.clean, self.eps = clean, eps

    def start(self, generator: Generator) -> Tensor:
        direction = torch.empty_like(self.clean).normal_(generator=generator)
        radius = torch.empty(len(direction), device=direction.device).uniform_(0, 1, generator=generator)
        dimensions = math.prod(direction.shape[1:])
        return self._inside(
            self.clean + _unit(direction) * _per_image(self.eps * radius ** (1 / dimensions), direction)
        )

    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        return self._inside(x + step_size * _unit(gradient))

    def _inside(self, x: Tensor) -> Tensor:
        delta = x - self.clean
        shrink = (self.eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1)
        return (self.clean + delta * _per_image(shrink, delta)).clamp_(0, 1)


def _per_image(values_B: Tensor, like: Tensor) -> Tensor:
    return values_B.view(-1, *[1] * (like.ndim - 1))


def _unit(x: Tensor) -> Tensor:
    return x / _per_image(x.flatten(1).norm(dim=1).clamp_min(1e-12), x)


def maximise(
    criterion: Criterion,
    clean: tuple[Tensor, ...],
    generator: Generator,
    *,
    eps: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    random_start: bool = True,
) -> tuple[Tensor, ...]:
    """Inputs near ``clean`` at which ``criterion`` is large, found by ``steps`` projected gradient steps.

    Args:
        criterion: from as many inputs as ``clean`` to a scalar.
        clean: tensors (B, ...) in [0, 1]; each image has a ball of its own.
        generator: of the random start, on the inputs' device.
        eps: radius of the ball, pixels in [0, 1].
        step_size: length of a step in the same unit.
        steps: number of gradient steps.
        norm: ``linf`` (steps along the gradient's sign) or ``l2`` (along the unit gradient).
        random_start: start uniformly in the ball, else at ``clean``.

    Returns:
        Detached tensors, shaped as ``clean``. An input without influence on the criterion stays where it started.
    """
    make: type[_LinfBall] | type[_L2Ball] = _LinfBall if norm == "linf" else _L2Ball
    balls: list[_Ball] = [make(x.detach(), eps) for x in clean]
    inputs = [ball.start(generator) if random_start else x.detach() for ball, x in zip(balls, clean, strict=True)]
    for _ in range(steps):
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            gradients = torch.autograd.grad(criterion(tuple(inputs)), inputs, allow_unused=True)
        with torch.no_grad():
            inputs = [
                x if g is None else ball.ascend(x, g, step_size)
                for ball, x, g in zip(balls, inputs, gradients, strict=True)
            ]
    return tuple(x.detach() for x in inputs)
