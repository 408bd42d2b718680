"""A report as Markdown and as LaTeX, and its figures as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from advss.reports.compared import summed
from advss.reports.document import Block, Drawing, Lines, Report, Table, Text
from advss.reports.reading import Subject

CSV_HEADINGS = (
    *("setting", "evaluation", "title", "options", "figure", "seeds", "mean", "sd"),
    *("low_seeds", "high_seeds", "low_images", "high_images", "images", "values"),
)
PAGE = 45  # rows that a page of LaTeX holds; longer tables are broken
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"  # no wider than a line
LONG, LONG_WIDTH = 60, 0.7  # letters from which a column of text is broken into lines, and its share of the line
LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$", "ℓ": r"$\ell$", "∞": r"$\infty$", "≤": r"$\leq$"},
    **{"α": r"$\alpha$", "σ": r"$\sigma$", "ε": r"$\epsilon$", "δ": r"$\delta$", "|": r"$|$", "<": r"$<$", ">": r"$>$"},
    **{"₁": "$_1$", "₂": "$_2$", "…": r"\ldots{}"},
}


def markdown(report: Report) -> str:
    """The report's text, figures by their files."""
    parts = [f"# {report.title}", *report.summary]
    for section in report.sections:
        parts += [f"## {section.title}", *(_marked(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def _marked(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case Lines(code=True):
            return "\n".join(["```", *block.lines, "```"])
        case Lines():
            return "\n".join(f"- {_plain(line)}" for line in block.lines)
        case Drawing():
            return f"![{block.caption}](figures/{block.name}.svg)"
    aligned = ["---" if place < block.left else "---:" for place in range(len(block.headings))]
    lines = [f"| {' | '.join(map(_plain, row))} |" for row in (block.headings, aligned, *block.rows)]
    return f"**{_plain(block.caption)}**\n\n" + "\n".join(lines) + (f"\n\n{block.note}" if block.note else "")


def _plain(text: str) -> str:
    """Text that ends no cell and begins no element."""
    return re.sub(r"([|<*_`\\])", r"\\\1", " ".join(text.split()))


def latex(report: Report) -> str:
    """Tables and figures, each to be taken into a paper; the first line says what the preamble needs."""
    blocks = [block for section in report.sections for block in section.blocks]
    drawn = [_typeset(block) for block in blocks if isinstance(block, Table | Drawing)]
    return "\n\n".join([r"% \usepackage{booktabs,graphicx,longtable}", *drawn]) + "\n"


def _typeset(block: Table | Drawing) -> str:
    if isinstance(block, Drawing):
        shown = [rf"\includegraphics[width=\linewidth]{{figures/{block.name}.pdf}}", *_labelled(block)]
        return "\n".join([r"\begin{figure}", r"\centering", *shown, r"\end{figure}"])
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (block.headings, *block.rows)]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    note = [rf"\par\smallskip\footnotesize {escaped(block.note)}"] if block.note else []
    if len(block.rows) > PAGE:
        caption, label = _labelled(block)
        begun = [r"\begingroup\small", rf"\begin{{longtable}}{{{_columns(block)}}}", caption + label + r"\\"]
        return "\n".join([*begun, *body, r"\end{longtable}", *note, r"\endgroup"])
    begun = [r"\begin{table}", r"\centering", r"\small", *_labelled(block)]
    table = [FITTED + "{%", rf"\begin{{tabular}}{{{_columns(block)}}}", *body, r"\end{tabular}}"]
    return "\n".join([*begun, *table, *note, r"\end{table}"])


def _columns(block: Table) -> str:
    """Text flush left, in lines of its own where it is long; numbers flush right."""
    longest = [max(len(row[place]) for row in (block.headings, *block.rows)) for place in range(block.left)]
    text = (rf"p{{{LONG_WIDTH}\linewidth}}" if length > LONG else "l" for length in longest)
    return "".join(text) + "r" * (len(block.headings) - block.left)


def _labelled(block: Table | Drawing) -> list[str]:
    return [rf"\caption{{{escaped(block.caption)}}}", rf"\label{{{block.name}}}"]


def escaped(text: str) -> str:
    """Text as LaTeX writes it."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def as_csv(subject: Subject) -> str:
    """A line for each setting and figure, in full precision: shares from 0 to 1."""
    out = io.StringIO()
    written = csv.writer(out, lineterminator="\n")
    written.writerow(CSV_HEADINGS)
    written.writerows(_rows(subject))
    return out.getvalue()


def _rows(subject: Subject) -> Iterator[list[object]]:
    for label, cells in subject.settings.items():
        for column in subject.columns:
            if found := summed(cells, column):
                values = " ".join(f"{seed}:{value!r}" for seed, value in found.values.items())
                ends = [*(found.seeds or ("", "")), *(found.images or ("", ""))]
                by = [label, *column.measured_by, column.figure]
                sd, count = ("" if one is None else one for one in (found.sd, found.count))
                yield [*by, len(found.values), found.mean, sd, *ends, count, values]
