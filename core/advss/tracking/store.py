"""Where MLflow keeps runs, how far a journal has been sent there, and how MLflow is kept quiet and brief."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import shlex
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from advss.cache import cache_path
from advss.errors import UsageError
from advss.files import write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "advss"
SENT = "mlflow.json"  # of a run's folder: how far it has been sent; without it nothing ever was
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
    """MLFLOW_TRACKING_URI, else a SQLite file ``mlflow.db`` beside the folder of runs.

    Nothing that stands in a run's folder has a say: whoever made the folder would choose where this machine connects.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(runs_dir.resolve().parent / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file.

    In an address "?" begins a query, and "%" is read in one way by SQLAlchemy 2.0, in another by 2.1, in a third where
    MLflow makes folders. So a folder with one of them is called by a link in the user's cache.
    """
    if not {"?", "%"} & set(str(path.parent)):
        return f"sqlite:///{path.as_posix()}"
    link = cache_path("stores") / hashlib.sha256(bytes(path.parent)).hexdigest()[:16]
    with suppress(OSError):  # it is there; or it cannot be made, and then no store can be opened by it
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.parent)
    return f"sqlite:///{(link / path.name).as_posix()}"


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
        path = folder / SENT
        if not path.exists():
            return None
        try:
            state = cls(**json.loads(path.read_text(encoding="utf-8")))
            if not (isinstance(state.uri, str) and isinstance(state.offset, int) and isinstance(state.runs, dict)):
                raise ValueError("it is of another form")
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: not readable ({error}); remove it: everything is then sent again") from error
        return state

    def save(self, folder: Path) -> None:
        """Replace the state in the run's folder in one step."""
        write_json(folder / SENT, asdict(self))


def elsewhere(folder: Path, uri: str) -> str:
    """One line where a run was sent to a server before and goes to another store now; else empty."""
    state = SentState.load(folder)
    if state is None or state.uri == uri or sqlite_path(state.uri):
        return ""
    allow = f"MLFLOW_TRACKING_URI={shlex.quote(state.uri)}"  # whoever made the folder may have written a command there
    return f"{folder} names the store {state.uri}, which is not followed; {allow} allows it"


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
            _put_in_place(whole, path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _put_in_place(made: Path, path: Path) -> None:
    """Give a file its place, unless another run was first."""
    try:
        os.link(made, path)
    except FileExistsError:
        return
    except OSError:  # a drive without hard links: another run must be first within these two calls to be replaced
        if not path.exists():
            made.replace(path)


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
