"""Square Attack: random search by squares that shrink, which asks for logits alone (Andriushchenko et al. 2020).

ℓ∞ and ℓ2 as in the paper, ℓ1 as in Croce and Hein 2021. The squares' places are one draw for all images of a chunk, as
in AutoAttack. Letters: B images, C channels, K classes, S side of a square.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from advss.attacks.balls import L1, Linf, by_image, unit
from advss.attacks.evaluation import answers
from advss.attacks.losses import margin
from advss.attacks.passes import Chunk, Part, Passes
from advss.attacks.threat import Norm, Threat, whole
from advss.attacks.victim import as_victim

FIRST_SHARE = 0.8  # of an image's pixels, in a square
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries, the share each time; the paper's p
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Square(Part):
    """Square Attack on the margin; ``Square()(model, ...)`` attacks.

    Attributes:
        queries: squares tried on each image in a run.
        restarts: runs.

    Raises:
        ValueError: an option that makes no attack; its name comes first.
    """

    queries: int = 5000
    restarts: int = 1
    least_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        whole("queries", self.queries)
        whole("restarts", self.restarts)

    def fell(self, asked: Passes, chunk: Chunk, threat: Threat, generator: Generator) -> None:
        """Runs of squares, as many as restarts."""
        for _ in range(self.restarts):
            if len(chunk.left_S):
                start = _start(chunk.x_BCHW, threat, generator)
                self._search(asked, chunk, start, range(self.queries), threat, generator)

    def piece(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        label_B: Tensor,
        threat: Threat,
        generator: Generator,
        *,
        standing_B: Tensor,
        best_BCHW: Tensor | None = None,
        done: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """``queries`` more of a run of which ``done`` were asked before, from the best points that these found.

        A run begins without such points. All else is as when called, and so are the examples that are returned; beside
        them are the best points now, for the next piece: (B, C, H, W) each.
        """
        with as_victim(model):
            asked = Passes(model)
            chunk = Chunk(asked, x_BCHW, label_B, standing_B)
            start = _start(x_BCHW, threat, generator) if best_BCHW is None else best_BCHW
            best = self._search(asked, chunk, start, range(done, done + self.queries), threat, generator)
        return chunk.examples_BCHW, best

    def _search(
        self, asked: Passes, chunk: Chunk, start_BCHW: Tensor, queries: range, threat: Threat, generator: Generator
    ) -> Tensor:
        """The best points of what stands; where it began of the others."""
        place_B = chunk.left_S
        clean, label_B = chunk.x_BCHW[place_B], chunk.label_B[place_B]
        tried = best = start_BCHW[place_B]
        most_B = torch.full_like(chunk.margin_B[place_B], -torch.inf)
        for move in itertools.chain([None], _moves(chunk.x_BCHW, threat.norm, queries, generator)):
            if not len(place_B):
                break
            if move:
                tried = _tried(clean, best, threat, move._replace(sign=move.sign[place_B]))
            logits_BK = asked.logits(tried)
            margin_B = margin(logits_BK, label_B)
            better_B = margin_B > most_B
            best, most_B = tried.where(by_image(better_B, tried), best), margin_B.where(better_B, most_B)
            stands_B = answers(logits_BK) == label_B
            if not stands_B.all():
                chunk.fell(place_B[~stands_B], tried[~stands_B])
                place_B, clean, label_B = place_B[stands_B], clean[stands_B], label_B[stands_B]
                best, most_B = best[stands_B], most_B[stands_B]
        return start_BCHW.index_copy(0, place_B, best)


class Move(NamedTuple):
    """One square, the sign of each channel in it, and in ℓ2 and ℓ1 a second one, which gives it what it moves.

    Places are corners; a square that is turned has its hill at the left; signs are (B, C).
    """

    side: int
    corner: tuple[int, int]
    other: tuple[int, int]
    turned: bool
    sign: Tensor


def _moves(x_BCHW: Tensor, norm: Norm, queries: range, generator: Generator) -> Iterator[Move]:
    """Drawn for all images; in ℓ∞ channels have one sign in all of them."""
    images, channels, height, width = x_BCHW.shape
    linf = norm == "linf"
    places, signs = (2, channels) if linf else (5, images * channels)
    for query in queries:
        number = torch.rand(places + signs, generator=generator, device=x_BCHW.device)
        drawn = number[:places].tolist()
        side = _side(query, height, width, least=1 if linf else 3)
        # like the released code, never at the last place of all
        corners = [
            (int(down * (height - side)), int(right * (width - side)))
            for down, right in zip(drawn[::2], drawn[1::2], strict=False)
        ]
        sign_BC = _sign(number[places:]).view(-1, channels).expand(images, channels)
        yield Move(side, corners[0], corners[-1], drawn[-1] > 0.5, sign_BC)


def _side(query: int, height: int, width: int, *, least: int) -> int:
    """Of the square; where it has halves, which is where ``least`` is 3, it is odd."""
    share = FIRST_SHARE / 2 ** sum(query > after for after in HALVED_AFTER)
    side = max(least, round(math.sqrt(share * height * width)))
    if least > 1 and side % 2 == 0:
        side += 1
    return min(side, height, width)


def _tried(clean: Tensor, best: Tensor, threat: Threat, move: Move) -> Tensor:
    """The best point, with a square moved."""
    window = _window(move.corner, move.side)
    sign_BC11 = move.sign[:, :, None, None]
    if threat.norm == "linf":
        tried = best.clone()
        tried[window] += 2 * threat.eps * sign_BC11
        return Linf(clean, threat.eps, 0).inside(tried)
    power = 2 if threat.norm == "l2" else 1
    length = functools.partial(torch.linalg.vector_norm, ord=power, dim=(-2, -1), keepdim=True)
    delta, channels = best - clean, clean.shape[1]
    both = torch.zeros_like(delta)
    for one in (window, _window(move.other, move.side)):
        both[one] = delta[one]
    spent_B111 = torch.linalg.vector_norm(delta, ord=power, dim=(1, 2, 3), keepdim=True) ** power
    left = ((threat.eps**power - spent_B111).clamp_min(0) / channels + length(both) ** power) ** (1 / power)
    shape = _bump(move.side, power, move.turned).to(clean) * sign_BC11 + delta[window] / length(
        delta[window]
    ).clamp_min(TINY)
    delta[_window(move.other, move.side)] = 0
    delta[window] = shape / length(shape).clamp_min(TINY) * (left if power == 2 else left * channels)
    return _inside(clean, delta, threat)


def _start(x_BCHW: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """In ℓ∞ stripes of ±eps; otherwise five times five tiles and what more has room, each channel of its own sign."""
    images, channels, height, width = x_BCHW.shape
    if threat.norm == "linf":
        number = torch.rand(images, channels, 1, width, generator=generator, device=x_BCHW.device)
        return (x_BCHW + threat.eps * _sign(number)).clamp_(0, 1)
    delta, side = torch.zeros_like(x_BCHW), max(1, min(height, width) // 5)
    first = (height - 5 * side) // 2 if height >= 5 * side else 0
    power = 2 if threat.norm == "l2" else 1
    for row in range(first, first + height // side * side, side):
        for column in range(first, first + width // side * side, side):
            number = torch.rand(1 + images * channels, generator=generator, device=x_BCHW.device)
            if row + side <= height and column + side <= width:
                sign_BC11 = _sign(number[1:]).view(images, channels, 1, 1)
                delta[_window((row, column), side)] += _bump(side, power, bool(number[0] > 0.5)).to(x_BCHW) * sign_BC11
    return _inside(x_BCHW, delta, threat)


def _inside(clean: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """On the ball's surface in ℓ2, at the nearest point of the ball in ℓ1; within [0, 1]."""
    if threat.norm == "l2":
        return (clean + threat.eps * unit(delta)).clamp_(0, 1)
    return L1(clean, threat.eps, 0).inside(clean + delta)


@functools.lru_cache(maxsize=64)
def _bump(side: int, power: int, turned: bool) -> Tensor:
    """A hill over a valley (S, S), of length 1: each falls off from its middle by rings; turned, side by side."""
    half = side // 2
    bump_SS = torch.cat([_hill(half, side, power), -_hill(side - half, side, power)])
    bump_SS /= torch.linalg.vector_norm(bump_SS, ord=power)
    return bump_SS.T if turned else bump_SS


def _hill(height: int, width: int, power: int) -> Tensor:
    """The ring at distance d from the middle has height Σ 1/(k+1)², k ≥ d; in ℓ1 to the fourth power. Of length 1."""
    rings = max(height, width) // 2 + 1
    fall = 1 / torch.arange(1, rings + 1, dtype=torch.float64) ** (2 if power == 2 else 4)
    level = fall.flip(0).cumsum(0).flip(0)
    row, column = (torch.arange(length) - length // 2 for length in (height, width))
    hill = level[torch.maximum(row.abs()[:, None], column.abs()[None])]
    hill /= torch.linalg.vector_norm(hill, ord=power).clamp_min(TINY)
    return hill


def _window(corner: tuple[int, int], side: int) -> tuple[slice | EllipsisType, ...]:
    return (..., slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side))


def _sign(number: Tensor) -> Tensor:
    return torch.where(number < 0.5, -1.0, 1.0)
