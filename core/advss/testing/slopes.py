"""The slope of a task's loss along its inputs: what its gradient says, and what differences of its values say.

Methods stop gradients on purpose, such as SimSiam's of the other view. :class:`Stopped` holds such parts fixed while
values are taken, so that what is left must agree with the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

STEPS = (1e-3, 2e-4, 4e-3)  # of a pixel; one is right, since kinks ask for short steps and float32 for long ones
DIRECTIONS = 8
CLOSE = 0.02, 0.2  # so near, along the signs and across, that no other step need be tried
LEAST = 1e-6  # of the loss: a smaller change is float32's
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Slopes:
    """Changes of a loss in several directions: what the gradient says of them, and what its values say."""

    told: Tensor
    found: Tensor

    @property
    def apart(self) -> float:
        """Their distance, as a share of the larger."""
        largest = max(float(self.told.norm()), float(self.found.norm()))
        return float((self.told - self.found).norm()) / largest if largest else 0.0

    @property
    def scale(self) -> float:
        """The multiple of what the gradient says that comes nearest to the values."""
        square = float(self.told.square().sum())
        return float((self.told * self.found).sum()) / square if square else 0.0

    def scaled(self) -> Slopes:
        """Were the gradient of the right length."""
        return Slopes(self.scale * self.told, self.found)


def slopes(loss: Loss, x: Tensor, generator: Generator, *, stopped: bool = False) -> tuple[Slopes, Slopes]:
    """Along the gradient's signs, in parts of some images, and along random signs.

    The former are large and exact, and show a gradient of another length or sign; what points elsewhere shows in the
    latter alone, which are small beside kinks and float32's rounding.

    Args:
        loss: of an input; it draws the same at each call.
        x: where.
        generator: of the directions.
        stopped: hold fixed what is computed without a gradient.
    """
    mode = Stopped() if stopped else None
    here = x.detach().clone().requires_grad_()
    value = _within(mode, loss, here)
    (gradient,) = torch.autograd.grad(value, here, materialize_grads=True)
    along, across = [], []
    for _ in range(DIRECTIONS):
        parts = torch.rand(x.shape, generator=generator) < torch.rand(len(x), *[1] * (x.ndim - 1), generator=generator)
        along.append(gradient.sign() * parts)
        across.append(torch.empty_like(x).uniform_(-1, 1, generator=generator).sign())
    least = LEAST * (1 + abs(float(value.detach())))
    taken = partial(_at_best, partial(_within, mode, loss), x.detach(), gradient, least=least)
    return taken(along, close=CLOSE[0]), taken(across, close=CLOSE[1])


def _at_best(loss: Loss, x: Tensor, gradient: Tensor, ways: list[Tensor], *, least: float, close: float) -> Slopes:
    """At the step at which gradient and values agree best, or ``close``; nothing where the loss hardly changes."""
    told, best = torch.stack([(gradient.double() * way).sum() for way in ways]), None
    for step in STEPS if gradient.any() else ():
        ends = [(loss(_moved(x, step * way)), loss(_moved(x, -step * way))) for way in ways]
        found = torch.stack([up.detach().double() - down.detach().double() for up, down in ends])
        now = Slopes(2 * step * told, found)
        if max(float(now.told.norm()), float(found.norm())) > least and (best is None or now.apart < best.apart):
            best = now
        if best is not None and best.apart < close:
            break
    return best or Slopes(torch.zeros(1), torch.zeros(1))


def _moved(x: Tensor, by: Tensor) -> Tensor:
    return (x + by).requires_grad_()  # as at the first call, so that the loss takes the same way


def _within(mode: Stopped | None, loss: Loss, x: Tensor) -> Tensor:
    if mode is None:
        return loss(x)
    mode.place = 0
    with mode:
        return loss(x)


class Stopped(TorchFunctionMode):
    """From the second call on, all that is computed without a gradient is what it was in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.place = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute it, and where it has no gradient give what it was at first."""
        out = func(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and not _stops(func):
            return out
        leaves, form = tree_flatten(out)
        return tree_unflatten([self._as_at_first(leaf, written=args[:1]) for leaf in leaves], form)

    def _as_at_first(self, leaf: Any, *, written: tuple[Any, ...]) -> Any:
        if not isinstance(leaf, Tensor | float | int):
            return leaf
        if self.place == len(self.kept):
            self.kept.append(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf)
        first = self.kept[self.place]
        self.place += 1
        if any(leaf is t for t in written) and isinstance(leaf, Tensor):  # in place
            with torch.no_grad():
                return leaf.copy_(first)
        return first.clone() if isinstance(first, Tensor) else first


STOPS = {torch.Tensor.detach, torch.detach, torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__}


def _stops(func: Callable[..., Any]) -> bool:
    return func in STOPS or getattr(getattr(func, "__self__", None), "__name__", "") == "data"
