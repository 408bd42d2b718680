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
    """Tables and figures, each to be taken into a paper; the preamble needs booktabs and graphicx."""
    blocks = [block for section in report.sections for block in section.blocks]
    drawn = [_typeset(block) for block in blocks if isinstance(block, Table | Drawing)]
    return "\n\n".join([r"% \usepackage{booktabs,graphicx}", *drawn]) + "\n"


def _typeset(block: Table | Drawing) -> str:
    if isinstance(block, Drawing):
        shown = [rf"\includegraphics[width=\linewidth]{{figures/{block.name}.pdf}}", *_labelled(block)]
        return "\n".join([r"\begin{figure}", r"\centering", *shown, r"\end{figure}"])
    columns = "l" * block.left + "r" * (len(block.headings) - block.left)
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (block.headings, *block.rows)]
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    note = [rf"\par\smallskip\footnotesize {escaped(block.note)}"] if block.note else []
    begun = [r"\begin{table}", r"\centering", r"\small", *_labelled(block)]
    return "\n".join([*begun, *table, r"\end{tabular}", *note, r"\end{table}"])


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
