"""A study run: planned, written down, and its jobs given to a launcher."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from advss.config import RunConfig
from advss.configuration.resolve import to_yaml
from advss.files import write_json, write_text
from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss.runs.lock import locked
from advss.runs.session import choose_device
from advss.studies.cost import Timed
from advss.studies.definition import Definition
from advss.studies.folder import State, StudyFolder
from advss.studies.grid import Cell, cells_of
from advss.studies.identity import Datasets
from advss.studies.plan import Plan, Runs, plan_of, to_json
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest


@dataclass(frozen=True)
class Laid:
    """A study and its plan."""

    definition: Definition
    plan: Plan
    others: Mapping[str, str]  # run -> the one of the same stage that another version of a plugin has made
    costs: Mapping[str, Mapping[str, float]]  # by run, passes and seconds
    timed: Mapping[str, Any]  # by kind of stage


def lay_out(study: Definition, runs_dir: Path, reporter: Reporter, known: Mapping[str, Any] | None = None) -> Laid:
    """Resolve a study's cells and decide what is left to the machine, once for all of its runs; and tell what it costs.

    Args:
        study: what it is of.
        runs_dir: where its runs are looked up.
        reporter: told of reading images and of timing.
        known: what was found before, by kind of stage, of the cost.

    Raises:
        UsageError: a part of it cannot be understood, or its data cannot be read.
    """
    cells, data = cells_of(study), Datasets(reporter)
    timed = Timed(data, reporter, known)
    study = replace(study, decided={**study.decided, **_decided(cells, study.decided, timed)})
    cells = [replace(cell, config=_settled(cell.config, study.decided)) for cell in cells]
    runs = Runs(runs_dir, study.decided.get("kept", ()))
    plan = plan_of(study, cells, data, runs)
    others = {name: other for name, other in runs.others.items() if name in plan.stages}
    return Laid(study, plan, others, timed.costs(plan), timed.known)


def _decided(cells: Sequence[Cell], known: Mapping[str, Any], timed: Timed) -> dict[str, Any]:
    """Precision and memory layout where they are left to the machine; a study's runs are all alike in them."""
    configs, found = [cell.config for cell in cells], {}
    if "precision" not in known and (asked := [c for c in configs if c.precision == "auto"]):
        found["precision"] = "bf16" if _has_bf16(asked[0]) else "float32"
    if "memory-format" not in known and (asked := [c for c in configs if c.memory_format == "auto"]):
        found["memory-format"] = timed.layout(_settled(asked[0], {**known, **found}))
    return found


def _has_bf16(config: RunConfig) -> bool:
    import torch

    return choose_device(config.device).type == "cuda" and torch.cuda.is_bf16_supported()


def _settled(config: RunConfig, decided: Mapping[str, Any]) -> RunConfig:
    precision = decided.get("precision", config.precision) if config.precision == "auto" else config.precision
    layout = config.memory_format if config.memory_format != "auto" else decided.get("memory-format", "auto")
    return replace(config, precision=precision, memory_format=layout)


def write_down(laid: Laid, folder: StudyFolder, runs_dir: Path) -> StudyFolder:
    """Keep a study and its plan in its folder, and each stage's configuration; returns the folder, read anew."""
    content = to_json(folder.name, os.path.relpath(runs_dir, folder.path), laid.plan, laid.costs)
    for stage in laid.plan.stages.values():
        write_text(folder.job(stage.run) / "config.yaml", to_yaml(replace(stage.config, name=None)))
    write_text(folder.definition, laid.definition.to_yaml())
    write_json(folder.cells, content | {"timed": laid.timed})
    return StudyFolder(folder.path)


class View(Protocol):
    """Who is shown how a study goes on."""

    def show(self, states: Mapping[str, tuple[State, str]]) -> None:
        """How its stages stand now."""

    def say(self, line: str) -> None:
        """A line."""


def launch(
    folder: StudyFolder,
    launcher: Launcher,
    *,
    retry: int = 0,
    view: Callable[[StudyFolder], AbstractContextManager[View]],
) -> None:
    """Have a launcher finish what is left of a study, failed stages as often again as ``retry`` says.

    Raises:
        UsageError: the launcher cannot work here, or another process runs the study.
        Interrupted: a signal came; the jobs that ran have saved.
    """
    launcher.check()
    with locked(folder.path, what="study"), StopRequest() as stop, view(folder) as shown:
        board = _Board(folder, shown, stop)
        for left in range(retry, -1, -1):
            jobs = _jobs(folder)
            for job in jobs if launcher.waits else ():
                folder.forget_failure(job.name)
            launcher.launch(jobs, board)
            if not board.failed:
                break
            if left:
                shown.say(f"{len(board.failed)} failed; trying again")
                board.failed.clear()


def _jobs(folder: StudyFolder) -> list[Job]:
    unfinished = {run: stage for run, stage in folder.stages.items() if not folder.finished(run)}
    return [
        Job(
            run,
            (sys.executable, "-m", "advss.cli.main", "study", "job", str(folder.path.resolve()), run),
            tuple(before for before in stage["after"] if before in unfinished),
            Path.cwd(),
            folder.job(run).resolve() / "log.txt",
            (stage["cost"] or {}).get("seconds"),
        )
        for run, stage in unfinished.items()
    ]


class _Board(Board):
    def __init__(self, folder: StudyFolder, view: View, stop: StopRequest) -> None:
        self.folder, self.view, self.stop = folder, view, stop
        self.failed: set[str] = set()
        self.looked = 0.0

    def began(self, job: Job) -> None:
        self._show()

    def ended(self, job: Job, code: int) -> None:
        if code:
            self.failed.add(job.name)
            why = self.folder.failure(job.name) or f"ended with {code}; see {job.log}"
            self.view.say(f"{job.name} failed: {why}")
        self._show()

    def say(self, line: str) -> None:
        self.view.say(line)

    def check(self) -> None:
        self.stop.check()
        if time.monotonic() - self.looked > 1:
            self._show()

    def _show(self) -> None:
        self.looked = time.monotonic()
        self.view.show(self.folder.states())
