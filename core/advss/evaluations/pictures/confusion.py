"""Confusion matrices: what is answered for the images of each class, a panel a kind of answers.

Letters: N images, K classes, R rows that are shown, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advss.figures import new_figure, plain, short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_WITH_NUMBERS, MOST_NAMED_TWICE, MOST_CLASSES = 12, 40, 100
MOST_CONFUSED = 20  # classes that stand for more than MOST_CLASSES
NONE, OTHER = "none", "other"  # columns: no class is answered; one that is not shown


@dataclass(frozen=True)
class Matrix:
    """The counts of one panel."""

    counts: Tensor  # (R, C), int64
    rows: list[str]
    columns: list[str]

    @property
    def percent(self) -> Tensor:
        """The same (R, C) of each row's images, float64; not a number in a row without images."""
        return 100 * self.counts.double() / self.counts.sum(1, keepdim=True)


def draw_confusion(answers: Mapping[str, Tensor], label_N: Tensor, classes: Sequence[str]) -> Figure:
    """Draw what is answered (columns) for the images of each class (rows), in per cent of the row.

    Up to 12 classes the counts stand in the cells; of more than 100 classes, the 20 that are most often answered
    wrongly, or wrongly answered, stand for all, and what else is answered counts as "other".

    Args:
        answers: by kind, the class (N,) that is answered; below 0 where none is, which has a column "none".
        label_N: the classes of the images.
        classes: names of the K classes.
    """
    matrices = confusion(answers, label_N, classes)
    rows, columns = (next(iter(matrices.values())).counts.shape[side] for side in (0, 1))
    cell = min(0.5, max(0.1, 9 / columns))  # inches
    longest = max(map(len, next(iter(matrices.values())).columns))
    names = 0.3 + 0.08 * longest if rows <= MOST_NAMED_TWICE else 0.6  # below the columns
    figure = new_figure(width=len(matrices) * (cell * columns + 0.3) + 2.6, height=cell * rows + names + 0.9)
    panels = list(figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0])
    for axes, (kind, matrix) in zip(panels, matrices.items(), strict=True):
        image = _panel(axes, matrix)
        axes.set_title(kind, fontsize="medium")
    panels[0].set_ylabel("class")
    figure.colorbar(image, ax=panels, label="% of the class", shrink=0.8)
    figure.suptitle(_title(rows, len(classes), len(label_N)))
    return figure


def confusion(answers: Mapping[str, Tensor], label_N: Tensor, classes: Sequence[str]) -> dict[str, Matrix]:
    """The matrices that :func:`draw_confusion` draws, all with the same rows and columns."""
    count = len(classes)
    full = {kind: _counts(answer_N, label_N, count) for kind, answer_N in answers.items()}
    rows = _shown(list(full.values()), count)
    names = short_labels([classes[row] for row in rows])
    silent = any(bool((answer_N < 0).any()) for answer_N in answers.values())
    columns = [*names, *([OTHER] if len(rows) < count else []), *([NONE] if silent else [])]
    matrices = {}
    for kind, counts_KC in full.items():
        of_R = counts_KC[rows]
        parts = [of_R[:, rows]]
        if len(rows) < count:
            parts.append((of_R[:, :count].sum(1) - parts[0].sum(1))[:, None])
        if silent:
            parts.append(of_R[:, count:])
        matrices[kind] = Matrix(torch.cat(parts, 1), names, columns)
    return matrices


def _counts(answer_N: Tensor, label_N: Tensor, classes: int) -> Tensor:
    """Images by class and answer, (K, K + 1): what is no class counts in the last column."""
    answer_N = answer_N.where(answer_N >= 0, classes)
    return torch.bincount(label_N * (classes + 1) + answer_N, minlength=classes * (classes + 1)).view(classes, -1)


def _shown(counts: Sequence[Tensor], classes: int) -> list[int]:
    """The classes that are shown, in order."""
    if classes <= MOST_CLASSES:
        return list(range(classes))
    wrong_KC = torch.stack(list(counts)).sum(0)
    wrong_KC[range(classes), range(classes)] = 0
    confused_K = wrong_KC.sum(1) + wrong_KC[:, :classes].sum(0)
    return sorted(confused_K.sort(descending=True, stable=True).indices[:MOST_CONFUSED].tolist())


def _panel(axes: Any, matrix: Matrix) -> Any:
    """One heat map: the more, the darker."""
    percent_RC = matrix.percent
    image = axes.imshow(percent_RC.numpy(), vmin=0, vmax=100, cmap="Blues", interpolation="none")
    named = len(matrix.rows) <= MOST_NAMED_TWICE
    axes.set_yticks(range(len(matrix.rows)), map(plain, matrix.rows), fontsize="small" if named else 5)
    if named:
        axes.set_xticks(range(len(matrix.columns)), map(plain, matrix.columns), rotation=90, fontsize="small")
    else:
        axes.set_xticks([])
    axes.set_xlabel("answered" if named else f"answered: {_order(matrix)}")
    if len(matrix.rows) <= MOST_WITH_NUMBERS:
        for row, column in matrix.counts.nonzero().tolist():
            colour = "white" if percent_RC[row, column] > 55 else "black"
            count = int(matrix.counts[row, column])
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize="small")
    return image


def _order(matrix: Matrix) -> str:
    more = matrix.columns[len(matrix.rows) :]
    return "the same classes in the same order" + "".join(f", then {name}" for name in more)


def _title(shown: int, classes: int, images: int) -> str:
    which = f"the {shown} of {classes} classes that are most confused" if shown < classes else f"{classes} classes"
    return f"{which}, {images} image{'s' * (images != 1)}"
