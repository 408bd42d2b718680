"""The folder of a study, ``studies/NAME``: its definition, its table of cells, and a folder for each job.

How a stage stands is read off its run's folder; a job's folder holds its configuration, its output and, where it
failed, the line of why. So a study is gone on with after anything, and from wherever its folders have been moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from advss.errors import UsageError, did_you_mean
from advss.runs.folder import RunFolder
from advss.runs.lock import held

State = Literal["done", "running", "stopped", "failed", "waiting", "not run"]
STATES: tuple[State, ...] = get_args(State)
CELLS, STUDY, JOBS = "cells.json", "study.yaml", "jobs"
MEASURED = "studied"  # in a run's result: the files of its measurements by the digest of what was asked for
TRANSFER, FAILED = "transfer.json", "failed.txt"


@dataclass(frozen=True)
class StudyFolder:
    """Paths within one study, and how its stages stand."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.resolve().name

    @property
    def definition(self) -> Path:
        """What the study is of."""
        return self.path / STUDY

    @property
    def cells(self) -> Path:
        """The table of its cells."""
        return self.path / CELLS

    def job(self, run: str) -> Path:
        """The folder of the job that finishes a run."""
        return self.path / JOBS / run

    @cached_property
    def content(self) -> dict[str, Any]:
        """The table of its cells, see :mod:`advss.studies.plan`.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads(self.cells.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.cells} cannot be read; `advss study run {self.path}` makes it anew") from error
        return content

    @property
    def timed(self) -> Mapping[str, Any]:
        """What is known of the cost of its stages, by their kind; nothing of a study that is not planned."""
        try:
            known: dict[str, Any] = self.content.get("timed", {})
        except UsageError:
            return {}
        return known

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        """Its stages by run, each behind those it needs."""
        found: dict[str, dict[str, Any]] = self.content["stages"]
        return found

    @property
    def runs_dir(self) -> Path:
        """The folder of its runs."""
        return Path(os.path.normpath(self.path / self.content["runs_dir"]))

    def run(self, name: str) -> RunFolder:
        """One of its runs."""
        return RunFolder(self.runs_dir / name)

    def finished(self, run: str) -> bool:
        """Whether a stage is done, all that is to be measured of it too."""
        stage, folder = self.stages[run], self.run(run)
        if stage["kind"] == "transfer":
            return (folder.path / TRANSFER).is_file()
        return folder.finished and not self.unmeasured(run)

    def unmeasured(self, run: str) -> dict[str, dict[str, Any]]:
        """What is to be measured of a stage's run and is not there: settings of evaluations by their digest."""
        folder = self.run(run)
        known = folder.read_result().get(MEASURED) or {}
        return {
            digest: by
            for digest, by in self.stages[run]["measures"].items()
            if not (files := known.get(digest)) or not all((folder.path / file).is_file() for file in files)
        }

    def states(self) -> dict[str, tuple[State, str]]:
        """How each stage stands, and why where it failed or cannot begin."""
        found: dict[str, tuple[State, str]] = {}
        for run, stage in self.stages.items():
            lost = [before for before in stage["after"] if found[before][0] in ("failed", "not run")]
            found[run] = self._state(run)
            if lost and found[run][0] in ("waiting", "stopped"):
                found[run] = "not run", f"{lost[0]} {found[lost[0]][0]}"
        return found

    def state_of(self, cell: Mapping[str, Any], states: Mapping[str, tuple[State, str]]) -> tuple[State, str]:
        """How one of its cells stands: as the first of its stages that is not done."""
        return next((states[run] for run in runs_of(cell) if states[run][0] != "done"), ("done", ""))

    @property
    def done(self) -> bool:
        """Whether all its stages are."""
        return all(state == "done" for state, _ in self.states().values())

    @property
    def failed(self) -> bool:
        """Whether a stage has failed, and nobody tries it again."""
        return any(state == "failed" for state, _ in self.states().values())

    def _state(self, run: str) -> tuple[State, str]:
        if self.finished(run):
            return "done", ""
        job = self.job(run)
        if held(job):
            return "running", ""
        if why := self.failure(run):
            return "failed", why
        return ("stopped" if self.run(run).path.exists() else "waiting"), ""

    def forget_failure(self, run: str) -> None:
        """Let a stage be tried again as if it had not failed."""
        (self.job(run) / FAILED).unlink(missing_ok=True)

    def failure(self, run: str) -> str:
        """Why a stage failed when it was run last; empty where it did not."""
        try:
            return (self.job(run) / FAILED).read_text("utf-8").strip()
        except OSError:
            return ""


def runs_of(cell: Mapping[str, Any]) -> list[str]:
    """The runs of a cell of the table: what pretrained, and what fine-tuned."""
    return [run for run in (cell["pretraining"], cell["run"]) if run]


def find_study(study: str | Path, studies_dir: Path) -> StudyFolder | None:
    """A study that has been planned, by its folder or its name; None where there is none."""
    for path in (Path(study), studies_dir / study):
        if (path / STUDY).is_file():
            return StudyFolder(path)
    return None


def planned_study(study: str | Path, studies_dir: Path) -> StudyFolder:
    """As :func:`find_study`.

    Raises:
        UsageError: there is no such study.
    """
    found = find_study(study, studies_dir)
    if found is None:
        names = [path.parent.name for path in studies_dir.glob(f"*/{STUDY}")]
        raise UsageError(f"there is no study '{study}' in {studies_dir}{did_you_mean(str(study), names)}")
    return found
