"""What was measured: the settings' table, a table an evaluation, comparisons, and a paper's numbers beside ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advss.errors import UsageError, did_you_mean
from advss.naming import in_words
from advss.reports.compared import Order, best, compare, orders, published_rows, summed
from advss.reports.document import (
    NONE,
    Block,
    Section,
    Table,
    Text,
    between,
    drawing,
    p_value,
    points,
    several,
    with_sd,
)
from advss.reports.drawings import HEADS, draw_accuracies
from advss.reports.measured import Column
from advss.reports.reading import Cell, Subject
from advss.reports.statistics import Difference, holm

WORST = ("failed", "not run", "damaged", "diverged", "stopped", "interrupted", "running", "waiting")
FIRST, BEST = "first", "best"


@dataclass(frozen=True)
class Against:
    """Which row others are compared with: ``first``, ``best``, or a label; of each group of what ``within`` names."""

    row: str = FIRST
    within: str | None = None

    def check(self, subject: Subject) -> None:
        """Raise UsageError where there is no such row, or nothing of that name to group by."""
        labels = list(subject.settings)
        if self.row not in (FIRST, BEST, *labels):
            raise UsageError(f"--against: there is no row '{self.row}'{did_you_mean(self.row, [FIRST, BEST, *labels])}")
        known = dict.fromkeys(key for cell in subject.cells for key in (*cell.values, *cell.settings))
        if self.within and self.within not in known:
            raise UsageError(f"--within: no row has a '{self.within}'{did_you_mean(self.within, known)}")

    def groups(self, subject: Subject) -> dict[str, list[str]]:
        """Labels by the group that they are in."""
        found: dict[str, list[str]] = {}
        for label, cells in subject.settings.items():
            said = cells[0].values.get(self.within, cells[0].settings.get(self.within)) if self.within else ""
            found.setdefault(str(said), []).append(label)
        return found

    def chosen(self, subject: Subject, labels: Sequence[str], column: Column) -> str:
        """The label that the others of a group are compared with; its first where it is in another."""
        if self.row == BEST:
            return best(subject, labels, column)
        return self.row if self.row in labels else labels[0]


def results(subject: Subject) -> Section:
    """TA and RA of each setting, and how its cells stand."""
    blocks: list[Block] = []
    for place, measured_by in enumerate(subject.headlines or [("", "", "")]):
        heads = [c for c in subject.columns if c.measured_by == measured_by and c.figure in HEADS]
        title = f" by {subject.titles[measured_by]}" if measured_by[1] else ""
        name = "results" if place == 0 else f"results-{place + 1}"
        blocks.append(_settings(subject, heads, name, f"Accuracy of each setting{title}, percent of test images"))
    if figure := draw_accuracies(subject):
        said = "TA and RA: the mean over seeds, each seed as a tick, and the 95 % interval over test images as a line"
        blocks.append(drawing("accuracies", said, figure))
    return Section("Results", blocks)


def evaluations(subject: Subject) -> Section | None:
    """A table of each evaluation that has more figures than TA and RA of the headline."""
    blocks: list[Block] = []
    measured = dict.fromkeys(column.measured_by for column in subject.columns)
    for by in measured:
        more = [
            c for c in subject.columns if c.measured_by == by and not (by in subject.headlines and c.figure in HEADS)
        ]
        if more:
            blocks.append(_figures(subject, more, f"measured-{len(blocks) + 1}", subject.titles[by]))
    return Section("All that was measured", blocks) if blocks else None


def _settings(subject: Subject, columns: Sequence[Column], name: str, caption: str) -> Table:
    headings, counts = ["setting", "state", "seeds"], set[int | None]()
    for column in columns:
        title = column.words
        headings += [title, f"{title}, 95 % over seeds", f"{title}, 95 % over images"]
    rows = []
    for label, cells in subject.settings.items():
        row = [label, _state(cells), f"{sum(cell.state == 'done' for cell in cells)} of {len(cells)}"]
        for column in columns:
            found = summed(cells, column)
            counts |= {found.count} if found else set()
            row += [with_sd(found), *(between(i) for i in ((found.seeds, found.images) if found else (None, None)))]
        rows.append(row)
    images = f"of {counts.pop()} test images" if len(counts) == 1 and None not in counts else "of differing test images"
    note = f"Mean ± standard deviation over seeds, {images}." if columns else ""
    return Table(name, caption, headings, rows, left=2, note=note)


def _figures(subject: Subject, columns: Sequence[Column], name: str, title: str) -> Table:
    """A line a setting and figure, which leaves room for any number of figures."""
    rows = []
    for label, cells in subject.settings.items():
        for column in columns:
            if found := summed(cells, column):
                spread = between(found.seeds, share=found.share), between(found.images)
                count = NONE if found.count is None else str(found.count)
                rows.append([label, column.words, str(len(found.values)), with_sd(found), *spread, count])
    headings = ["setting", "figure", "seeds", "mean ± sd", "95 % over seeds", "95 % over images", "images"]
    note = "Accuracies in percent; what is over no images is a number of another kind."
    return Table(name, title, headings, rows, left=2, note=note)


def _state(cells: Sequence[Cell]) -> str:
    """How a setting stands: the worst of its cells, and why."""
    for state in WORST:
        for cell in cells:
            if cell.state == state:
                return f"{state}: {cell.why}" if cell.why else state
    return "done"


def comparisons(subject: Subject, against: Against) -> Section | None:
    """Every accuracy of every setting against one of its group, over the same images."""
    blocks: list[Block] = []
    for column in _accuracies(subject):
        for group, labels in against.groups(subject).items():
            others = [label for label in labels if any(column in cell.figures for cell in subject.settings[label])]
            if len(others) > 1:
                blocks.append(_against(subject, column, others, against, f"compared-{len(blocks) + 1}", group))
    if not blocks:
        return None
    said = (
        "Each row over the seeds that both rows have, and the same test images. Of one seed McNemar's exact test, "
        "and the interval that belongs to it; of several a t test for other seeds and other images (Hillis 2007). "
        "Rows are not told apart where the interval of the difference has 0 in it; p (Holm) is of all rows of a table."
    )
    return Section("Compared", [Text(said), *blocks])


def _accuracies(subject: Subject) -> Iterator[Column]:
    """The columns that are accuracies; TA of the same images is one, whatever measured it."""
    seen: list[dict[tuple[str, int], tuple[float, int | None]]] = []
    for column in subject.columns:
        found = {
            (c.label, c.seed): (c.figures[column].value, c.figures[column].images)
            for c in subject.cells
            if column in c.figures
        }
        if any(images is not None for _, images in found.values()) and not (column.figure == "ta" and found in seen):
            seen += [found] if column.figure == "ta" else []
            yield column


def _against(subject: Subject, column: Column, labels: Sequence[str], against: Against, name: str, group: str) -> Table:
    chosen = against.chosen(subject, labels, column)
    others = [label for label in labels if label != chosen]
    found = {label: compare(subject.settings[label], subject.settings[chosen], column) for label in others}
    tested = [label for label, one in found.items() if isinstance(one, Difference)]
    raised = dict(zip(tested, holm([one.p for one in found.values() if isinstance(one, Difference)]), strict=True))
    rows = [_compared(label, one, raised.get(label)) for label, one in found.items()]
    headings = ["row", "verdict", "difference", "95 %", "p", "p (Holm)", "seeds", "images", "right alone"]
    within = f", {against.within} {group}" if against.within else ""
    title = f"{column.words} ({subject.titles[column.measured_by]}) against {chosen}{within}, percentage points"
    tests = dict.fromkeys(one.test for one in found.values() if isinstance(one, Difference))
    note = f"By {' and '.join(tests)}. Right alone: images that this row alone has right, and the other alone."
    return Table(name, title, headings, rows, left=2, note=note if tests else "")


def _compared(label: str, found: Difference | str, raised: float | None) -> list[str]:
    if isinstance(found, str) or raised is None:
        return [label, f"not compared: {found}", *[NONE] * 7]
    alone = NONE if found.only is None else f"{found.only[0]} : {found.only[1]}"
    said = (points(found.difference), between(found.interval, signed=True), p_value(found.p), p_value(raised))
    return [label, verdict(found), *said, str(found.seeds), str(found.images), alone]


def verdict(found: Difference) -> str:
    """Above, below, or not told apart."""
    return "not told apart" if not found.told_apart else "above" if found.difference > 0 else "below"


def published(subject: Subject) -> Section | None:
    """A paper's numbers beside ours, and how many of its orderings ours agree with."""
    paper = published_rows(subject)
    if not paper:
        return None
    source = str(subject.published.get("source", ""))
    blocks: list[Block] = [Text(f"The paper's: {source}.")] if source else []
    blocks.append(_beside(subject, paper))
    for figure in HEADS:
        if found := list(orders(subject, figure)):
            blocks += [Text(counted(figure, found)), _orders(figure, found)]
    return Section("Published", blocks)


def counted(figure: str, found: Sequence[Order]) -> str:
    """How many pairs of rows stand as the paper has them, in a line."""
    by = Counter(order.verdict for order in found)
    line = (
        f"{in_words(figure)}: of {several(len(found), 'pair')} of rows that the paper has in an order, ours agree "
        f"in {by['agree']}, disagree in {by['disagree']}, and do not tell {by['not told apart']} apart (95 %, each "
        "pair on its own)"
    )
    return line + (f"; {by[None]} cannot be compared." if by[None] else ".")


def _beside(subject: Subject, paper: Mapping[str, Mapping[str, float]]) -> Table:
    keys = dict.fromkeys(key for row in paper.values() for key in row)
    digits = {key: 1 if key == "epochs" else 2 for key in keys}
    rows = []
    for label, said in paper.items():
        row = [label]
        for key in keys:
            ours, theirs = _ours(subject, label, key), said.get(key)
            gap = NONE if ours is None or theirs is None else f"{ours - theirs:+.{digits[key]}f}".replace("-", "−")
            row += [NONE if one is None else f"{one:.{digits[key]}f}" for one in (theirs, ours)] + [gap]
        rows.append(row)
    headings = [f"{in_words(key)} {what}" for key in keys for what in ("paper", "ours", "ours − paper")]
    return Table("published", "The paper's numbers and ours, means over seeds", ["row", *headings], rows)


def _ours(subject: Subject, label: str, key: str) -> float | None:
    """Ours of a row in the paper's units: percent, or epochs."""
    cells = subject.settings.get(label, [])
    if key == "epochs":
        known = [float(cell.result["best_epoch"]) for cell in cells if cell.result.get("best_epoch")]
        return sum(known) / len(known) if known else None
    wanted: Any = ("autoattack", "ra") if key == "autoattack" else (None, key)
    columns = (c for c in subject.columns if c.figure == wanted[1] and wanted[0] in (None, c.evaluation))
    found = next((found for column in columns if (found := summed(cells, column))), None)
    return 100 * found.mean if found else None


def _orders(figure: str, found: Sequence[Order]) -> Table:
    rows = []
    for order in found:
        ours = order.ours
        told = (NONE, NONE) if isinstance(ours, str) else (points(ours.difference), between(ours.interval, signed=True))
        said = order.verdict or f"not compared: {ours}"
        rows.append([order.upper, order.lower, said, f"{order.paper:+.2f}", *told])
    headings = ["the paper has", "above", "ours", "paper", "ours", "95 %"]
    title = f"Pairs of rows by {in_words(figure)}, differences in percentage points"
    return Table(f"orders-{figure}", title, headings, rows, left=3)
