"""RA over the radius and over the steps of PGD: must fall to near 0, and level off (Carlini et al. 2019, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor

from advss.attacks import Norm, Threat
from advss.attacks.evaluation import answers
from advss.attacks.pgd import PGD
from advss.attacks.threat import LARGEST, in_pixels, length_text, whole
from advss.evaluations.pictures import Curve, draw_strength, sanity, verdict
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, int]  # eps and steps
CLEAN = "ta"
# where every answer should fall: in ℓ∞ every image can become the same grey, in the others the largest radius there is
ENDS: dict[Norm, float] = {"linf": 0.5, "l2": LARGEST["l2"], "l1": LARGEST["l1"]}
STRIDE = 2.5  # a run may go so many radii far: from any point in the ball to any other, and half as far again


class Strength(Evaluation):
    """Robust accuracy over eps and over steps, each point an attack of its own; step sizes are 2.5 · eps / steps.

    Args:
        norm: shape of the ball around each image; null is --eval-norm.
        eps: radius at which steps are varied, pixels in [0, 1]; null is --eval-eps.
        steps: number of ascent steps at which eps is varied; null is --eval-steps.
        top_share: of l1 alone, the share of the coordinates that one step moves; null is --eval-top-share.
        restarts: random starts; null is --eval-restarts.
        loss: what ascends; null is --eval-loss.
        over_eps: radii to vary over; null is a quarter of eps, its half, itself, and doublings up to 0.5 in linf, 16 in
            l2 and 256 in l1.
        over_steps: numbers of steps to vary over; null is 1, a quarter, half, once and twice of steps.
        images: that are attacked at most, as many of each class; 0 is all.
    """

    name = "strength"

    def __init__(  # noqa: PLR0913 - each is an option
        self,
        *,
        norm: Norm | None = None,
        eps: float | None = None,
        steps: int | None = None,
        top_share: float | None = None,
        restarts: int | None = None,
        loss: Literal["ce", "margin", "dlr"] | None = None,
        over_eps: tuple[float, ...] | None = None,
        over_steps: tuple[int, ...] | None = None,
        images: int = 200,
    ) -> None:
        if eps == 0:
            raise ValueError("eps must be above 0: without a radius there is nothing to vary")
        self.own = Threat(norm=norm or "linf", eps=eps, steps=20 if steps is None else steps, top_share=top_share)
        self.attack = PGD(restarts=1 if restarts is None else restarts, loss=loss or "ce")
        self.over_eps = _radii(self.own) if over_eps is None else _distinct_radii(over_eps, self.own.norm)
        self.over_steps = _counts(self.own.steps) if over_steps is None else tuple(over_steps)
        for count in self.over_steps:
            whole("over_steps", count)
        self.most = whole("images", images) if images else 0

    @property
    def points(self) -> dict[str, Point]:
        """What is measured, by name: ``eps_0.03137`` and ``steps_40``."""
        points = [(eps, self.own.steps) for eps in self.over_eps] + [(self.own.eps, n) for n in self.over_steps]
        return {self._name(*point): point for point in points}

    def _name(self, eps: float, steps: int) -> str:
        return _of_eps(eps) if steps == self.own.steps else f"steps_{steps}"

    def title(self) -> str:
        """``PGD-20 ℓ∞ 8/255 over eps and steps``."""
        times = f" ×{self.attack.restarts}" if self.attack.restarts > 1 else ""
        loss = "" if self.attack.loss == "ce" else f"{self.attack.loss} "
        return f"PGD-{self.own.steps}{times} {loss}{self.own} over eps and steps"

    def threat(self, eps: float, steps: int) -> Threat:
        """The attack at a point."""
        step_size = min(STRIDE * eps / steps, LARGEST[self.own.norm])
        return Threat(norm=self.own.norm, eps=eps, step_size=step_size, steps=steps, top_share=self.own.top_share)

    def check(self, model: Victim) -> None:
        """There are as many classes as the loss needs."""
        self.attack.check(len(model.classes))

    def parts(self, classes: int) -> Sequence[str]:
        """The points, and before them no attack."""
        return (CLEAN, *self.points)

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        """Which images are right at one point more."""
        if part == CLEAN:
            with torch.no_grad():
                return {CLEAN: answers(model(x_BCHW)) == label_B}
        threat = self.threat(*self.points[part])
        return {**before, part: self.attack(model, x_BCHW, label_B, threat, generator).robust_B}

    def figures(self, measured: Measured) -> dict[str, Any]:
        """``over_eps`` and ``over_steps``, pairs of a strength and RA, and what is wrong with them as notes."""
        curve = self._curve(measured)
        return {
            "over_eps": [[eps, float(right_N.double().mean())] for eps, right_N in curve.by_eps.items()],
            "over_steps": [[steps, float(right_N.double().mean())] for steps, right_N in curve.by_steps.items()],
            "summary": f"{self._headline(measured)}; {verdict(curve)}",
            "notes": sanity(curve),
        }

    def in_words(self, name: str) -> str:
        """``RA at 8/255`` and ``RA after 40 steps``."""
        if name not in self.points:
            return super().in_words(name)
        eps, steps = self.points[name]
        return f"RA at {length_text(eps)}" if name == _of_eps(eps) else f"RA after {steps} step{'s' * (steps > 1)}"

    def draw(self, measured: Measured) -> dict[str, Figure]:
        """The two curves."""
        return {"curve": draw_strength(self._curve(measured))}

    def _headline(self, measured: Measured) -> str:
        """TA, and RA where both are as elsewhere, as far as it is measured."""
        at = self._name(self.own.eps, self.own.steps)
        names = [name for name in (CLEAN, at) if name in measured.answers]
        return ", ".join(
            f"{self.in_words(name)} {100 * float(measured.answers[name].double().mean()):.2f} %" for name in names
        )

    def _curve(self, measured: Measured) -> Curve:
        own, found = self.own, measured.answers
        by_eps = {eps: found[self._name(eps, own.steps)] for eps in sorted(self.over_eps)}
        by_steps = {steps: found[self._name(own.eps, steps)] for steps in sorted(self.over_steps)}
        clean = found[CLEAN]
        return Curve(own.norm, {0.0: clean, **by_eps}, {0: clean, **by_steps}, own.steps, own.eps)


def _of_eps(eps: float) -> str:
    return f"eps_{eps:.4g}"


def _radii(own: Threat) -> tuple[float, ...]:
    """From a quarter of a radius by doublings to where every answer should fall."""
    end, radii = max(own.eps, ENDS[own.norm]), [own.eps / 4]
    while radii[-1] < end / 1.5:  # the last doubling is not much below the end
        radii.append(2 * radii[-1])
    return (*[eps for eps in radii if eps < end / 1.2], end)


def _distinct_radii(over_eps: Sequence[float], norm: Norm) -> tuple[float, ...]:
    """Radii as they were said.

    Raises:
        ValueError: one is none, or two are the same to four digits.
    """
    radii = tuple(in_pixels("over_eps", eps, most=LARGEST[norm], of=norm) for eps in over_eps)
    if len(set(map(_of_eps, radii))) < len(radii):
        raise ValueError(f"over_eps must differ in their first four digits, got {', '.join(map(str, radii))}")
    return radii


def _counts(steps: int) -> tuple[int, ...]:
    """Numbers of steps about one, the last a doubling."""
    return tuple(sorted({1, max(1, steps // 4), max(1, steps // 2), steps, 2 * steps}))
