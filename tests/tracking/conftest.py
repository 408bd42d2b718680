from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from advss.tracking.journal import NAME, read_metrics
from advss.tracking.store import SETTINGS, mlflow_kept_quiet

Points = dict[tuple[str, int, str], str]  # (stage, step, key) -> value as text, so that NaN equals NaN


@pytest.fixture(autouse=True)
def _no_foreign_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither see the machine's MLflow nor wait between MLflow's retries."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised SQLite store: making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with mlflow_kept_quiet():
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    """A run's folder with some files in it, and an initialised store beside its runs."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    run = tmp_path / "runs" / "sample"
    (run / "figures").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "figures" / "curve.svg").write_text("<svg/>")
    return run


@pytest.fixture
def uri(folder: Path) -> str:
    return f"sqlite:///{folder.parent.parent / 'mlflow.db'}"


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def runs(client: Any) -> Callable[[], dict[str, Any]]:
    """MLflow's runs by name; a name that stands twice fails."""

    def by_name() -> dict[str, Any]:
        experiment = client.get_experiment_by_name("advss")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        names = [run.info.run_name for run in found]
        assert sorted(names) == sorted(set(names))
        return {run.info.run_name: run for run in found}

    return by_name


@pytest.fixture
def stored(client: Any, runs: Callable[[], dict[str, Any]]) -> Callable[[], Points]:
    """All metrics that MLflow has; a point that stands twice fails."""

    def points() -> Points:
        found: Points = {}
        for name, run in runs().items():
            stage = "" if name == "sample" else name
            for key in run.data.metrics:
                for metric in client.get_metric_history(run.info.run_id, key):
                    assert (stage, metric.step, key) not in found
                    found[stage, metric.step, key] = str(metric.value)
        return found

    return points


def journaled(folder: Path) -> Points:
    records = read_metrics(folder / NAME)
    return {(r.stage, r.step, key): str(value) for r in records for key, value in r.values.items()}


@pytest.fixture(name="journaled")
def journaled_fixture(folder: Path) -> Callable[[], Points]:
    """All metrics that the journal has."""
    return lambda: journaled(folder)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


Server = Callable[[int], contextlib.AbstractContextManager[str]]


@pytest.fixture
def server(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """MLflow's own server on the store, in a thread, alive within the context."""
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", uri)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (tmp_path / "served").as_uri())
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "false")

    @contextlib.contextmanager
    def serving(port: int) -> Iterator[str]:
        from mlflow.server import app, handlers
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        monkeypatch.setattr(handlers, "_tracking_store", None)
        # In a process of its own the server may point that process's environment to its store; here it may not.
        monkeypatch.setattr("mlflow.tracking._tracking_service.utils.set_tracking_uri", lambda uri: None)
        live = make_server("127.0.0.1", port, app, threaded=True, request_handler=Silent)
        thread = threading.Thread(target=live.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{live.port}"
        finally:
            live.shutdown()
            live.server_close()
            thread.join()

    return serving
