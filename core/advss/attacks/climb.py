"""The steps of APGD: how far each image moves next, and from where, judged by what the last steps brought.

Letters: B images, which grow fewer as they fall; D values of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from advss.attacks.balls import L1, L2, Linf, by_image

KEPT = 0.25  # momentum: how much of the last move is made again
RISING = 0.75  # steps are too long where no more than this share of them raised the loss
FEWER = 0.95  # ℓ1: the best point has grown sparser when it moves less than this share of the pixels it moved


class Rows(NamedTuple):
    """Images: their places in a chunk, they themselves, their classes, those aimed at, what to divide logits by."""

    place: Tensor
    clean: Tensor
    label: Tensor
    target: Tensor
    temperature: Tensor


class Climb:
    """Images on their way up from ``start``; every tensor among its attributes has a row an image.

    Attributes:
        place_B: where the images stand in their chunk; the others as in :class:`Rows`.
        x: where they are now.
        best: where the loss was largest.
    """

    def __init__(self, rows: Rows, start: Tensor, radius: float) -> None:
        self.place_B, self.clean, self.label_B, self.target_B, self.temperature_B = rows
        self.radius, self.x, self.best = radius, start, start
        self.gradient = self.best_gradient = torch.zeros_like(start)
        self.loss_B = torch.full(rows.place.shape, torch.inf, dtype=start.dtype, device=start.device)
        self.best_loss_B = -self.loss_B

    def told(self, loss_B: Tensor, gradient: Tensor) -> None:
        """The loss where the images are now, and its gradient."""
        better_B = loss_B > self.best_loss_B
        self.best = _where(better_B, self.x, self.best)
        self.best_gradient = _where(better_B, gradient, self.best_gradient)
        self.best_loss_B = loss_B.where(better_B, self.best_loss_B)
        self.loss_B, self.gradient = loss_B, gradient

    def keep(self, rows_B: Tensor) -> None:
        """Only these images climb on."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value[rows_B])

    def _back(self, rows_B: Tensor) -> None:
        """These images climb on from the best of their points."""
        self.x = _where(rows_B, self.best, self.x)
        self.gradient = _where(rows_B, self.best_gradient, self.gradient)


class Smooth(Climb):
    """ℓ∞ and ℓ2 (Croce and Hein 2020, section 3): momentum, and steps that are halved where they bring little."""

    def __init__(self, rows: Rows, start: Tensor, radius: float, ball: type[Linf | L2]) -> None:
        super().__init__(rows, start, radius)
        self.ball = ball
        self.before: Tensor | None = None
        self.step_B = torch.full_like(self.loss_B, 2 * radius)
        self.rose_B, self.checked_B = torch.zeros_like(self.loss_B), self.best_loss_B
        self.halved_B = torch.ones_like(self.rose_B, dtype=torch.bool)

    @staticmethod
    def periods(steps: int) -> Iterator[int]:
        """Steps from one check to the next, fewer and fewer; rounded down, as the released code does."""
        length, less, least = (max(1, steps * share // 100) for share in (22, 3, 6))
        while True:
            yield length
            length = max(length - less, least)

    def move(self) -> None:
        """One step along the gradient; from the second on, with momentum."""
        ball = self.ball(self.clean, self.radius, self.step_B)
        moved = ball.ascend(self.x, self.gradient)
        if self.before is not None:
            moved = ball.inside(self.x + (1 - KEPT) * (moved - self.x) + KEPT * (self.x - self.before))
        self.before, self.x = self.x, moved

    def told(self, loss_B: Tensor, gradient: Tensor) -> None:
        """Counts the steps that raised the loss; the released code compares the first with 0, not with the start's."""
        self.rose_B = self.rose_B + (loss_B > self.loss_B)
        super().told(loss_B, gradient)

    def check(self, period: int) -> None:
        """Halve the steps that overshoot, and those that brought nothing since the last check and were kept then."""
        stuck_B = ~self.halved_B & (self.checked_B >= self.best_loss_B)
        self.halved_B = (self.rose_B <= RISING * period) | stuck_B
        self.checked_B, self.rose_B = self.best_loss_B, torch.zeros_like(self.rose_B)
        self.step_B = (self.step_B / 2).where(self.halved_B, self.step_B)
        self._back(self.halved_B)


class Sparse(Climb):
    """ℓ1 (Croce and Hein 2021): steps along coordinates of large gradient, fewer as the best point grows sparse."""

    def __init__(self, rows: Rows, start: Tensor, radius: float) -> None:
        super().__init__(rows, L1(rows.clean, radius, radius).inside(start), radius)
        self.step_B = torch.full_like(self.loss_B, radius)
        self.changed_B = self._changed()

    @staticmethod
    def periods(steps: int) -> Iterator[int]:
        """Steps from one check to the next."""
        return itertools.repeat(max(1, steps * 4 // 100))

    def move(self) -> None:
        """One step, shared equally by two thirds as many coordinates as the best point moves."""
        size_BD = self.gradient.flatten(1).abs()
        values = size_BD.shape[1]
        share_B = self.changed_B / values / 1.5
        rank_B = ((1 - share_B) * values).long().clamp(0, values - 1)
        least_B = size_BD.sort(1).values.gather(1, rank_B[:, None])[:, 0]
        way = self.gradient.sign() * (self.gradient.abs() >= by_image(least_B, self.gradient))
        way = way / by_image(way.flatten(1).abs().sum(1).clamp_min(1), way)
        self.x = L1(self.clean, self.radius, self.radius).inside(self.x + by_image(self.step_B, way) * way)

    def check(self, period: int) -> None:
        """Where the best point has grown sparser, climb on from it with long steps; elsewhere with shorter ones."""
        changed_B = self._changed()
        sparser_B = changed_B < FEWER * self.changed_B
        shorter_B = (self.step_B / 1.5).clamp_min(self.radius / 10)
        self.step_B = torch.full_like(self.step_B, self.radius).where(sparser_B, shorter_B)
        self.changed_B = changed_B
        self._back(sparser_B)

    def _changed(self) -> Tensor:
        """How many values the best point moves: (B,)."""
        return (self.best != self.clean).flatten(1).sum(1)


def _where(rows_B: Tensor, x: Tensor, other: Tensor) -> Tensor:
    return x.where(by_image(rows_B, x), other)
