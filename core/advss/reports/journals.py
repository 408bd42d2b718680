"""What runs wrote down while they trained: validation by epoch, and how their tasks' input gradients lay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from advss.errors import UsageError
from advss.reports.reading import Cell
from advss.runs.diversity import COSINE, TERM
from advss.tracking.journal import StepMetrics, read_metrics

FINETUNE = "finetune"
Curve = dict[int, float]  # by epoch, or by step


@lru_cache(maxsize=8)
def _records(journal: Path) -> tuple[StepMetrics, ...]:
    try:
        return tuple(read_metrics(journal))
    except (OSError, UsageError):
        return ()


def validation(cell: Cell, figure: str) -> Curve:
    """Validation TA or RA of fine-tuning by epoch."""
    found = _records(cell.run.journal) if cell.run else ()
    name = f"valid/{figure}"
    return {r.epoch: r.values[name] for r in found if r.stage == FINETUNE and r.epoch and name in r.values}


def peak(curve: Curve) -> int | None:
    """The first epoch of the highest value; None of an empty curve."""
    return max(sorted(curve), key=lambda epoch: curve[epoch]) if curve else None


def mean_curve(curves: Sequence[Curve]) -> tuple[Curve, Curve, Curve]:
    """Mean, least and highest of several curves, where all of them have a value."""
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    at = {epoch: [curve[epoch] for curve in curves] for epoch in shared}
    mean, least, most = ({e: float(of(values)) for e, values in at.items()} for of in (np.mean, np.min, np.max))
    return mean, least, most


def gradients(cell: Cell) -> Mapping[str, Curve]:
    """The diversity term and |cos| of each two tasks by step, of the run that pretrained; empty of a single task."""
    folder = cell.pretraining or cell.run
    found: dict[str, Curve] = defaultdict(dict)
    for record in _records(folder.journal) if folder else ():
        for name, value in record.values.items():
            if name == TERM or name.startswith(COSINE):
                found[name][record.step] = value
    return dict(found)


def pair(name: str) -> str:
    """What a curve of :func:`gradients` is of."""
    return "diversity term g" if name == TERM else f"|cos| {name.removeprefix(COSINE).replace('/', ' and ')}"


def ends(curve: Curve) -> tuple[float, float]:
    """Means of a curve's first and of its last tenth."""
    values = [curve[step] for step in sorted(curve)]
    count = max(1, len(values) // 10)
    return float(np.mean(values[:count])), float(np.mean(values[-count:]))
