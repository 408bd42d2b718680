"""``advss sync``: send to MLflow what a run's journal holds and MLflow lacks."""

from __future__ import annotations

from pathlib import Path

from advss.errors import UsageError
from advss.output import tell
from advss.tracking.journal import NAME
from advss.tracking.replay import Replay
from advss.tracking.sender import one_line
from advss.tracking.store import elsewhere, store_uri


def sync(folder: Path, *, uri: str | None = None) -> int:
    """Replay the journal of a run from where sending stopped, and return the number of records sent.

    Calling it again, after a crash in the midst too, doubles nothing. A run that MLflow has never seen, from another
    machine for instance, is replayed whole.

    Args:
        folder: the run's folder.
        uri: of MLflow's store; default: as for a new run.

    Raises:
        UsageError: there is no journal, the store is out of reach, or it refused a part.
    """
    if not (folder / NAME).is_file():
        raise UsageError(f"'{folder}' has no {NAME}: expected the folder of a run")
    to = uri or store_uri(folder.resolve().parent)
    if ignored := elsewhere(folder, to):
        tell(f"advss: {ignored}")
    replay = Replay(folder, uri=to)
    try:
        sent = replay.send()
    except UsageError:
        raise
    except Exception as error:  # MLflow and what it stands on raise almost anything
        message = f"MLflow at {to} is out of reach ({one_line(error)}); start it or set MLFLOW_TRACKING_URI, then again"
        raise UsageError(message) from error
    if replay.refused:
        raise UsageError(f"MLflow at {to} took all but {len(replay.refused)} records: {replay.refused[0]}")
    return sent
