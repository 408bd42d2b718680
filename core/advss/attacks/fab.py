"""FAB: steps onto the nearest linearised decision boundary, drawn towards the image, until a near point is wrong.

Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack"; it looks for the
shortest perturbation there, and here for one that is short enough. Letters: B images, K classes, D values of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from advss.attacks.balls import by_image
from advss.attacks.passes import Chunk, Part, Passes, gradient_by
from advss.attacks.threat import Norm, Threat, whole

DRAWN = 0.1  # the paper's α_max: the most that the image counts for, beside where the step began
BEYOND = 1.05  # η: so much farther than the boundary
BACK = 0.9  # β: a wrong answer is drawn back to this share of its distance
TINY = 1e-12
ORDERS: dict[Norm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}
DUALS: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": torch.inf}


@dataclass(frozen=True, kw_only=True)
class FAB(Part):
    """FAB or targeted FAB, as AutoAttack has them; ``FAB()(model, ...)`` attacks.

    Attributes:
        targeted: the boundary to one wrong class after another; otherwise to the nearest, which takes as many passes
            backward a step as there are classes.
        targets: of ``targeted``, the ranks of the wrong classes aimed at, 1 that of the largest logit; ranks that a
            model has no class for are left out.
        steps: of each run.
        restarts: runs, the first from the image, the others from random points; of ``targeted``, for each class.
        random_start: the first is from a random point, too.

    Raises:
        ValueError: an option that makes no attack; its name comes first.
    """

    targeted: bool = True
    targets: Sequence[int] = tuple(range(1, 10))
    steps: int = 100
    restarts: int = 1
    random_start: bool = False
    least_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for option in ("steps", "restarts"):
            whole(option, getattr(self, option))
        for rank in self.targets:
            whole("targets", rank)

    def fell(self, asked: Passes, chunk: Chunk, threat: Threat, generator: Generator) -> None:
        """Runs against each target; the first starts at the images, further ones in the ball."""
        classes = chunk.ranked_BK.shape[1]
        for rank in [rank for rank in self.targets if rank < classes] if self.targeted else (None,):
            target_B = None if rank is None else chunk.ranked_BK[:, rank - 1]
            for restart in range(self.restarts):
                start = _start(chunk.x_BCHW, threat, generator) if restart or self.random_start else chunk.x_BCHW
                if len(chunk.left_S):
                    self._run(asked, chunk, start, target_B, threat)

    def _run(self, asked: Passes, chunk: Chunk, start: Tensor, target_B: Tensor | None, threat: Threat) -> None:
        """One run against what still stands."""
        place_B, norm = chunk.left_S, threat.norm
        x = start[place_B]
        for _ in range(self.steps):
            if not len(place_B):
                return
            clean, label_B = chunk.x_BCHW[place_B], chunk.label_B[place_B]
            aim_B = None if target_B is None else target_B[place_B]
            x = _stepped(x, clean, *_boundary(asked, x, label_B, aim_B, norm), norm)
            right_B = asked.right(x, label_B)
            fell_B = ~right_B & (_length(x - clean, norm) <= threat.eps)
            if fell_B.any():
                chunk.fell(place_B[fell_B], x[fell_B])
            x = torch.where(by_image(right_B, x), x, clean + BACK * (x - clean))
            place_B, x = place_B[~fell_B], x[~fell_B]


def _start(x_BCHW: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Half the radius away from each image, in a random direction, within [0, 1]; drawn for the whole chunk."""
    noise = torch.empty_like(x_BCHW)
    noise = noise.uniform_(-1, 1, generator=generator) if threat.norm == "linf" else noise.normal_(generator=generator)
    length_B = _length(noise, threat.norm).clamp_min(TINY)
    return (x_BCHW + threat.eps / 2 * (noise / by_image(length_B, noise))).clamp_(0, 1)


def _boundary(asked: Passes, x: Tensor, label_B: Tensor, target_B: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor]:
    """How far another class is above the images' own (B,), and the gradient of that, both over the gradient's largest.

    The class is the target, or that of the nearest linearised boundary.
    """

    def ask(part: slice) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            inputs = x[part].detach().requires_grad_()
            logits_BK = asked.forward(inputs)
            own_B1 = label_B[part, None]
            others_BK = own_B1.new_tensor(range(logits_BK.shape[1])).expand_as(logits_BK)
            others_BK = others_BK if target_B is None else target_B[part, None]
            level_BK = logits_BK.gather(1, others_BK) - logits_BK.gather(1, own_B1)
        nearest_B = torch.full_like(level_BK[:, 0], torch.inf)
        level_B, chosen = torch.zeros_like(nearest_B), torch.zeros_like(inputs)
        for place in range(level_BK.shape[1]):
            more = place + 1 < level_BK.shape[1]
            gradient = gradient_by(level_BK[:, place], inputs, again=more)
            one_B, gradient = _scaled(level_BK[:, place].detach(), gradient)
            away_B = one_B.abs() / _length(gradient, norm, dual=True).clamp_min(TINY)
            nearer_B = (others_BK[:, place] != own_B1[:, 0]) & (away_B < nearest_B)
            nearest_B, level_B = away_B.where(nearer_B, nearest_B), one_B.where(nearer_B, level_B)
            chosen = gradient.where(by_image(nearer_B, gradient), chosen)
        return level_B, chosen

    level_B, chosen = asked.split(ask, len(x))
    return level_B, chosen


def _scaled(level_B: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Both over the gradient's largest value, so that the boundary stays and no logits are too large or too small."""
    largest_B = gradient.flatten(1).abs().amax(1)
    largest_B = largest_B.where(largest_B > 0, 1)
    return level_B / largest_B, gradient / by_image(largest_B, gradient)


def _stepped(x: Tensor, clean: Tensor, level_B: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """Beyond the boundary's point that is nearest to ``x``, drawn towards the one that is nearest to the image."""
    rise_B = level_B + (slope * (clean - x)).flatten(1).sum(1)  # the linearised level at the image
    both = to_boundary(torch.cat([x, clean]), torch.cat([level_B, rise_B]), torch.cat([slope, slope]), norm)
    (from_x, from_clean), lengths = both.chunk(2), _length(both, norm).clamp_min(1e-8)
    one_B, other_B = lengths.chunk(2)
    drawn = by_image((one_B / (one_B + other_B)).clamp_max(DRAWN), x)
    return ((1 - drawn) * (x + BEYOND * from_x) + drawn * (clean + BEYOND * from_clean)).clamp_(0, 1)


def to_boundary(x: Tensor, level_B: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """The shortest δ, in the norm, with ``level`` + ``slope``·δ = 0 and x + δ within [0, 1].

    Where there is none, the δ that comes nearest. Each value moves against the level: in ℓ1 those of the largest slopes
    as far as [0, 1] lets them, one after another; otherwise all at once, those of no room left staying behind, as far
    as min(λ, reach) times 1 in ℓ∞ and times their slope in ℓ2, of which a sort finds λ.
    """
    way_BD = slope.flatten(1) * by_image(level_B.sign(), slope).flatten(1)
    size_BD, x_BD = way_BD.abs(), x.flatten(1)
    room_BD = torch.where(way_BD > 0, x_BD, 1 - x_BD)
    weight_BD = size_BD if norm == "l2" else torch.ones_like(size_BD)
    moves = _one_by_one if norm == "l1" else _together
    moved_BD = moves(size_BD, room_BD / weight_BD.clamp_min(TINY), weight_BD, level_B.abs())
    return (-way_BD.sign() * moved_BD.minimum(room_BD)).view_as(x)


def _together(size_BD: Tensor, reach_BD: Tensor, weight_BD: Tensor, due_B: Tensor) -> Tensor:
    """min(λ, reach)·weight with Σ size·weight·min(λ, reach) = due; all of the reach where that is less."""
    sorted_BD, order_BD = reach_BD.sort(1)
    rate_BD = (size_BD * weight_BD).gather(1, order_BD).double()
    done_BD = (rate_BD * sorted_BD).cumsum(1) - rate_BD * sorted_BD  # by those that have ended before
    going_BD = rate_BD.flip(1).cumsum(1).flip(1)
    ended_B1 = (done_BD + going_BD * sorted_BD < due_B[:, None]).sum(1, keepdim=True)
    at_B1 = ended_B1.clamp_max(sorted_BD.shape[1] - 1)
    reached_B1 = (due_B[:, None] - done_BD.gather(1, at_B1)) / going_BD.gather(1, at_B1).clamp_min(TINY)
    reached_B1 = torch.where(ended_B1 > at_B1, torch.inf, reached_B1).to(reach_BD.dtype)
    return reach_BD.minimum(reached_B1) * weight_BD


def _one_by_one(size_BD: Tensor, reach_BD: Tensor, weight_BD: Tensor, due_B: Tensor) -> Tensor:
    """Σ size·moved = due, by the largest sizes first."""
    sorted_BD, order_BD = size_BD.sort(1, descending=True)
    gain_BD = sorted_BD.double() * reach_BD.gather(1, order_BD)
    left_BD = (due_B[:, None] - (gain_BD.cumsum(1) - gain_BD)).clamp_min(0)
    moved_BD = (left_BD / sorted_BD.clamp_min(TINY)).to(reach_BD.dtype)
    return torch.zeros_like(size_BD).scatter(1, order_BD, moved_BD)


def _length(delta: Tensor, norm: Norm, *, dual: bool = False) -> Tensor:
    order = (DUALS if dual else ORDERS)[norm]
    length_B: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return length_B
