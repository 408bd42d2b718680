"""``advss runs show RUN``: all that a run's folder says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from advss.cli.arguments import Arguments
from advss.cli.context import runs_dir_of
from advss.cli.run_rows import NONE, aligned, as_json, in_bytes, on_day
from advss.cli.table import attacked, pages, percent, print_places
from advss.cli.titled import title_of_figure, titles_of
from advss.data.fingerprint import PARTS, Fingerprint
from advss.errors import UsageError
from advss.files import read_json
from advss.naming import as_typed
from advss.output import printed
from advss.runs.folder import RunFolder, begun_by, check_links, to_evaluate, to_finetune
from advss.runs.listing import Row, files_of, find_listed, number, printable, row_of, tunes

PURPOSE = {"train": "to train on", "valid": "to validate on", "test": "to test"}


def show(arguments: Arguments) -> int:
    """``advss runs show RUN``."""
    row = row_of(check_links(find_listed(arguments.positionals[0], runs_dir_of(arguments))))
    found = described(row)
    if "json" in arguments.switches:
        print(json.dumps(as_json(row) | found, indent=2))
    else:
        print_run(row, found)
    return printed()


def described(row: Row) -> dict[str, Any]:
    """What a run's folder says beyond its row, in JSON's types.

    Returns:
        ``result``, the content of result.json; ``stages``, ``epochs``, ``best_epoch`` and ``seconds`` of each;
        ``fingerprint``, of the data; ``measurements``, the content of each file in evaluations/ by its name; ``files``,
        their bytes by name; ``mlflow`` and ``next``, commands that show it and go on with it, empty without one.
    """
    folder = row.folder
    try:
        result = RunFolder(folder).read_result()
    except (UsageError, OSError):
        result = {}
    files = files_of(folder)
    return {
        "result": result,
        "stages": _stages(folder, result),
        "fingerprint": _fingerprint(folder),
        "measurements": {n: read_json(folder / n) for n in sorted(files) if Path(n).match("evaluations/*.json")},
        "files": dict(sorted(files.items())),
        "mlflow": pages(folder),
        "next": _next(row, result),
    }


def _stages(folder: Path, result: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """How far each stage has come: result.json says it of those that are done, the last checkpoint of the others."""
    epochs, best, seconds = (dict(result.get(key) or {}) for key in ("epochs", "best_epochs", "seconds"))
    for stage in ("pretrain", "finetune"):
        progress = read_json(folder / stage / "last.json").get("progress")
        if stage not in epochs and isinstance(progress, dict):
            epochs[stage], best[stage] = progress.get("epoch"), progress.get("best_epoch")
            seconds = {stage: progress.get("seconds"), **seconds}
    return {
        stage: {
            "epochs": number(epochs.get(stage)),
            "best_epoch": number(best.get(stage)),
            "seconds": number(seconds.get(stage)),
        }
        for stage in dict.fromkeys([*epochs, *seconds])
    }


def _fingerprint(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint says of the data; None where there is none that does."""
    for stage in ("finetune", "pretrain"):
        for which in ("best", "last"):
            try:
                found = Fingerprint.from_json(read_json(folder / stage / f"{which}.json")["data"])
                return {**found.to_json(), "sha256": found.sha256}
            except (KeyError, TypeError, AttributeError):
                continue
    return None


def _next(row: Row, result: Mapping[str, Any]) -> str:
    """The command that goes on with a run, or measures it."""
    if row.state == "interrupted":
        return f"advss {begun_by(result)} --resume {as_typed(row.folder)}"
    if row.state != "finished" or row.kind == "transfer":
        return ""
    return to_evaluate(row.folder) if tunes(result) else to_finetune(row.folder, result)


def print_run(row: Row, found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a row, and what :func:`described` says beyond it."""
    console = console or Console(highlight=False, markup=False)
    result = found["result"]
    console.print(f"run {row.name}", style="bold", soft_wrap=True)
    print_places(_choices(row, found), console)
    _print_block("stages", list(_rows(found["stages"])), {1, 2, 3}, console)
    if attack := _attack(result):
        figures = f"TA {percent(row.ta)}, RA {percent(row.ra)} ({attack})"
        _print_block("headline", [(figures,)], set(), console)
    _print_measurements(found, console)
    _print_block("files", [(name, in_bytes(size)) for name, size in found["files"].items()], {1}, console)
    if found["mlflow"] or found["next"]:
        console.print()
    print_places([("MLflow", found["mlflow"]), ("next", found["next"])], console)


def _print_block(title: str, lines: list[tuple[str, ...]], right: set[int], console: Console) -> None:
    if lines:
        console.print(f"\n{title}", style="bold")
        for line in aligned(lines, right):
            console.print(f"  {line}", soft_wrap=True)


def _choices(row: Row, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What it is, line by line; nothing is said by an empty one."""
    result, by = found["result"], f" by `advss {row.kind}`" if row.kind else ""
    yield "state", f"{row.state}, begun {on_day(row.date)}{by}"
    yield "problem", row.problem
    yield "tasks", ", ".join(row.tasks)
    yield "members", ", ".join(row.members)
    yield "defense", "/".join(row.defense)
    yield "scheme", row.scheme or ""
    yield "data", "/".join(row.data) + _counts(found["fingerprint"])
    yield "backbone", row.backbone or ""
    yield "seed", printable(result.get("seed", ""))
    yield "from", printable(result.get("source") or "")
    yield "size", in_bytes(row.size)


def _counts(fingerprint: Mapping[str, Any] | None) -> str:
    if fingerprint is None:
        return ""
    counts = [f"{fingerprint[part]['images']} {PURPOSE[part]}" for part in PARTS if part in fingerprint]
    return f": {', '.join(counts)}; {len(fingerprint['classes'])} classes; sha256 {fingerprint['sha256'][:8]}"


def _rows(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Epochs, the best of them and seconds of each stage, below their headings."""
    if stages:
        yield "", "epochs", "best", "seconds"
    for stage, known in stages.items():
        yield printable(stage), *(NONE if value is None else f"{value:.0f}" for value in known.values())


def _attack(content: Mapping[str, Any]) -> str:
    """The attack that a result or a measurement says it was made by; empty where it says none that can be read."""
    try:
        return printable(attacked(content)) if content.get("ra_attack") else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _print_measurements(found: Mapping[str, Any], console: Console) -> None:
    """Of each measurement what it is, its figures, what is doubtful, and its files."""
    contents = found["measurements"]
    if contents:
        console.print("\nmeasured", style="bold")
    for title, (path, content) in zip(titles_of([*contents.values()], images=True), contents.items(), strict=True):
        console.print(f"  {printable(title) or Path(path).name.partition('-')[0]}", soft_wrap=True)
        pictures = [printable(picture) for picture in content.get("pictures") or () if picture in found["files"]]
        for texts in (_figures(content), *_notes(content), [path, *pictures]):
            for line in _folded(texts, console.width - 4):
                console.print(f"    {line}", soft_wrap=True)


def _figures(content: Mapping[str, Any]) -> list[str]:
    """A measurement's summary, or all its figures; none of what has none by its nature, such as pictures."""
    figures = content.get("figures")
    if not isinstance(figures, dict):
        return ["no figures can be read"]
    if summary := figures.get("summary"):
        return [printable(summary)]
    return [text for key, one in figures.items() if (text := _figure(title_of_figure(content, key), one))]


def _notes(content: Mapping[str, Any]) -> Iterator[list[str]]:
    figures = content.get("figures")
    notes = figures.get("notes") if isinstance(figures, dict) else None
    yield from ([f"note: {printable(note)}"] for note in (notes if isinstance(notes, list) else ()))


def _folded(texts: list[str], width: int) -> Iterator[str]:
    """Texts behind one another, in as few lines as hold each of them whole."""
    line = ""
    for text in texts:
        if line and len(line) + len(text) + 2 > width:
            yield f"{line},"
            line = ""
        line = f"{line}, {text}" if line else text
    if line:
        yield line


def _figure(title: str, figure: Any) -> str:
    """An accuracy with its interval, or a number; empty for anything else."""
    name = printable(title)
    if not isinstance(figure, dict):
        return "" if (value := number(figure)) is None else f"{name} {value:.3g}"
    share, ends = number(figure.get("accuracy")), figure.get("interval")
    if share is None:
        return ""
    low, high = map(number, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
    between = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{name} {percent(share)}{between}"
