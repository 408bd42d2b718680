"""Figures: drawn without a screen, told apart without colour, and written whole or not at all."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
LABEL_LENGTH = 16  # characters of a label in a figure
# the same file each time; text stays text, in a PDF too, where publishers take no Type 3
FORM: Any = {"svg.hashsalt": "advss", "svg.fonttype": "none", "pdf.fonttype": 42}


@dataclass(frozen=True)
class Look:
    """How one thing of several is drawn: any of these alone tells it from the others."""

    colour: str
    line: str
    marker: str
    hatch: str

    @property
    def of_line(self) -> dict[str, Any]:
        """How matplotlib draws a line of it, its points marked."""
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker, "markersize": 4}

    @property
    def of_area(self) -> dict[str, Any]:
        """How matplotlib fills an area with it."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "white"}


# lightness L* of 20, 56, 75 and 37: on paper and to any eye apart, and none too light on white
LOOKS = (
    Look("#1b2f6b", "-", "o", ""),
    Look("#d9622b", "--", "s", "///"),
    Look("#9fbbe0", "-.", "^", "\\" * 3),
    Look("#7a3f8f", ":", "D", "+++"),
)


def look(place: int) -> Look:
    """The look of the ``place``-th of many: up to 16 differ in colour or line."""
    colour, other = LOOKS[place % 4], LOOKS[(place + place // 4) % 4]
    return Look(colour.colour, other.line, other.marker, other.hatch)


def new_figure(*, width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG, its folder made; the same figure gives the same bytes.

    Args:
        figure: of :func:`new_figure`.
        path: of the PNG; the SVG stands beside it.

    Returns:
        The two files, the PNG first.

    Raises:
        UsageError: they cannot be written; what stood there is intact.
    """
    files = path, path.with_suffix(".svg")
    png = _drawn(figure, format="png", dpi=DPI)
    figure.set_layout_engine("none")  # where everything stands is found once, which takes as long as drawing
    svg = drawn_as_svg(figure).encode()
    for file, content in zip(files, (png, svg), strict=True):
        write_bytes(file, content)
    return files


def drawn_as_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file; the same figure gives the same text."""
    return _drawn(figure, format="svg", metadata={"Date": None}).decode()


def drawn_as_pdf(figure: Figure) -> bytes:
    """A figure as a PDF file; the same figure gives the same bytes."""
    return _drawn(figure, format="pdf", metadata={"CreationDate": None})


def _drawn(figure: Figure, **form: Any) -> bytes:
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context(FORM), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a class may be named 猫
        figure.savefig(drawn, **form)
    return drawn.getvalue()


def short_labels(labels: Sequence[str]) -> list[str]:
    """Labels of at most ``LABEL_LENGTH`` characters, their middle left out; numbered where that makes two the same."""
    head = (LABEL_LENGTH - 1) // 2
    tail = LABEL_LENGTH - 1 - head
    short = [label if len(label) <= LABEL_LENGTH else f"{label[:head]}…{label[-tail:]}" for label in labels]
    if len(set(short)) == len(set(labels)):
        return short
    return [f"{place} {label}" for place, label in enumerate(short, 1)]


def plain(text: str) -> str:
    """Text that is shown as it is: matplotlib takes what stands between two ``$`` for a formula."""
    return text.replace("$", r"\$")
