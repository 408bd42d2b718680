"""Studies that take moments: three rows of 80 digits on a network of one block a stage, their jobs in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from advss.hookspecs import Launcher
from advss.launching import Board, Job
from advss.studies.definition import Definition
from advss.studies.folder import State, StudyFolder
from advss.studies.run import launch, lay_out, write_down
from advss.studies.work import work
from advss.training.reporting import Silent

FIXED: dict[str, Any] = {
    "config": "digits",
    "data": "digits",
    "data.limit": 80,
    "backbone": {"resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}},
    "pretrain-epochs": 1,
    "finetune-epochs": 1,
    "pretrain-batch-size": 32,
    "finetune-batch-size": 32,
    "eval-steps": 1,
    "eval-limit": 20,
    "eval-valid-steps": 1,
    "evaluate": ["pgd"],
    "device": "cpu",
    "precision": "float32",
    "memory-format": "contiguous",
    "tracking": False,
}
PGD = {"pgd": {"steps": 1}}
ROWS: dict[str, dict[str, Any]] = {
    "P1 F4": {"pretext": "none", "defense": PGD},
    "P3 F1": {"pretext": "rotation", "defense": PGD, "finetune": "partial", "finetune-defense": "none"},
    "P3 F4": {"pretext": "rotation", "defense": PGD},
}
Made = Callable[..., Definition]
Written = Callable[[Definition], StudyFolder]


def define(fixed: Mapping[str, Any] | None = None, **said: Any) -> Definition:
    """The definition of three rows; what is said takes the place of its parts, ``fixed`` is added to."""
    return Definition.read({"fixed": {**FIXED, **(fixed or {})}, "rows": ROWS, **said}, where="study.yaml")


def write(study: Definition, place: Path) -> StudyFolder:
    """Plan a study in studies/s beside runs/."""
    runs = place / "runs"
    return write_down(lay_out(study, runs, Silent()), StudyFolder(place / "studies" / "s"), runs)


@pytest.fixture
def made() -> Made:
    return define


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Plans a study in the test's own folder, in which the test is."""
    monkeypatch.chdir(tmp_path)
    return lambda study: write(study, tmp_path)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies/s and runs/: the three rows, an average and a comparison, done."""
    place = tmp_path_factory.mktemp("study")
    joints = {"ensembles": {"all": ["P1 F4", "P3 F4"]}, "transfers": {"all": ["P1 F4", "P3 F4"]}}
    folder = write(define(**joints), place)
    launch(folder, Inline(), view=Told().of)
    return place


@pytest.fixture
def finished(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A copy of the study that is done, for one test."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return StudyFolder(tmp_path / "studies" / "s")


class Inline(Launcher):
    """Does jobs in this process, one after another; what ``breaks`` is said of fails."""

    name = "inline"

    def __init__(self, breaks: Callable[[Job], bool] = lambda job: False) -> None:
        self.breaks = breaks
        self.done: list[str] = []

    def launch(self, jobs: Sequence[Job], board: Board) -> None:
        lost: set[str] = set()
        for job in jobs:
            board.check()
            if lost & {*job.after}:
                lost.add(job.name)
                continue
            board.began(job)
            code = self._code(job)
            lost |= {job.name} if code else set()
            board.ended(job, code)

    def _code(self, job: Job) -> int:
        self.done.append(job.name)
        if self.breaks(job):
            return 1
        work(StudyFolder(Path(job.command[-2])), job.name, reporter=Silent())
        return 0


@pytest.fixture
def inline() -> type[Inline]:
    return Inline


class Told:
    """A view that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.states: list[Mapping[str, tuple[State, str]]] = []

    def show(self, states: Mapping[str, tuple[State, str]]) -> None:
        self.states.append(states)

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def of(self, folder: StudyFolder) -> Iterator[Told]:
        """Itself, as the view of any study."""
        yield self


@pytest.fixture
def told_of() -> Told:
    return Told()
