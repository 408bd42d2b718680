"""``advss report STUDY|RUN...``: page, tables and figures of a study or of runs, from their folders alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.cli.arguments import Arguments, Grammar
from advss.cli.context import runs_dir_of
from advss.cli.table import print_places
from advss.configuration.settings import typed_setting
from advss.errors import UsageError, did_you_mean
from advss.naming import as_typed
from advss.output import printed
from advss.runs.folder import RunFolder, check_distinct, check_links
from advss.runs.listing import find_listed, is_run, run_folders

if TYPE_CHECKING:
    from advss.reports.reading import Cell, Subject
    from advss.studies.folder import State, StudyFolder


def report(arguments: Arguments) -> int:
    """``advss report STUDY|RUN...``."""
    from rich.console import Console

    from advss.reports.results import FIRST, Against
    from advss.reports.write import write

    subject, folder = _asked(arguments)
    against = Against(arguments.flag("against") or FIRST, arguments.flag("within"))
    files = write(subject, against, folder)
    if typed_setting("tracking", arguments.settings.get("tracking", True), origin="--tracking"):
        from advss.reports.tracked import track

        track(subject.name, folder, files, runs_dir_of(arguments))
    ends = {path.suffix: str(path) for path in files[:4]}
    figures = str(folder / "figures") if len(files) > 4 else ""
    names = {"page": ends[".html"], "Markdown": ends[".md"], "CSV": ends[".csv"], "LaTeX": ends[".tex"]}
    print_places([*names.items(), ("figures", figures)], Console())
    return printed()


def _asked(arguments: Arguments) -> tuple[Subject, Path]:
    """What the report is of, and where it goes."""
    from advss.reports.subjects import of_runs
    from advss.studies.folder import find_study

    words, out = arguments.positionals, arguments.flag("out")
    studies_dir, runs_dir = Path(arguments.flag("studies-dir") or "studies"), runs_dir_of(arguments)
    study = find_study(words[0], studies_dir) if len(words) == 1 else None
    if study:
        return of_study(study), Path(out) if out else study.path
    folders = [_found(word, runs_dir, studies_dir, alone=len(words) == 1) for word in words]
    check_distinct([RunFolder(folder) for folder in folders])
    name = Path(out).resolve().name if out else time.strftime("report-%Y%m%d-%H%M%S")
    return of_runs(folders, name), Path(out) if out else Path("reports") / name


def _found(word: str, runs_dir: Path, studies_dir: Path, *, alone: bool) -> Path:
    """The folder of a run, or of a comparison of runs."""
    if any(is_run(path) for path in (Path(word), runs_dir / word)):
        return check_links(find_listed(word, runs_dir))
    known = [folder.name for folder in run_folders(runs_dir)]
    if not alone:
        raise UsageError(f"there is no run '{word}' in {runs_dir}{did_you_mean(word, known)}")
    known += [path.parent.name for path in studies_dir.glob("*/study.yaml")]
    raise UsageError(
        f"there is no study '{word}' in {studies_dir}, and no run '{word}' in {runs_dir}{did_you_mean(word, known)}"
    )


def of_study(folder: StudyFolder) -> Subject:
    """A study that was planned, however far it is."""
    from advss.reports.reading import Cell, Comparison, Subject
    from advss.studies.definition import read_definition

    states, content, definition = folder.states(), folder.content, read_definition(folder.definition)
    cells = [_cell(folder, cell, states) for cell in content["cells"]]
    for joint in content["ensembles"]:
        state, digest = states[joint["run"]], next(iter(folder.stages[joint["run"]]["measures"]), "")
        cells.append(
            Cell(joint["name"], joint["seed"], *state, folder.run(joint["run"]), kind="ensemble", digest=digest)
        )
    compared = [
        Comparison(one["name"], one["seed"], states[one["run"]][0], folder.runs_dir / one["run"], tuple(one["members"]))
        for one in content["transfers"]
    ]
    return Subject(
        folder.name,
        cells,
        sorted(compared, key=lambda one: one.name),
        definition.published,
        definition.description,
        [f"advss study run study.yaml --name {folder.name}", f"advss report {as_typed(folder.name)}"],
        definition.to_yaml(),
        {run: folder.job(run) / "log.txt" for run in folder.stages},
    )


def _cell(folder: StudyFolder, cell: dict[str, Any], states: dict[str, tuple[State, str]]) -> Cell:
    from advss.reports.reading import Cell
    from advss.studies.folder import runs_of

    state, why = folder.state_of(cell, states)
    run, start = (folder.run(name) if (name := cell[key]) else None for key in ("run", "pretraining"))
    passes, values = _passes(folder, runs_of(cell)), cell["values"]
    return Cell(cell["label"], cell["seed"], state, why, run, start, values, digest=cell["measures"], passes=passes)


def _passes(folder: StudyFolder, runs: Sequence[str]) -> int | None:
    costs = [folder.stages[run]["cost"] for run in runs]
    return sum(int(cost["passes"]) for cost in costs) if costs and all(costs) else None


_FLAGS = {
    "against": "the row that the others are compared with: first, best, or its name (first)",
    "within": "compare rows that are alike in this setting or column alone, such as pretrain-data.limit",
    "out": "folder of the report (the study's own; of runs reports/ and the date)",
    "studies-dir": "folder of the studies (studies)",
}
GRAMMAR = Grammar(
    "report",
    "tables, comparisons and figures of a study or of runs: HTML, Markdown, CSV, LaTeX",
    ("STUDY|RUN...",),
    _FLAGS,
    settings=("runs-dir", "tracking"),
)
