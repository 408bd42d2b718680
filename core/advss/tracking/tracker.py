"""What training talks to: every word goes to the journal, and from there, in the background, to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advss.errors import UsageError
from advss.naming import as_typed
from advss.output import tell
from advss.tracking.journal import NAME, Journal, Status, What
from advss.tracking.sender import Sender
from advss.tracking.store import EXPERIMENT, RUNS_PAGE, SentState, elsewhere, is_server, store_uri
from advss.tracking.system import SystemMonitor


class Tracker:
    """Tracks one run, in its folder; a context manager that finishes the run by how the context was left.

    No method waits for MLflow but :meth:`finish`. A folder with a journal is a run that goes on, in MLflow too.

    Args:
        folder: the run's folder, ``runs/NAME``.
        name: of the run in MLflow.
        enabled: False keeps the journal and does nothing else.
        experiment: MLflow's experiment.
        what: whether the run is made or gone on with, or its model is measured, or runs are compared.
        lasts: whether the folder is there to stay. Where it is not yet, MLflow hears of the run at :meth:`begin`, so
            that it has none that came to nothing; and the user not of what MLflow lacks, which could not be sent later.
        uri: of MLflow's store; default ``MLFLOW_TRACKING_URI``, else the file ``mlflow.db`` beside the folder of runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        enabled: bool = True,
        experiment: str = EXPERIMENT,
        uri: str | None = None,
        what: What = "run",
        lasts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder.resolve()
        self._uri = uri or store_uri(self._folder.parent)
        if enabled and (ignored := elsewhere(self._folder, self._uri)):
            tell(f"advss: {ignored}")
        self._journal = Journal(self._folder / NAME)
        self._journal.run(name=name, experiment=experiment, what=what)
        self._lasts, self._warned, self._begun, self._finished = lasts, False, False, False
        self._monitor = SystemMonitor(self._journal) if enabled else None
        self._sender = Sender(self._folder, uri=self._uri, report=self._warn) if enabled else None
        if lasts():
            self.begin()

    def begin(self) -> None:
        """From now on MLflow hears of the run, of what is in the journal already, too."""
        if not self._begun:
            self._begun = True
            for thread in (self._monitor, self._sender):
                if thread is not None:
                    thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._finished:
            killed = kind is not None and not issubclass(kind, Exception)
            self.finish("FINISHED" if kind is None else "KILLED" if killed else "FAILED")

    def params(self, config: Mapping[str, Any]) -> None:
        """The resolved configuration; nested names become ``pretraining.lr``."""
        self._journal.params(config)

    def dataset(self, *, name: str, source: str, fingerprint: str, profile: Mapping[str, int]) -> None:
        """The data set: where it is from, a digest of its content, and counts such as images and classes."""
        self._journal.dataset(name=name, source=source, fingerprint=fingerprint, profile=profile)

    def start_stage(self, stage: str) -> None:
        """A stage begins or goes on: a nested run; "pretrain/rotation" is nested in "pretrain"."""
        self._journal.start_stage(stage)

    def end_stage(self, stage: str, *, status: Status) -> None:
        """A stage ends."""
        self._journal.end_stage(stage, status=status)

    def metrics(self, stage: str, step: int, values: Mapping[str, float], *, epoch: int | None = None) -> None:
        """Metrics of one step of a stage; the stage "" is the whole run."""
        self._journal.metrics(stage, step, values, epoch=epoch)

    def artifact(self, path: Path, *, stage: str = "") -> None:
        """A file of the run's folder: a figure, ``config.yaml``, ``result.json``.

        Raises:
            UsageError: the file lies elsewhere.
        """
        self._journal.artifact(self._inside(path), stage=stage)

    def model(self, weights: Path, manifest: Path) -> None:
        """The trained classifier: safetensors and their manifest, both in the run's folder, under one stem.

        Raises:
            UsageError: a file lies elsewhere.
        """
        self._journal.model(weights=self._inside(weights), manifest=self._inside(manifest))

    def finish(self, status: Status, *, wait_s: float = 10.0) -> bool:
        """End the run and wait until MLflow has everything, for at most ``wait_s`` seconds.

        Returns:
            Whether MLflow has everything. Where it has not, and the folder lasts, one warning has been printed, here or
            earlier.
        """
        self._finished = True
        if self._lasts():
            self.begin()
        if self._monitor is not None and self._begun:
            self._monitor.close()
        self._journal.finish(status)
        self._journal.close()
        if self._sender is None or not self._begun:
            return self._sender is None
        complete = self._sender.close(wait_s=wait_s)
        if not complete:
            self._warn(f"not everything was sent within {wait_s:g} s")
        return complete

    def url(self) -> str | None:
        """The run's page where MLflow is a server that knows the run, else None (``advss ui`` shows it)."""
        state = SentState.load(self._folder)
        if state is None or not is_server(state.uri) or "" not in state.runs:
            return None
        return f"{state.uri.rstrip('/')}/#/experiments/{state.experiment_id}/runs/{state.runs['']}{RUNS_PAGE}"

    def _inside(self, path: Path) -> Path:
        whole = path.resolve()
        if not whole.is_relative_to(self._folder):
            raise UsageError(f"artifact '{path}' lies outside the run's folder {self._folder}; put a copy inside")
        return whole.relative_to(self._folder)

    def _warn(self, problem: str) -> None:
        if self._warned or not self._lasts():
            return
        self._warned = True
        tell(
            f"advss: warning: MLflow ({self._uri}): {problem}; the run is not disturbed and its journal is whole; "
            f"what is missing at the end: advss sync {as_typed(self._folder)}"
        )
