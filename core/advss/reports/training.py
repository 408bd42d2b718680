"""How the runs trained: learning curves, epochs to the best, cost, and how an ensemble's gradients lay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from advss.reports.document import NONE, Block, Section, Table, drawing
from advss.reports.drawings import draw_curves, draw_gradients
from advss.reports.journals import ends, gradients, pair, peak, validation
from advss.reports.reading import Cell, Subject

STAGES = ("pretrain", "finetune", "evaluate")


def training(subject: Subject) -> Section | None:
    """Curves and cost; None where nothing was trained."""
    drawings: list[Block] = [
        drawing(f"curves-{place}", "Validation by epoch of fine-tuning: mean over seeds, from least to highest", figure)
        for place, figure in enumerate(draw_curves(subject), 1)
    ]
    blocks = [*drawings, *_cost(subject), *_gradients(subject)]
    return Section("Training", blocks) if blocks else None


def _cost(subject: Subject) -> list[Block]:
    rows = []
    for label, cells in subject.settings.items():
        done = [cell for cell in cells if cell.result]
        if not done or done[0].kind == "ensemble":
            continue
        tops = [[p for cell in done if (p := peak(validation(cell, figure)))] for figure in ("ra", "ta")]
        chosen = [cell.result.get("best_epoch") for cell in done]
        epochs = [(cell.result.get("epochs") or {}).get("finetune") for cell in done]
        passes = [cell.passes for cell in cells if cell.passes is not None]
        seconds = [_mean([s for c in done if (s := _seconds(c, stage)) is not None]) for stage in STAGES]
        rows.append(
            [
                label,
                *map(_mean, tops),
                _mean(chosen),
                _mean(epochs),
                f"{np.mean(passes):,.0f}" if passes else NONE,
                *seconds,
            ]
        )
    headings = [
        "setting",
        "best RA at",
        "best TA at",
        "chosen",
        "epochs",
        "passes",
        *(f"{stage} s" for stage in STAGES),
    ]
    note = (
        "Epochs of fine-tuning by validation, the chosen one's checkpoint is measured; passes, forward and backward "
        "of one image, as they were counted beforehand, and seconds of pretraining, which cells may share. "
        "Means over seeds."
    )
    return [Table("cost", "Epochs and cost of a run", headings, rows, note=note)] if rows else []


def _seconds(cell: Cell, stage: str) -> float | None:
    for result in (cell.result, cell.started_from):
        if stage in (result.get("seconds") or {}):
            return float(result["seconds"][stage])
    return None


def _mean(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}".removesuffix(".0") if known else NONE


def _gradients(subject: Subject) -> list[Block]:
    """What became of |cos| and g between the first tenth of the steps and the last."""
    rows = []
    for label, cells in subject.settings.items():
        found = [curves for cell in cells if (curves := gradients(cell))]
        for name in found[0] if found else ():
            told = np.array([ends(curves[name]) for curves in found if name in curves])
            rows.append(
                [label, pair(name), str(len(told)), *(f"{value:.4f}".replace("-", "−") for value in told.mean(0))]
            )
    if not rows:
        return []
    headings = ["setting", "of the batch's mean", "seeds", "first tenth", "last tenth"]
    title = "Input gradients of the tasks of an ensemble, by steps of pretraining"
    blocks: list[Block] = [Table("gradients", title, headings, rows, left=2)]
    if figure := draw_gradients(subject):
        blocks.append(drawing("gradients", "Cosines of the tasks' input gradients", figure))
    return blocks
