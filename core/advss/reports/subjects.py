"""Runs as the subject of a report: those that differ in their seed alone are one setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advss.files import read_json
from advss.naming import as_typed
from advss.reports.reading import Cell, Comparison, Subject
from advss.runs.folder import RunFolder, labelled
from advss.runs.listing import COMPARISON, row_of


def of_runs(folders: Sequence[Path], name: str) -> Subject:
    """Runs, averages and comparisons of runs, by their folders."""
    labels = dict(zip(folders, labelled([RunFolder(folder) for folder in folders]), strict=True))
    cells, known = list[Cell](), dict[str, str]()
    for folder, label in labels.items():
        if not (folder / COMPARISON).is_file():
            cells.append(_cell(folder, label, known))
    of_label = {label: [cell for cell in cells if cell.label == label] for label in known.values()}
    compared = [_comparison(folder) for folder in folders if (folder / COMPARISON).is_file()]
    return Subject(name, [c for found in of_label.values() for c in found], compared, commands=_commands(cells))


def _cell(folder: Path, label: str, known: dict[str, str]) -> Cell:
    row, run = row_of(folder), RunFolder(folder)
    found = Cell(label, 0, "done" if row.state == "finished" else row.state, row.problem, run)
    source = Path(str(found.result.get("source") or "")).parent.parent
    seed, kind = found.result.get("seed", 0), "ensemble" if row.kind == "ensemble" else "cell"
    alike: Any = [row.kind, found.settings] if kind == "cell" and found.settings else label
    label = known.setdefault(json.dumps(alike, sort_keys=True, default=str), label)
    begun = next(
        (p for p in (folder.parent / source.name, source) if source.name and (p / "config.yaml").is_file()), None
    )
    return Cell(label, int(seed or 0), found.state, found.why, run, RunFolder(begun) if begun else None, kind=kind)


def _comparison(folder: Path) -> Comparison:
    outcome = read_json(folder / COMPARISON)
    seeds = {model.get("seed") for model in outcome.get("runs") or ()}
    seed = int(seeds.pop() or 0) if len(seeds) == 1 else 0
    return Comparison(folder.name, seed, row_of(folder).state, folder, tuple(outcome.get("models") or ()))


def _commands(cells: Sequence[Cell]) -> list[str]:
    """A line a run that makes it again."""
    lines = []
    for cell in cells:
        if cell.run is None or not cell.result:
            continue
        members, config = cell.result.get("members"), as_typed(cell.run.config)
        if members:
            lines.append(f"advss ensemble {' '.join(str(member.get('run')) for member in members)}")
        elif cell.result.get("command") == "finetune" and cell.pretraining:
            lines.append(f"advss finetune --from {as_typed(cell.pretraining.path)} --config {config}")
        else:
            lines.append(f"advss {'pretrain' if cell.result.get('command') == 'pretrain' else 'fit'} --config {config}")
    return lines
