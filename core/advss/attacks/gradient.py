"""Projected gradient ascent (Madry et al. 2018; the paper's section 3.1) over any number of inputs at once.

A norm is three small methods: a point drawn uniformly, how to step, how to come back into the ball. Iterates, the
start too, stay in the ball and in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

from advss.attacks.threat import Threat

Start = Literal["uniform", "gaussian", "none"]
GAUSSIAN_START = 0.001  # standard deviation, pixels in [0, 1], as in TRADES (Zhang et al. 2019)
Criterion = Callable[[tuple[Tensor, ...]], Tensor]


class _Ball(Protocol):
    def uniform(self, generator: Generator) -> Tensor: ...
    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor: ...
    def inside(self, x: Tensor) -> Tensor: ...  # may overwrite x


class _LinfBall:
    """max |δ| ≤ eps: its meet with [0, 1] is a box, so projecting is one clamp."""

    def __init__(self, clean: Tensor, eps: float) -> None:
        self.clean, self.eps = clean, eps
        self.low, self.high = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)

    def uniform(self, generator: Generator) -> Tensor:
        noise = torch.empty_like(self.clean).uniform_(-self.eps, self.eps, generator=generator)
        return self.inside(noise.add_(self.clean))

    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        return self.inside(torch.add(x, gradient.sign(), alpha=step_size))  # the sign of nan is 0

    def inside(self, x: Tensor) -> Tensor:
        return x.clamp_(self.low, self.high)


class _L2Ball:
    """‖δ‖₂ ≤ eps an image. Clamping to [0, 1] afterwards only shortens δ, since the clean image lies inside."""

    def __init__(self, clean: Tensor, eps: float) -> None:
        self.clean, self.eps = clean, eps

    def uniform(self, generator: Generator) -> Tensor:
        direction = torch.empty_like(self.clean).normal_(generator=generator)
        radius = torch.empty(len(direction), device=direction.device).uniform_(0, 1, generator=generator)
        dimensions = math.prod(direction.shape[1:])
        return self.inside(self.clean + _unit(direction) * _per_image(self.eps * radius ** (1 / dimensions), direction))

    def ascend(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        return self.inside(x + step_size * _unit(gradient))

    def inside(self, x: Tensor) -> Tensor:
        delta = x - self.clean
        shrink = (self.eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1)
        return (self.clean + delta * _per_image(shrink, delta)).clamp_(0, 1)


def _per_image(values_B: Tensor, like: Tensor) -> Tensor:
    return values_B.view(-1, *[1] * (like.ndim - 1))


def _unit(x: Tensor) -> Tensor:
    """Each image's vector at length 1; 0 where it is 0 or has no finite length."""
    length_B = x.flatten(1).norm(dim=1)
    return (x / _per_image(length_B.clamp_min(1e-12), x)).where(_per_image(length_B.isfinite(), x), 0)


def _start(ball: _Ball, clean: Tensor, start: Start, generator: Generator) -> Tensor:
    if start == "none":
        return clean
    if start == "uniform":
        return ball.uniform(generator)
    return ball.inside(torch.empty_like(clean).normal_(0, GAUSSIAN_START, generator=generator).add_(clean))


def maximise(
    criterion: Criterion,
    clean: tuple[Tensor, ...],
    generator: Generator,
    threat: Threat,
    *,
    start: Start = "uniform",
) -> tuple[Tensor, ...]:
    """Inputs near ``clean`` at which ``criterion`` is large, found by projected gradient steps.

    Args:
        criterion: from as many inputs as ``clean`` to a scalar.
        clean: tensors (B, ...) in [0, 1]; each image has a ball of its own.
        generator: of the start, on the inputs' device.
        threat: the ball, and number and length of the steps: along the gradient's sign in ``linf``, along the unit
            gradient in ``l2``.
        start: ``uniform`` in the ball; ``gaussian``, at ``clean`` + 0.001·N(0, 1) brought back into ball and [0, 1];
            ``none``, at ``clean``.

    Returns:
        Detached tensors, shaped as ``clean``. An input without influence on the criterion stays where it started; what
        has no direction, in ``linf`` a pixel whose gradient is nan, in ``l2`` an image whose gradient is not finite,
        stays where it is for that step.
    """
    make: type[_LinfBall] | type[_L2Ball] = _LinfBall if threat.norm == "linf" else _L2Ball
    balls: list[_Ball] = [make(x.detach(), threat.eps) for x in clean]
    inputs = [_start(ball, x.detach(), start, generator) for ball, x in zip(balls, clean, strict=True)]
    for _ in range(threat.steps):
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            gradients = torch.autograd.grad(criterion(tuple(inputs)), inputs, allow_unused=True)
        with torch.no_grad():
            inputs = [
                x if g is None else ball.ascend(x, g, threat.step_size)
                for ball, x, g in zip(balls, inputs, gradients, strict=True)
            ]
    return tuple(x.detach() for x in inputs)
