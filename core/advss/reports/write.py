"""A report, put together and written: page, Markdown, CSV, LaTeX and figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from advss.errors import UsageError
from advss.files import write_bytes, write_text
from advss.reports.document import Drawing, Report, several
from advss.reports.formats import as_csv, latex, markdown
from advss.reports.joints import joints
from advss.reports.page import page
from advss.reports.provenance import repeating, settings, warnings
from advss.reports.reading import Subject
from advss.reports.results import Against, comparisons, evaluations, published, results
from advss.reports.training import training


def report_of(subject: Subject, against: Against) -> Report:
    """What a report says.

    Raises:
        UsageError: nothing of it is measured yet, or there is no row or column to compare with.
    """
    if not subject.columns:
        states = ", ".join(f"{count} {state}" for state, count in Counter(c.state for c in subject.cells).items())
        raise UsageError(f"nothing of {subject.name} is measured yet ({states}); a report needs one measured run")
    against.check(subject)
    parts = [
        results(subject),
        comparisons(subject, against),
        published(subject),
        evaluations(subject),
        training(subject),
        joints(subject),
        settings(subject),
        warnings(subject),
        repeating(subject),
    ]
    return Report(f"Report of {subject.name}", _summary(subject), [part for part in parts if part])


def _summary(subject: Subject) -> list[str]:
    lines = [" ".join(subject.description.split())] if subject.description else []
    done = sum(cell.state == "done" for cell in subject.cells)
    seeds = several(len({cell.seed for cell in subject.cells}), "seed")
    counts = (
        f"{several(len(subject.settings), 'setting')}, {seeds}; {done} of {several(len(subject.cells), 'run')} done."
    )
    return [*lines, counts]


def write(subject: Subject, against: Against, folder: Path) -> list[Path]:
    """Write the report into a folder, each file whole or not at all; returns the files, the page first.

    Raises:
        UsageError: as :func:`report_of`, or a file cannot be written.
    """
    report = report_of(subject, against)
    texts = {"html": page(report), "md": markdown(report), "csv": as_csv(subject), "tex": latex(report)}
    written = [folder / f"report.{ending}" for ending in texts]
    drawings = [block for section in report.sections for block in section.blocks if isinstance(block, Drawing)]
    for drawing in drawings:
        place = folder / "figures" / f"{drawing.name}.svg"
        write_text(place, drawing.svg)
        write_bytes(place.with_suffix(".pdf"), drawing.pdf)
        written += [place, place.with_suffix(".pdf")]
    for path, text in zip(written, texts.values(), strict=False):
        write_text(path, text)
    return written
