"""``advss sync``: what MLflow lacks of runs is sent, and a run that was killed ends there too."""

from __future__ import annotations

from pathlib import Path

from advss.runs.attended import ended_if_killed
from advss.runs.lock import locked
from advss.tracking.journal import NAME, unfinished
from advss.tracking.store import SENT, SentState, store_uri
from advss.tracking.sync import sync


def sent(folder: Path) -> str:
    """Send what a run's journal holds and MLflow lacks, and say so in a line.

    Raises:
        UsageError: somebody works in the run, who sends it; or as :func:`advss.tracking.sync.sync`.
    """
    with locked(folder):
        killed = "; it was killed, as MLflow now says, too" if ended_if_killed(folder) else ""
        return f"{folder}: {sync(folder)} records sent to MLflow{killed}"


def lacking(runs_dir: Path) -> list[Path]:
    """The tracked folders among the runs of which MLflow lacks something."""
    uri = store_uri(runs_dir)
    return [path.parent for path in sorted(runs_dir.glob(f"*/{SENT}")) if _lacks(path.parent, uri)]


def _lacks(folder: Path, uri: str) -> bool:
    journal, state = folder / NAME, SentState.load(folder)
    if state is None or not journal.is_file():
        return False
    return state.uri != uri or state.offset < journal.stat().st_size or unfinished(journal)
