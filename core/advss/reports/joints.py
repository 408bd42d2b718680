"""Models side by side: averages with their members, and how attacks made on one succeed on the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from advss.reports.document import NONE, Block, Section, Table, Text, percent
from advss.reports.reading import Comparison, Subject


def joints(subject: Subject) -> Section | None:
    """Averages and comparisons; None where there are none."""
    blocks: list[Block] = [*_averages(subject)]
    for place, (name, found) in enumerate(groupby(subject.comparisons, lambda one: one.name), 1):
        blocks += _compared(subject, name, list(found), place)
    return Section("Averages and transfer", blocks) if blocks else None


def _averages(subject: Subject) -> Iterator[Block]:
    rows, known = [], {cell.run.name: cell for cell in subject.cells if cell.run}
    for cell in subject.cells:
        who = [cell.label, str(cell.seed)]
        for member in cell.result.get("members") or ():
            one = known.get(str(member.get("run")))
            found = one.result if one else member
            name = one.label if one else str(member.get("run"))
            rows.append([*who, name, percent(found.get("ta")), percent(found.get("ra"))])
        if cell.kind == "ensemble" and cell.result:
            rows.append([*who, "their average", percent(cell.result.get("ta")), percent(cell.result.get("ra"))])
    if rows:
        headings = ["average", "seed", "of", "TA", "RA"]
        note = "The attack on an average is on the averaged probabilities."
        yield Table("averages", "Averages of models, percent of test images", headings, rows, left=3, note=note)


def _compared(subject: Subject, name: str, found: Sequence[Comparison], place: int) -> Iterator[Block]:
    """Three tables as of the paper's Table 4, means over seeds."""
    outcomes = [one.outcome for one in found if one.outcome.get("asr")]
    if not outcomes:
        yield Text(f"{name}: {'; '.join(f'seed {one.seed} {one.state}' for one in found)}.")
        return
    labels, attack = found[0].labels, (outcomes[0].get("attack") or {}).get("title", "")
    seeds = f"{len(outcomes)} of {len(found)} seeds, means"
    asr, clean = _mean(outcomes, "asr"), _mean(outcomes, "error")
    rows = [[a, *map(percent, row), percent(e)] for a, row, e in zip(labels, asr, clean, strict=True)]
    title = f"{name}: percent of test images that are wrong under {attack} ({seeds})"
    headings, key = ["attacked \\ made on", *labels], f"transfer-{place}"
    yield Table(key, title, [*headings, "clean error"], rows)
    rates, counts = _mean(outcomes, "asr_both_right"), _mean(outcomes, "both_right")
    both = [[_of_right(*one) for one in zip(*row, strict=True)] for row in zip(rates, counts, strict=True)]
    title = f"{name}: on how many of the images that both models have right unperturbed the attack succeeds"
    yield Table(f"{key}-right", title, headings, [[a, *row] for a, row in zip(labels, both, strict=True)])
    yield from _overlap(name, found, key)
    yield from _paper(subject, name, labels, asr, key)


def _of_right(rate: float, count: float) -> str:
    return f"{NONE if math.isnan(rate) else percent(rate) + ' %'} of {count:.0f}"


def _mean(outcomes: Sequence[dict[str, Any]], key: str) -> Any:
    """Mean over seeds, numbers that are null left out; nan where all are."""
    stacked = np.array([outcome[key] for outcome in outcomes], dtype=np.float64)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))


def _overlap(name: str, found: Sequence[Comparison], key: str) -> Iterator[Block]:
    """Counts of Figure 5: images, right on all models unperturbed, that a source's examples change on the others."""
    rows = []
    for one in found:
        models = one.outcome.get("models") or []
        for label, model in zip(one.labels, models, strict=False):
            overlap = one.outcome["overlap"][model]["others_right"]
            shared = sum(region["count"] for region in overlap["regions"] if len(region["models"]) == len(models) - 1)
            counts = str(overlap["union"]), str(shared), percent(overlap["not_shared"])
            rows.append([label, str(one.seed), str(len(one.outcome["all_right"])), *counts])
    if rows and len(found[0].labels) > 2:
        headings = ["made on", "seed", "right on all", "change any other", "change all others", "not shared %"]
        yield Table(f"{key}-overlap", f"{name}: which images the examples change on the others", headings, rows)


def _paper(subject: Subject, name: str, labels: Sequence[str], asr: Any, key: str) -> Iterator[Block]:
    """The paper's matrix beside ours."""
    said: Any = subject.published.get("transfers")
    paper = said.get(name) if isinstance(said, dict) else None
    if isinstance(paper, list) and np.shape(paper) == np.shape(asr):
        pairs = [[f"{t:.2f} / {percent(o)}" for t, o in zip(*one, strict=True)] for one in zip(paper, asr, strict=True)]
        rows = [[a, *row] for a, row in zip(labels, pairs, strict=True)]
        yield Table(f"{key}-paper", f"{name}: the paper's / ours", ["attacked \\ made on", *labels], rows)
    if isinstance(share := subject.published.get("not_shared"), int | float):
        yield Text(f"The paper: at least {share:g} % of the images are not shared.")
