"""Figures: drawn without a screen, and written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from advss.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def new_figure(*, width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, its folder made; returns ``path``.

    Raises:
        UsageError: it cannot be written; what stood there is intact.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    write_bytes(path, drawn.getvalue())
    return path
