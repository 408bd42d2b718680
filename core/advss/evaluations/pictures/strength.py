"""Robust accuracy over what an attack may do: the radius ε and the number of steps, and the field's two checks of it.

A robust accuracy is believed where it falls to near 0 as ε grows, since no classifier can withstand every change, and
where it no longer falls as steps are added (Athalye et al. 2018, section 3; Carlini et al. 2019, section 4).

Letters: N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advss.attacks import Norm
from advss.attacks.threat import SIGN, length_text
from advss.evaluations.intervals import wilson
from advss.figures import LOOKS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# an attack that may change all changes every answer; 5 % are left to the few images that a number of steps misses
NEAR_ZERO = 0.05
# a robust accuracy is told to a point: what more steps take beyond a point makes it another
LEVEL = 0.01
GREY = 0.5  # in ℓ∞: every image can become the same grey, of which no classifier can tell the class
MOST_TICKS = 9


@dataclass(frozen=True)
class Curve:
    """Which of the same N images stand, bool (N,), by radius and by number of steps; either may be empty."""

    norm: Norm
    by_eps: Mapping[float, Tensor]  # the radius, pixels in [0, 1]; 0 is no attack
    by_steps: Mapping[int, Tensor]  # 0 is no attack
    steps: int  # of by_eps
    eps: float  # of by_steps


def sanity(curve: Curve) -> list[str]:
    """What of the two checks does not hold, one plain line each; none where the images are too few to tell.

    RA must be below 5 % at the largest ε, and the last two numbers of steps, of which the last is best the double, must
    be within a point of one another; both as far as the 95 % interval of the images says.
    """
    return [line for line in (_stays_up(curve), _falls_on(curve)) if line]


def verdict(curve: Curve) -> str:
    """What :func:`sanity` comes to, in a few words: ``both checks hold``."""
    made = {"eps": max(curve.by_eps, default=0) > 0, "steps": sum(steps > 0 for steps in curve.by_steps) > 1}
    of = [name for name, is_made in made.items() if is_made]
    failed = len(sanity(curve))
    if len(of) == len(made):
        return ("both checks hold", "one of the two checks fails", "both checks fail")[failed]
    return f"the check over {of[0]} {'fails' if failed else 'holds'}" if of else "nothing is checked"


def _stays_up(curve: Curve) -> str | None:
    """RA at the largest radius is not near 0."""
    if not curve.by_eps:
        return None
    eps = max(curve.by_eps)
    right, of = _counts(curve.by_eps[eps])
    if eps == 0 or wilson(right, of)[0] <= NEAR_ZERO:
        return None
    said = f"RA is still {_percent(right / of)} at eps {length_text(eps)}"
    if curve.norm == "linf" and eps >= GREY:
        return f"{said}, where every image can be made the same grey: gradients may be masked, or steps too short"
    return f"{said}: gradients may be masked, or steps too short; a larger eps, with longer steps, must bring it near 0"


def _falls_on(curve: Curve) -> str | None:
    """More steps still lower RA."""
    if len(curve.by_steps) < 2:
        return None
    before, last = sorted(curve.by_steps)[-2:]
    before_N, last_N = curve.by_steps[before], curve.by_steps[last]
    if before == 0 or _least_fall(before_N, last_N) <= LEVEL:
        return None
    (right, of), (left, _) = _counts(before_N), _counts(last_N)
    fall = f"from {_percent(right / of)} at {before} to {_percent(left / of)} at {last}"
    return f"RA still falls with more steps, {fall}: measure it with more"


def _least_fall(before_N: Tensor, last_N: Tensor) -> float:
    """The lower end of the 95 % interval of how far RA falls from one attack to another on the same images.

    The images that fall less those that rise, as each attack has draws of its own: Newcombe (1998), method 10, of the
    two shares.
    """
    (fell, of), (rose, _) = _counts(before_N & ~last_N), _counts(~before_N & last_N)
    least, most = wilson(fell, of)[0], wilson(rose, of)[1]
    return (fell - rose) / of - math.hypot(fell / of - least, most - rose / of)


def draw_strength(curve: Curve) -> Figure:
    """Draw RA over ε on the left and over steps on the right, with 95 % intervals; what :func:`sanity` says below."""
    figure = new_figure(width=9, height=3.8)
    left, right = figure.subplots(1, 2, sharey=True)
    _line(left, curve.by_eps)
    _line(right, curve.by_steps)
    at = f"eps {length_text(curve.eps)}"
    left.set(xlabel=f"eps, {SIGN[curve.norm]}, pixels in [0, 1]", ylabel="RA, %", ylim=(0, 102))
    left.set_title(f"{curve.steps} steps", fontsize="medium")
    right.set(xlabel="steps")
    right.set_title(at, fontsize="medium")
    _ticks(left, {eps: length_text(eps) for eps in sorted(curve.by_eps)})
    _ticks(right, {steps: f"{steps}" for steps in sorted(curve.by_steps)})
    if said := sanity(curve):
        figure.supxlabel("\n".join(said), fontsize="small")
    return figure


def _line(axes: Any, by_strength: Mapping[float, Tensor] | Mapping[int, Tensor]) -> None:
    """RA and its interval."""
    if not by_strength:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    strengths, measured = zip(*sorted(by_strength.items()), strict=True)
    counts = [_counts(right_N) for right_N in measured]
    low, high = zip(*([100 * end for end in wilson(*count)] for count in counts), strict=True)
    axes.fill_between(strengths, low, high, color=LOOKS[2].colour, alpha=0.5, linewidth=0)
    axes.plot(strengths, [100 * right / of for right, of in counts], **LOOKS[0].of_line)
    axes.grid(alpha=0.3)


def _ticks(axes: Any, labels: Mapping[float, str] | Mapping[int, str]) -> None:
    """Ticks at what was measured, each doubling as long as the last; 0 stands a doubling before the least."""
    positive = [strength for strength in labels if strength > 0]
    if not positive:
        axes.set_xticks([])
        return
    axes.set_xscale("symlog", base=2, linthresh=min(positive), linscale=1)
    axes.set_xlim(-0.1 * min(positive) if 0 in labels else 0.9 * min(positive), 1.1 * max(positive))
    kept = list(labels.items())[:: -(-len(labels) // MOST_TICKS)]
    strengths, texts = zip(*kept, strict=True)
    axes.set_xticks(strengths, texts, rotation=45, fontsize="small")
    axes.minorticks_off()


def _counts(right_N: Tensor) -> tuple[int, int]:
    return int(right_N.sum()), len(right_N)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
