"""A report's files as artifacts of a run of MLflow, which has the report's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advss.tracking.tracker import Tracker


def track(name: str, folder: Path, files: Sequence[Path], runs_dir: Path) -> None:
    """Give MLflow the files of a report; a later report of the same folder takes their place there.

    Only of a report in a folder beside that of the runs, as ``studies/NAME``: they share a store, as ``advss sync``
    finds it. One that is out of reach costs a warning and nothing else.
    """
    if folder.resolve().parent.parent == runs_dir.resolve().parent:
        with Tracker(folder, name=name, what="measurement") as tracker:
            for file in files:
                tracker.artifact(file)
