"""Where figures come from: settings that differ, warnings, and what repeats the runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advss.files import read_json
from advss.reports.document import NONE, Block, Lines, Section, Table, Text, several
from advss.reports.reading import Cell, Subject
from advss.runs.listing import printable

WARNING = "advss: warning: "


def settings(subject: Subject) -> Section | None:
    """The hyper-parameters in which settings differ; None where there is nothing to differ."""
    known = {label: cells[0].settings for label, cells in subject.settings.items() if cells[0].kind == "cell"}
    known = {label: found for label, found in known.items() if found}
    keys = dict.fromkeys(key for found in known.values() for key in found)
    # an option counts where its plugin is chosen
    differing = [k for k in keys if len({_written(found[k]) for found in known.values() if k in found}) > 1]
    if len(known) < 2 or not differing:
        return None
    lines = {key: [_written(found.get(key)) for found in known.values()] for key in differing}
    if len(differing) >= len(known):  # the longer side goes down the page
        headings, rows = ["setting", *known], [[key, *values] for key, values in lines.items()]
    else:
        headings = ["row", *differing]
        rows = [[label, *values] for label, values in zip(known, zip(*lines.values(), strict=True), strict=True)]
    title = "Settings that differ; all others are the same in every row"
    return Section("Settings", [Table("settings", title, headings, rows, left=len(headings))])


def _written(value: Any) -> str:
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else printable(value)


def warnings(subject: Subject) -> Section | None:
    """What the runs gave to doubt, a line each with the runs that gave it; None where there is nothing."""
    found: dict[str, list[str]] = {}
    for who, line in _told(subject):
        found.setdefault(line, []).append(who)
    lines = [f"{', '.join(dict.fromkeys(who))}: {line}" for line, who in found.items()]
    return Section("Warnings", [Lines(lines)]) if lines else None


def _told(subject: Subject) -> Iterator[tuple[str, str]]:
    """Who gives it, and the line."""
    for cell in subject.cells:
        yield from ((f"{cell.label}, seed {cell.seed}", printable(line)) for line in _of_cell(cell))
    for one in subject.comparisons:
        for model in one.outcome.get("runs") or ():
            if model.get("doubt"):
                yield f"{one.name}, seed {one.seed}", f"{model.get('model')}: {printable(model['doubt'])}"
    for run, log in subject.logs.items():
        yield from ((run, line) for line in _warned(log))


def _of_cell(cell: Cell) -> Iterator[str]:
    if cell.state != "done":
        yield f"{cell.state}: {cell.why}" if cell.why else cell.state
    yield from (cell.result[key] for key in ("doubt", "diverged") if cell.result.get(key))
    for result in (cell.started_from, cell.result):
        skipped = (result.get("skipped_steps") or {}).items()
        yield from (f"{count} steps of {stage} skipped" for stage, count in skipped if count)
    for content in cell.contents:
        yield from (f"{content.get('title')}: {note}" for note in content["figures"].get("notes") or ())


def _warned(log: Path) -> Iterator[str]:
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    yield from (printable(line.removeprefix(WARNING)) for line in lines if line.startswith(WARNING))


def repeating(subject: Subject) -> Section:
    """Commands, the study's file, versions, devices and data."""
    blocks: list[Block] = [Lines(subject.commands, code=True)] if subject.commands else []
    if subject.definition:
        blocks.append(Lines(subject.definition.rstrip().splitlines(), code=True))
    rows = [[what, ", ".join(sorted(values))] for what, values in _versions(subject).items() if values]
    if rows:
        blocks.append(Table("versions", "What the runs were made with", ["", ""], rows, left=2))
    runs = [cell.run.name for cell in subject.cells if cell.run]
    blocks.append(Text(f"{several(len(set(runs)), 'run')}; each run's config.yaml holds all of its settings."))
    return Section("To repeat it", blocks)


def _versions(subject: Subject) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {
        what: set() for what in ("advss", "torch", "plugins", "device", "data", "test images")
    }
    for cell in subject.cells:
        _add_made_with(cell, found)
        if cell.result:
            found["device"].add(printable(cell.result.get("device")))
            found["data"].add(printable(cell.result.get("data")))
        for content in cell.contents:
            found["test images"].add(f"sha256 {printable(content['images'].get('data'))[:12]}")
    found["this report"] = {f"Python {platform.python_version()}"}
    return found


def _add_made_with(cell: Cell, found: Mapping[str, set[str]]) -> None:
    """Versions as checkpoints and results have them."""
    for folder, stage in ((cell.run, "finetune"), (cell.run, "pretrain"), (cell.pretraining, "pretrain")):
        manifest = read_json(folder.best(stage).with_suffix(".json")) if folder else {}
        for what in ("advss", "torch"):
            found[what].update({printable(manifest[what])} if what in manifest else ())
    for result in (cell.result, cell.started_from):
        for plugin in result.get("plugins") or ():
            found["plugins"].add(f"{plugin['kind']} {plugin['name']} ({plugin['distribution']} {plugin['version']})")
