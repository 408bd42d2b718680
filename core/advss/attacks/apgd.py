"""APGD: projected ascent that chooses the lengths of its steps itself (Croce and Hein 2020), on three losses.

In ℓ1 its steps choose how many pixels they move, too, and radii three and two times as large come first (Croce and
Hein 2021). Letters: B images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from advss.attacks import losses
from advss.attacks.balls import L2, Linf, by_image, unit
from advss.attacks.climb import Climb, Rows, Smooth, Sparse
from advss.attacks.evaluation import answers
from advss.attacks.passes import Chunk, Part, Passes
from advss.attacks.threat import Norm, Threat, whole

Aim = Literal["ce", "dlr", "targeted"]
LEAST_CLASSES: dict[Aim, int] = {"ce": 2, "dlr": 3, "targeted": 4}  # the ratios compare with the third, or the fourth
WIDER = ((3, 0.3), (2, 0.3))  # ℓ1: radii in parts of eps, and the share of the steps spent in each; the rest at eps


@dataclass(frozen=True, kw_only=True)
class APGD(Part):
    """APGD-CE, APGD-DLR or targeted APGD, as AutoAttack has them; ``APGD(loss="ce")(model, ...)`` attacks.

    Where an image's own logit is more than 8 above the others, all are divided until it is 8, which matters to ``ce``
    alone. An image is left alone as soon as it falls; where gradients are averaged, all steps are made and
    its example is the last point that was wrong.

    Attributes:
        loss: ``ce``, cross-entropy; ``dlr``, the margin over the difference between first and third logit;
            ``targeted``, the margin to one wrong class after another, over such a difference.
        steps: ascent steps of each run.
        restarts: runs, each from a random start; of ``targeted``, for each class.
        targets: of ``targeted``, the ranks of the wrong classes aimed at, 1 that of the largest logit; ranks that a
            model has no class for are left out.
        averaged: gradients averaged in each step, for a model whose answers are random.

    Raises:
        ValueError: an option that makes no attack; its name comes first.
    """

    loss: Aim = "ce"
    steps: int = 100
    restarts: int = 1
    targets: Sequence[int] = tuple(range(1, 10))
    averaged: int = 1

    def __post_init__(self) -> None:
        if self.loss not in get_args(Aim):
            raise ValueError(f"loss must be one of {', '.join(get_args(Aim))}, got {self.loss!r}")
        for option in ("steps", "restarts", "averaged"):
            whole(option, getattr(self, option))
        for rank in self.targets:
            whole("targets", rank)

    @property
    def least_classes(self) -> int:
        """Models of fewer classes have no such loss."""
        return LEAST_CLASSES[self.loss]

    def fell(self, asked: Passes, chunk: Chunk, threat: Threat, generator: Generator) -> None:
        """Runs against each target, from starts in the ball."""
        for rank in self._ranks(chunk):
            for _ in range(self.restarts):
                noise = _noise(chunk, threat.norm, generator)
                self._run(asked, chunk, noise, chunk.ranked_BK[:, rank - 1], threat)

    def _ranks(self, chunk: Chunk) -> Sequence[int]:
        """The runs' targets; none where nothing stands.

        Raises:
            ValueError: too few classes.
        """
        if not len(chunk.left_S):
            return ()
        classes = chunk.ranked_BK.shape[1]
        if classes < self.least_classes:
            raise ValueError(f"loss {self.loss} needs at least {self.least_classes} classes, the model has {classes}")
        return [rank for rank in self.targets if rank < classes] if self.loss == "targeted" else (1,)

    def _run(self, asked: Passes, chunk: Chunk, noise: Tensor, target_B: Tensor, threat: Threat) -> None:
        """One run against what still stands."""
        place_B = chunk.left_S
        temperature_B = losses.temperature(chunk.margin_B)
        clean, start = chunk.x_BCHW[place_B], _start(chunk.x_BCHW[place_B], noise[place_B], threat)
        *_, last = stages = _stages(threat, self.steps)
        for stage in stages:
            radius, steps = stage
            if not len(place_B):
                return
            rows = Rows(place_B, clean, chunk.label_B[place_B], target_B[place_B], temperature_B[place_B])
            climb = _climb(rows, start, threat.norm, radius)
            for wrong in self._climbed(asked, climb, steps):
                if stage is last and wrong.any():
                    chunk.fell(climb.place_B[wrong], climb.x[wrong])
                    if self.averaged == 1:
                        climb.keep(~wrong)
            start = climb.best

    def _climbed(self, asked: Passes, climb: Smooth | Sparse, steps: int) -> Iterator[Tensor]:
        """Climb; tells after each pass which rows are answered wrongly, of which the asker may keep the others."""
        periods = climb.periods(steps)
        period = next(periods)
        checked = 0
        for step in range(steps + 1):
            if step:
                climb.move()
            logits_BK = self._ask(asked, climb)
            yield answers(logits_BK) != climb.label_B
            if not len(climb.place_B):
                return
            if step == checked + period:
                climb.check(period)
                checked, period = step, next(periods)

    def _ask(self, asked: Passes, climb: Climb) -> Tensor:
        """Tell the climb its loss and gradient; the logits are those of the last pass."""

        def loss(logits_BK: Tensor, part: slice) -> Tensor:
            logits_BK = logits_BK / climb.temperature_B[part, None]
            return self._loss(logits_BK, climb.label_B[part], climb.target_B[part])

        logits_BK, loss_B, gradient = asked.ascent(climb.x, loss)
        log_B = self._log_weight(loss_B)
        for _ in range(self.averaged - 1):
            logits_BK, loss_B, more = asked.ascent(climb.x, loss)
            more_B = self._log_weight(loss_B)
            top_B = torch.maximum(log_B, more_B)
            gradient = by_image((log_B - top_B).exp(), more) * gradient + by_image((more_B - top_B).exp(), more) * more
            log_B = top_B
        climb.told(loss_B, gradient)
        return logits_BK

    def _loss(self, logits_BK: Tensor, label_B: Tensor, target_B: Tensor) -> Tensor:
        if self.loss == "targeted":
            return losses.targeted(logits_BK, label_B, target_B)
        return (losses.odds if self.loss == "ce" else losses.dlr)(logits_BK, label_B)

    def _log_weight(self, loss_B: Tensor) -> Tensor:
        """Of a gradient among those averaged: cross-entropy's is 1 - p times that of the odds."""
        return F.logsigmoid(loss_B) if self.loss == "ce" else torch.zeros_like(loss_B)


def _climb(rows: Rows, start: Tensor, norm: Norm, radius: float) -> Smooth | Sparse:
    if norm == "l1":
        return Sparse(rows, start, radius)
    return Smooth(rows, start, radius, Linf if norm == "linf" else L2)


def _stages(threat: Threat, steps: int) -> list[tuple[float, int]]:
    """Radii, and the steps in each."""
    if threat.norm != "l1":
        return [(threat.eps, steps)]
    wide = [(times * threat.eps, math.ceil(share * steps)) for times, share in WIDER]
    return [*wide, (threat.eps, max(1, steps - sum(taken for _, taken in wide)))]


def _noise(chunk: Chunk, norm: Norm, generator: Generator) -> Tensor:
    """For the whole chunk, whatever stands of it."""
    noise = torch.empty_like(chunk.x_BCHW)
    return noise.uniform_(-1, 1, generator=generator) if norm == "linf" else noise.normal_(generator=generator)


def _start(clean: Tensor, noise: Tensor, threat: Threat) -> Tensor:
    """On the ball's surface, then brought into [0, 1]; in ℓ1 :class:`Sparse` goes to the nearest point of both."""
    if threat.norm == "l1":
        return clean + noise
    if threat.norm == "l2":
        return (clean + threat.eps * unit(noise)).clamp_(0, 1)
    largest_B = noise.flatten(1).abs().amax(1)
    return (clean + threat.eps * (noise / by_image(largest_B, noise))).clamp_(0, 1)
