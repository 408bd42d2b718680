"""Where MLflow keeps runs, how far a journal has been sent there, and how MLflow is kept quiet and brief."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from advss.errors import UsageError
from advss.files import write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "advss"
RUNS_PAGE = "?workflowType=machine_learning"  # else MLflow's pages may open on what they have for language models

# MLflow's own defaults hang for minutes on a dead server, report home and draw progress bars.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def store_uri(runs_dir: Path) -> str:
    """MLFLOW_TRACKING_URI, else a SQLite file ``mlflow.db`` beside the folder of runs."""
    beside = runs_dir.resolve().parent / "mlflow.db"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside.as_posix()}"


def artifacts_folder(runs_dir: Path) -> Path:
    """Where a store on this machine keeps artifacts and models: beside the folder of runs."""
    return runs_dir.resolve().parent / "mlartifacts"


def is_server(uri: str) -> bool:
    """Whether ``uri`` is a server's address, in contrast to a store on this machine."""
    return uri.startswith(("http://", "https://"))


@dataclass
class SentState:
    """How far a journal has been sent: kept beside it as ``mlflow.json``."""

    uri: str
    experiment_id: str = ""
    runs: dict[str, str] = field(default_factory=dict)  # MLflow's run ids by stage; "" is the parent
    offset: int = 0  # bytes of the journal that MLflow has

    @classmethod
    def load(cls, folder: Path) -> SentState | None:
        """The state in the run's folder, or None where nothing was ever sent.

        Raises:
            UsageError: the file is not ours.
        """
        path = folder / "mlflow.json"
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: not readable ({error}); remove it: everything is then sent again") from error

    def save(self, folder: Path) -> None:
        """Replace the state in the run's folder in one step."""
        write_json(folder / "mlflow.json", asdict(self))


def usual_uri(folder: Path) -> str:
    """Where a run is sent: MLFLOW_TRACKING_URI, else where it was before if that still is, else beside its runs."""
    state = SentState.load(folder)
    path = sqlite_path(state.uri) if state else None
    # A file that is gone tells of a run that was moved here from elsewhere.
    if "MLFLOW_TRACKING_URI" in os.environ or state is None or (path and not path.exists()):
        return store_uri(folder.resolve().parent)
    return state.uri


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other store."""
    path = uri.removeprefix("sqlite:///")
    return None if path == uri else Path(path)


def open_store(uri: str) -> MlflowClient:
    """A client of the store at ``uri``.

    A new SQLite store is made aside and put in place whole: where several runs begin at once, MLflow's own making of
    tables fails in all but one of them.
    """
    from mlflow import MlflowClient

    path = sqlite_path(uri)
    if path is not None and not path.exists():
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
            made, whole = Path(folder) / "made.db", Path(folder) / "whole.db"
            MlflowClient(tracking_uri=f"sqlite:///{made.as_posix()}").search_experiments()
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(whole)) as target:
                source.backup(target)
            with suppress(FileExistsError):  # another run was first
                os.link(whole, path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def find_experiment(client: MlflowClient, name: str, *, artifacts: Path | None) -> str:
    """The id of an experiment, made where there is none; ``artifacts`` is its folder, None leaves that to a server."""
    from mlflow.exceptions import MlflowException

    if experiment := client.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    try:
        return str(client.create_experiment(name, artifacts.as_uri() if artifacts else None))
    except MlflowException:
        # Another run may have made it in between.
        if experiment := client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        raise


@contextmanager
def mlflow_kept_quiet() -> Iterator[None]:
    """Within, MLflow and its HTTP client log nothing below errors from this thread; other threads are left alone.

    The import of MLflow (seconds) happens here, under our settings where the environment does not say otherwise.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    importlib.import_module("mlflow")  # makes the handlers that are to be quiet
    warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
    here = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != here or record.levelno >= logging.ERROR

    listeners = [*logging.getLogger("mlflow").handlers, logging.getLogger("urllib3.connectionpool")]
    for listener in listeners:
        listener.addFilter(passes)
    try:
        yield
    finally:
        for listener in listeners:
            listener.removeFilter(passes)
