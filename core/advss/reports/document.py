"""What a report consists of, whatever it is written as: sections of text, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advss.figures import drawn_as_pdf, drawn_as_svg
from advss.reports.compared import Summed
from advss.reports.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "–"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Lines:
    """Lines that are shown as they are: notes, each a point of a list, or code."""

    lines: Sequence[str]
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table; its first ``left`` columns are text, the others numbers.

    Attributes:
        name: a file's or a label's, unique in the report.
        caption: what it shows.
        headings: of the columns.
        rows: cells as texts.
        left: how many columns are flush left.
        note: stands below it.
    """

    name: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure, in figures/NAME.svg and .pdf."""

    name: str
    caption: str
    svg: str
    pdf: bytes


def drawing(name: str, caption: str, figure: Figure) -> Drawing:
    """A figure of matplotlib, drawn."""
    return Drawing(name, caption, drawn_as_svg(figure), drawn_as_pdf(figure))


Block = Text | Lines | Table | Drawing


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report."""

    title: str
    summary: Sequence[str]  # paragraphs
    sections: Sequence[Section]


def percent(share: float | None) -> str:
    """A share in percent, without the sign."""
    return NONE if share is None else f"{100 * share:.2f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def between(interval: Interval | None, *, signed: bool = False, share: bool = True) -> str:
    """An interval: ``84.1 to 85.2``, in percent where it is of shares, which end at 0 and 100."""
    if interval is None:
        return NONE
    if signed:
        return " to ".join(points(min(1.0, max(-1.0, end))) for end in interval)
    ends = (f"{100 * min(1.0, max(0.0, end)):.1f}" if share else f"{end:.3g}".replace("-", "−") for end in interval)
    return " to ".join(ends)


def with_sd(found: Summed | None) -> str:
    """Mean and standard deviation over seeds: ``84.72 ± 0.31``."""
    if found is None:
        return NONE
    form = percent if found.share else "{:.4g}".format
    return form(found.mean) + ("" if found.sd is None else f" ± {form(found.sd)}")


def p_value(p: float) -> str:
    """A test's p, never 0."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def several(count: int, what: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {what}" + ("" if count == 1 else "s")
