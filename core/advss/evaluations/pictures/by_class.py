"""Accuracy by class, with Wilson's intervals: which classes a mean hides.

Letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advss.evaluations.intervals import wilson
from advss.figures import Look, look, new_figure, plain, short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 100
ENDS = 25  # of more classes, so many of the worst and so many of the best


def draw_by_class(right: Mapping[str, Tensor], label_N: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the accuracy of each class, a mark a kind, with its 95 % interval.

    Up to 100 classes stand in their order; of more, the 25 worst and the 25 best under the last kind, the worst first.
    A class without images has its line and no mark.

    Args:
        right: by kind, whether each image (N,) is right, bool.
        label_N: the classes of the images.
        classes: names of the K classes.
    """
    images_K = torch.bincount(label_N, minlength=len(classes))
    hits = {kind: torch.bincount(label_N[right_N], minlength=len(classes)) for kind, right_N in right.items()}
    shown = _shown(list(hits.values())[-1], images_K)
    figure = new_figure(width=6.5, height=1.5 + 0.24 * max(len(shown), 4))
    axes = figure.subplots()
    for place, (kind, hits_K) in enumerate(hits.items()):
        offset = 0.6 * ((place + 0.5) / len(hits) - 0.5)
        _marks(axes, hits_K[shown], images_K[shown], offset=offset, kind=kind, one=look(place))
    _frame(axes, short_labels([classes[one] for one in shown]), images_K[shown].tolist())
    if len(shown) < len(classes):
        axes.axhline(ENDS - 0.5, color="black", linewidth=0.8)
        last = list(hits)[-1]
        axes.set_title(f"the {ENDS} worst and {ENDS} best of {len(classes)} classes, {last}", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=len(hits), frameon=False)
    return figure


def _shown(hits_K: Tensor, images_K: Tensor) -> list[int]:
    """The classes that are shown, from the top down."""
    if len(images_K) <= MOST_CLASSES:
        return list(range(len(images_K)))
    known = images_K.nonzero()[:, 0]
    by_share = known[(hits_K[known].double() / images_K[known]).sort(stable=True).indices].tolist()
    return by_share if len(by_share) <= 2 * ENDS else by_share[:ENDS] + by_share[-ENDS:]


def _marks(axes: Any, hits_S: Tensor, images_S: Tensor, *, offset: float, kind: str, one: Look) -> None:
    """The accuracies of one kind, a mark and an interval a class."""
    counted = list(zip(hits_S.tolist(), images_S.tolist(), strict=True))
    lines = [place for place, (_, of) in enumerate(counted) if of]
    shares = [100 * counted[place][0] / counted[place][1] for place in lines]
    ends = [[100 * end for end in wilson(*counted[place])] for place in lines]
    low = [max(0.0, share - end[0]) for share, end in zip(shares, ends, strict=True)]
    high = [max(0.0, end[1] - share) for share, end in zip(shares, ends, strict=True)]
    places = [place + offset for place in lines]
    style = {"fmt": one.marker, "color": one.colour, "markersize": 4, "capsize": 2, "linewidth": 1}
    drawn = axes.errorbar(shares, places, xerr=[low, high], label=kind, **style)
    for whiskers in drawn[2]:
        whiskers.set_linestyle(one.line)


def _frame(axes: Any, names: Sequence[str], images: Sequence[int]) -> None:
    labels = [plain(f"{name} ({count})") for name, count in zip(names, images, strict=True)]
    axes.set_yticks(range(len(names)), labels, fontsize="small")
    axes.set(xlim=(-2, 102), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy, %, and its 95 % interval")
    axes.set_ylabel("class (images)")
    axes.grid(alpha=0.3)
