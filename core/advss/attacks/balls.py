"""Where an attacker may move an input to: ℓ∞, ℓ2 and ℓ1 balls cut by [0, 1], each an image's own.

Radius and step are numbers or tensors (B,), one an image. Letters: B images, D values of one.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Generator, Tensor

from advss.attacks.threat import Threat

Length = float | Tensor


class Ball(Protocol):
    """All that :func:`advss.attacks.maximise` asks of a set around one input, whose rows are images.

    Tensors are of the input's shape; each row keeps to a set of its own, within [0, 1].
    """

    def start(self, generator: Generator) -> Tensor:
        """A point of the set, drawn with ``generator``."""

    def ascend(self, x: Tensor, gradient: Tensor) -> Tensor:
        """A point of the set one step on from ``x``; without a direction, where ``gradient`` is 0 or nan, ``x``."""

    def inside(self, x: Tensor) -> Tensor:
        """The point of the set nearest to ``x``, which may be overwritten."""


class _Around:
    def __init__(self, clean: Tensor, eps: Length, step_size: Length) -> None:
        self.clean, self.eps = clean, eps
        self.radius, self.step = _by_image(eps, clean), _by_image(step_size, clean)


class Linf(_Around):
    """max |δ| ≤ eps: its meet with [0, 1] is a box, so projecting is one clamp; steps go along the gradient's sign."""

    def __init__(self, clean: Tensor, eps: Length, step_size: Length) -> None:
        super().__init__(clean, eps, step_size)
        self.low, self.high = (clean - self.radius).clamp_(min=0), (clean + self.radius).clamp_(max=1)

    def start(self, generator: Generator) -> Tensor:
        """Uniform in the ball, then clamped."""
        noise = torch.empty_like(self.clean)
        if isinstance(self.eps, Tensor):
            noise.uniform_(-1, 1, generator=generator).mul_(self.radius)
        else:
            noise.uniform_(-self.eps, self.eps, generator=generator)
        return self.inside(noise.add_(self.clean))

    def ascend(self, x: Tensor, gradient: Tensor) -> Tensor:
        """A pixel whose gradient is nan stays."""
        return self.inside(x + self.step * gradient.sign())  # of nan it is 0

    def inside(self, x: Tensor) -> Tensor:
        """Clamped to the box."""
        return x.clamp_(self.low, self.high)


class L2(_Around):
    """‖δ‖₂ ≤ eps. Clamping afterwards only shortens δ, since the clean image lies inside; steps are unit gradients."""

    def start(self, generator: Generator) -> Tensor:
        """Uniform in the ball, then brought into [0, 1]."""
        direction = torch.empty_like(self.clean).normal_(generator=generator)
        radius_B = torch.empty(len(direction), device=direction.device).uniform_(0, 1, generator=generator)
        radius_B = self.eps * radius_B ** (1 / math.prod(direction.shape[1:]))
        return self.inside(self.clean + unit(direction) * by_image(radius_B, direction))

    def ascend(self, x: Tensor, gradient: Tensor) -> Tensor:
        """An image whose gradient is not finite stays."""
        return self.inside(x + self.step * unit(gradient).nan_to_num_(0))

    def inside(self, x: Tensor) -> Tensor:
        """Shortened to the radius, then clamped."""
        delta = x - self.clean
        shrink_B = (self.eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1)
        return (self.clean + delta * by_image(shrink_B, delta)).clamp_(0, 1)


class L1(_Around):
    """‖δ‖₁ ≤ eps, with steps along the coordinates of the largest gradient: SLIDE (Tramèr and Boneh 2019).

    The steepest ascent moves one coordinate alone; a step here is shared equally by the ``top_share`` of them whose
    gradient is largest, of those that [0, 1] lets move.
    """

    def __init__(self, clean: Tensor, eps: Length, step_size: Length, *, top_share: float = 0.01) -> None:
        super().__init__(clean, eps, step_size)
        self.count = max(1, round(top_share * math.prod(clean.shape[1:])))

    def start(self, generator: Generator) -> Tensor:
        """Uniform in the ball, by exponential deviates over their sum and one more's; then brought into [0, 1]."""
        size = torch.empty_like(self.clean).exponential_(generator=generator)
        total_B = size.flatten(1).sum(1)
        total_B = total_B + torch.empty_like(total_B).exponential_(generator=generator)
        sign = torch.empty_like(size).uniform_(-1, 1, generator=generator).sign_()
        return self.inside(self.clean + sign * size * by_image(self.eps / total_B, size))

    def ascend(self, x: Tensor, gradient: Tensor) -> Tensor:
        """A coordinate whose gradient is nan stays, and one that [0, 1] holds."""
        held = torch.where(gradient > 0, x >= 1, x <= 0) | gradient.isnan()
        free_BD = gradient.masked_fill(held, 0).flatten(1)
        largest = free_BD.abs().topk(self.count, dim=1).indices
        way_BD = torch.zeros_like(free_BD).scatter(1, largest, free_BD.gather(1, largest).sign())
        way_BD = way_BD / way_BD.abs().sum(1, keepdim=True).clamp_min(1)
        return self.inside(x + self.step * way_BD.view(x.shape))

    def inside(self, x: Tensor) -> Tensor:
        """The nearest point of ball *and* box: each |δ| less a threshold, but at most its room up to 0 or 1.

        Clamping after a projection onto the ball alone gives another, worse point.
        """
        delta = x - self.clean
        size, room = delta.abs(), torch.where(delta > 0, 1 - self.clean, self.clean)
        least_B = threshold(size.flatten(1), room.flatten(1), self.eps)
        nearest = (size - by_image(least_B, size)).clamp_min_(0).minimum(room)
        return (self.clean + delta.sign() * nearest).clamp_(0, 1)


def around(clean: Tensor, threat: Threat, eps: Tensor | None = None) -> Linf | L2 | L1:
    """The threat's ball around an input, with radii of each image's own where they are said."""
    radius: Length = threat.eps if eps is None else eps
    if threat.top_share is not None:  # of l1, which alone has it
        return L1(clean, radius, threat.step_size, top_share=threat.top_share)
    return (Linf if threat.norm == "linf" else L2)(clean, radius, threat.step_size)


def threshold(size_BD: Tensor, room_BD: Tensor, eps: Length) -> Tensor:
    """The λ ≥ 0 (B,) at which Σ min(max(size - λ, 0), room) is ``eps``; 0 where it is no more than that at 0.

    From above, the sum is linear between corners: at λ = ``size`` a coordinate begins to grow, at ``size - room`` it
    has reached its room. So one sort finds the piece that λ lies on.
    """
    corner_BN, order = torch.cat([size_BD, size_BD - room_BD], 1).sort(dim=1, descending=True)
    corner_BN = corner_BN.double()  # sums of thousands of float32 would lose λ's last digits
    turn_BN = torch.where(order < size_BD.shape[1], 1.0, -1.0).double()
    slope_BN, offset_BN = turn_BN.cumsum(1), (turn_BN * corner_BN).cumsum(1)
    radius = eps[:, None] if isinstance(eps, Tensor) else eps
    within_BN = offset_BN - slope_BN * corner_BN <= radius
    piece = within_BN.sum(1, keepdim=True) - 1
    end = (piece + 1).clamp_max(corner_BN.shape[1] - 1)
    least_B1 = (offset_BN.gather(1, piece) - radius) / slope_BN.gather(1, piece).clamp_min(1)
    # its two ends: rounding must not lead off it, and where the sum is flat, any of it will do
    least_B1 = least_B1.clamp(corner_BN.gather(1, end), corner_BN.gather(1, piece))
    return least_B1.clamp_min(0)[:, 0].to(size_BD.dtype)


def unit(x: Tensor) -> Tensor:
    """Each image's vector at length 1, however short or long it is; 0 where it is 0, nan where it is not finite."""
    largest = by_image(x.detach().flatten(1).abs().amax(1), x)
    scaled = x / largest.where(largest != 0, 1)  # squares of float32 underflow from 1e-19, overflow from 1e19
    return scaled / by_image(scaled.flatten(1).norm(dim=1).clamp_min(0.5), x)


def by_image(values_B: Tensor, like: Tensor) -> Tensor:
    """One number an image, to be multiplied with ``like``.

    Raises:
        ValueError: there are more or fewer of them than images.
    """
    if values_B.shape != like.shape[:1]:
        raise ValueError(f"expected one value an image, of shape {tuple(like.shape[:1])}, got {tuple(values_B.shape)}")
    return values_B.view(-1, *[1] * (like.ndim - 1))


def _by_image(length: Length, like: Tensor) -> Length:
    return by_image(length, like) if isinstance(length, Tensor) else length
