"""Replays the journal of a run to MLflow, from where the last replay stopped.

Nothing is lost when a replay breaks off: a place in the journal counts as sent only after MLflow took all before it.
Nothing doubles when a part is sent again: runs and models are found by tags, MLflow itself ignores a metric with equal
key, step, time and value, and all else overwrites.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from advss.errors import UsageError
from advss.tracking.journal import NAME, Record, read_records
from advss.tracking.mlflow_runs import MlflowRuns
from advss.tracking.store import SentState, artifacts_folder, find_experiment, is_server, mlflow_kept_quiet, open_store
from advss.tracking.view import keep_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_AT_ONCE = 500


class Replay:
    """Sends what stands in the journal of ``folder`` and has not been sent to ``uri`` yet."""

    def __init__(self, folder: Path, *, uri: str) -> None:
        self.refused: list[str] = []  # what MLflow will not take however often it is sent
        self._folder = folder.resolve()
        self._path = self._folder / NAME
        known = SentState.load(folder)
        self._state = known if known and known.uri == uri else SentState(uri)
        self._state.save(folder)
        self._runs: MlflowRuns | None = None
        self._pending: dict[str, list[Metric]] = {}  # by run id

    def send(self) -> int:
        """Send all complete lines that are new and return their number.

        Raises:
            UsageError: the journal is damaged.
            Exception: whatever MLflow and what it stands on raise when the store is out of reach.
        """
        self._pending.clear()
        with mlflow_kept_quiet():
            try:
                return self._send(self._connected())
            except Exception:
                # The next attempt looks anew whether the store still has our runs.
                self._runs = None
                raise

    def _send(self, runs: MlflowRuns) -> int:
        sent, end = 0, self._state.offset
        for record in read_records(self._path, offset=self._state.offset):
            if record.kind == "metrics":
                self._collect(record, runs)
            else:
                self._flush(runs, end)
                with self._noting_refusal(f"{record.kind} {record.stage}"):
                    runs.apply(record)
            sent, end = sent + 1, record.end
            if record.kind != "metrics" or sum(map(len, self._pending.values())) >= METRICS_AT_ONCE:
                self._flush(runs, end)
        self._flush(runs, end)
        return sent

    def _connected(self) -> MlflowRuns:
        """The store, opened once; a state that names runs which the store no longer has is dropped: all goes anew."""
        if self._runs is None:
            first = next(read_records(self._path), None)
            if first is None or first.kind != "run":
                raise UsageError(f"{self._path}: the first line is not a 'run' record; this is not a run's journal")
            uri = self._state.uri
            client = open_store(uri)
            beside = None if is_server(uri) else artifacts_folder(self._folder.parent)
            experiment = find_experiment(client, first.payload["experiment"], artifacts=beside)
            if experiment != self._state.experiment_id or not _all_active(client, self._state.runs):
                self._state = SentState(uri, experiment)
            keep_view(client, experiment)
            self._runs = MlflowRuns(client, self._state, folder=self._folder, first=first)
        return self._runs

    def _collect(self, record: Record, runs: MlflowRuns) -> None:
        for run, metrics in runs.metrics(record).items():
            self._pending.setdefault(run, []).extend(metrics)

    def _flush(self, runs: MlflowRuns, end: int) -> None:
        for run, metrics in self._pending.items():
            for start in range(0, len(metrics), METRICS_AT_ONCE):
                with self._noting_refusal("metrics"):
                    runs.client.log_batch(run, metrics[start : start + METRICS_AT_ONCE], synchronous=True)
        self._pending.clear()
        if end > self._state.offset:
            self._state.offset = end
            self._state.save(self._folder)

    @contextmanager
    def _noting_refusal(self, what: str) -> Iterator[None]:
        """A record that can never be sent must not hold up all that follow it."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except FileNotFoundError as error:
            self.refused.append(f"{what.strip()}: {error}")
        except MlflowException as error:
            # Only what MLflow itself calls wrong: a proxy's "not found" may be gone tomorrow.
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.refused.append(f"{what.strip()}: {error.message}")


def _all_active(client: MlflowClient, runs: dict[str, str]) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return all(client.get_run(run).info.lifecycle_stage == "active" for run in runs.values())
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
