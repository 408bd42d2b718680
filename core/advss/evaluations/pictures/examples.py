"""A page of images beside their adversarial examples: what was changed, and what the classifier says of both.

Letters: N images, C channels, H and W their sides, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advss.figures import new_figure, plain, short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES, ABREAST = 12, 3
SIDE, GAP, BETWEEN, TEXT, TOP = 1.15, 0.07, 0.35, 0.28, 0.3  # inches: a panel, between panels, between images, text
SMALL = 64  # pixels: a smaller image is shown with its pixels' edges
RIGHT, WRONG = "✓", "✗"


@dataclass(frozen=True)
class Page:
    """What one page shows, on the CPU."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    examples: Tensor  # the same images, attacked
    label: Tensor  # (N,)
    clean: Tensor  # (N, K), the classifier's probabilities for x
    attacked: Tensor  # and for the examples
    classes: Sequence[str]
    title: str


def draw_examples(page: Page) -> Figure:
    """Draw each image, its perturbation and its adversarial example side by side, with class and probability.

    The perturbation is magnified so that its largest element is 0 or 1 about a grey of 0.5; its factor stands above.

    Raises:
        ValueError: the page has no image, or more than 12.
    """
    count = len(page.x)
    if not 1 <= count <= MOST_IMAGES:
        raise ValueError(f"a page has 1 to {MOST_IMAGES} images, not {count}")
    abreast = min(count, ABREAST)
    down = -(-count // abreast)
    across, high = 3 * SIDE + 2 * GAP + BETWEEN, SIDE + 2 * TEXT + 0.1
    figure = new_figure(width=abreast * across, height=down * high + TOP)
    figure.set_layout_engine("none")  # 36 panels would take it seconds
    figure.suptitle(plain(page.title), fontsize="medium", y=1 - 0.1 / figure.get_figheight(), va="top")
    for place in range(count):
        row, column = divmod(place, abreast)
        _example(figure, page, place, left=column * across + BETWEEN / 2, bottom=(down - 1 - row) * high)
    return figure


def _example(figure: Figure, page: Page, place: int, *, left: float, bottom: float) -> None:
    """One image in three panels, and a line below; its corner in inches."""
    width, height = figure.get_size_inches()
    x_CHW, example_CHW = page.x[place].float(), page.examples[place].float()
    shown_CHW, factor = magnified(example_CHW - x_CHW)
    lefts = [left + i * (SIDE + GAP) for i in range(3)]
    panels = [figure.add_axes((x / width, (bottom + TEXT) / height, SIDE / width, SIDE / height)) for x in lefts]
    for axes, image_CHW in zip(panels, (x_CHW, shown_CHW, example_CHW), strict=True):
        _show(axes, image_CHW)
    names = short_labels(page.classes)
    label = int(page.label[place])
    panels[0].set_title(plain(names[label]), fontsize="small")
    panels[1].set_title("no change" if factor is None else f"change × {factor:.3g}", fontsize="small")
    panels[2].set_title("attacked", fontsize="small")
    said = [_said(probability_NK[place], label, names) for probability_NK in (page.clean, page.attacked)]
    middle = (lefts[1] + SIDE / 2) / width, (bottom + TEXT - 0.08) / height
    figure.text(*middle, plain(" → ".join(said)), fontsize="small", ha="center", va="top")


def magnified(delta_CHW: Tensor) -> tuple[Tensor, float | None]:
    """A perturbation about a grey of 0.5, and by what it was multiplied: None where there is none."""
    largest = float(delta_CHW.abs().max())
    factor = 0.5 / largest if largest else None
    return 0.5 + delta_CHW * (factor or 0), factor


def _said(probability_K: Tensor, label: int, names: Sequence[str]) -> str:
    """``✓ cat 0.93``."""
    largest, answer = probability_K.max(0)
    if not largest.isfinite():
        return f"{WRONG} no answer"
    return f"{RIGHT if int(answer) == label else WRONG} {names[int(answer)]} {float(largest):.2f}"


def _show(axes: Any, image_CHW: Tensor) -> None:
    """One image, grey where it has not three channels."""
    image_HWC = image_CHW.clamp(0, 1).permute(1, 2, 0)
    image = image_HWC if image_HWC.shape[2] == 3 else image_HWC.mean(2)
    near = max(image.shape[:2]) <= SMALL
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none" if near else "auto")
    axes.set_axis_off()
