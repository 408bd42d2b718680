"""Projected gradient ascent (Madry et al. 2018; the paper's section 3.1) over any number of inputs at once.

Iterates, the start too, stay in the ball and in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from advss.attacks.balls import Ball, around, by_image
from advss.attacks.threat import Threat

Start = Literal["uniform", "gaussian", "none"]
GAUSSIAN_START = 0.001  # standard deviation, pixels in [0, 1], as in TRADES (Zhang et al. 2019)
Criterion = Callable[[tuple[Tensor, ...]], Tensor | tuple[Tensor, Tensor]]


def maximise(
    criterion: Criterion,
    clean: tuple[Tensor, ...],
    generator: Generator,
    threat: Threat,
    *,
    start: Start = "uniform",
    eps: Tensor | None = None,
    ball: Callable[[Tensor], Ball] | None = None,
) -> tuple[Tensor, ...]:
    """Inputs near ``clean`` at which ``criterion`` is large, found by projected gradient steps.

    Args:
        criterion: from as many inputs as ``clean`` to a scalar; or to that and which images stop (B,), bool: row b of
            all inputs stays for good where it was when b stopped. The attack is over when all have.
        clean: tensors (B, ...) in [0, 1]; each image has a ball of its own.
        generator: of the start, on the inputs' device.
        threat: the ball, and number and length of the steps: along the gradient's sign in ``linf``, along the unit
            gradient in ``l2``, along the coordinates of largest gradient in ``l1``.
        start: ``uniform`` in the ball; ``gaussian``, at ``clean`` + 0.001·N(0, 1) brought back into ball and [0, 1];
            ``none``, at ``clean``.
        eps: radius of each image's ball (B,), in place of the threat's.
        ball: makes the ball around an input in place of the threat's, of which the number of steps alone is left.

    Returns:
        Detached tensors, shaped as ``clean``. An input without influence on the criterion stays where it started; what
        has no direction, in ``linf`` and ``l1`` a pixel whose gradient is nan, in ``l2`` an image whose gradient is not
        finite, stays where it is for that step.

    Raises:
        ValueError: ``eps``, or what stops, is not one value an image.
    """
    balls = [ball(x.detach()) if ball else around(x.detach(), threat, eps) for x in clean]
    inputs = [_start(own, x.detach(), start, generator) for own, x in zip(balls, clean, strict=True)]
    stopped_B: Tensor | None = None
    for _ in range(threat.steps):
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            value, stop_B = _asked(criterion, tuple(inputs))
        if stop_B is not None:
            stopped_B = stop_B if stopped_B is None else stopped_B | stop_B
            if stopped_B.all():
                break
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
        with torch.no_grad():
            moved = [x if g is None else own.ascend(x, g) for own, x, g in zip(balls, inputs, gradients, strict=True)]
            inputs = moved if stopped_B is None else _held(inputs, moved, stopped_B)
    return tuple(x.detach() for x in inputs)


def _start(ball: Ball, clean: Tensor, start: Start, generator: Generator) -> Tensor:
    if start == "none":
        return clean.clone()
    if start == "uniform":
        return ball.start(generator)
    return ball.inside(torch.empty_like(clean).normal_(0, GAUSSIAN_START, generator=generator).add_(clean))


def _asked(criterion: Criterion, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """What the criterion says: its value, and which images stop, where it says so."""
    said = criterion(inputs)
    if isinstance(said, Tensor):
        return said, None
    value, stop_B = said
    return value, stop_B.bool()


def _held(inputs: list[Tensor], moved: list[Tensor], stopped_B: Tensor) -> list[Tensor]:
    """``moved``, but for the images that have stopped."""
    return [x.where(by_image(stopped_B, x), new) for x, new in zip(inputs, moved, strict=True)]
