"""What each record of a journal becomes in MLflow: a parent run for the whole, nested runs for its parts.

Each has the tag ``advss.kind``: ``run``, one for each run's folder; ``transfer``, a comparison of runs; and below them
``stage``, ``member``, ``measurement`` and ``system``, the load of the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advss.tracking.journal import Record, metric_values
from advss.tracking.logged_model import log_model
from advss.tracking.store import SentState
from advss.tracking.system import SYSTEM
from advss.tracking.view import KIND, RUN

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

# The longest that MLflow takes.
PARAMS_AT_ONCE = 100
NAME_LENGTH = 250
VALUE_LENGTH = 6000

DIGEST_LENGTH = 16  # MLflow takes 36, but shows them in full
IDENTITY = "advss.journal"  # tag of each of our runs: the journal's identity and the stage
STAGES = ("pretrain", "finetune")
OF_WHOLE = ("valid/ta", "valid/ra")  # of fine-tuning, shown of the whole run too: the list of runs is one of wholes


class MlflowRuns:
    """The runs of one journal; ``first`` is its first record. Times are the journal's, not those of sending."""

    def __init__(self, client: MlflowClient, state: SentState, *, folder: Path, first: Record) -> None:
        self.client = client
        self._state = state
        self._folder = folder
        self._identity = first.payload["id"]
        self._name = first.payload["name"]
        self._whole = "transfer" if first.payload["what"] == "transfer" else RUN
        self._actions: dict[str, Callable[[Record], None]] = {
            "run": self._start,
            "start": self._start,
            "end": self._end,
            "finish": self._finish,
            "params": self._params,
            "dataset": self._dataset,
            "artifact": self._artifact,
            "model": self._model,
        }

    def apply(self, record: Record) -> None:
        """Tell MLflow what any record but one of metrics says."""
        self._actions[record.kind](record)

    def metrics(self, record: Record) -> dict[str, list[Metric]]:
        """The metrics of a record as MLflow's entities, by the id of the run that they are of."""
        from mlflow.entities import Metric

        at, step = _ms(record.time), record.payload["step"]
        found = [Metric(mlflow_name(key), value, at, step) for key, value in metric_values(record).items()]
        by_run = {self.id_of(record.stage, record.time): found}
        whole = [metric for metric in found if record.stage == "finetune" and metric.key in OF_WHOLE]
        return by_run | ({self.id_of("", record.time): whole} if whole else {})

    def id_of(self, stage: str, time: float) -> str:
        """MLflow's id of a stage's run, which is made, nested, where there is none."""
        if stage not in self._state.runs:
            tag = f"{self._identity}/{stage}"
            found = self.client.search_runs([self._state.experiment_id], f"tags.`{IDENTITY}` = '{tag}'", max_results=1)
            self._state.runs[stage] = found[0].info.run_id if found else self._create(stage, tag, time)
            self._state.save(self._folder)
        return self._state.runs[stage]

    def _create(self, stage: str, tag: str, time: float) -> str:
        kind = kind_of(stage) if stage else self._whole
        tags = {IDENTITY: tag, KIND: kind, "mlflow.source.name": "advss", "mlflow.source.type": "LOCAL"}
        if stage:
            tags["mlflow.parentRunId"] = self.id_of(stage.rpartition("/")[0], time)
        name = stage or self._name
        run = self.client.create_run(self._state.experiment_id, start_time=_ms(time), tags=tags, run_name=name)
        return str(run.info.run_id)

    def _start(self, record: Record) -> None:
        """A run whose model is only measured stays as it ended."""
        run = self.id_of(record.stage, record.time)
        if record.payload.get("what") != "measurement":
            self.client.update_run(run, status="RUNNING")

    def _end(self, record: Record) -> None:
        run = self.id_of(record.stage, record.time)
        self.client.set_terminated(run, status=record.payload["status"], end_time=_ms(record.time))

    def _finish(self, record: Record) -> None:
        """A stage that was broken off ends with the run."""
        for run in self._state.runs.values():
            if self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, status=record.payload["status"], end_time=_ms(record.time))

    def _params(self, record: Record) -> None:
        """MLflow refuses to change a parameter, so what a resumed run changed becomes a tag ``changed.NAME``."""
        from mlflow.entities import Param, RunTag

        run = self.id_of(record.stage, record.time)
        known = self.client.get_run(run).data.params
        params = {mlflow_name(key): value[:VALUE_LENGTH] for key, value in flatten(record.payload["config"]).items()}
        new = [Param(key, value) for key, value in params.items() if key not in known]
        changed = {key: value for key, value in params.items() if key in known and known[key] != value}
        tags = [RunTag(f"changed.{key}"[:NAME_LENGTH], value) for key, value in changed.items()]
        for start in range(0, max(len(new), len(tags)), PARAMS_AT_ONCE):
            part = slice(start, start + PARAMS_AT_ONCE)
            self.client.log_batch(run, params=new[part], tags=tags[part], synchronous=True)

    def _dataset(self, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        said = record.payload
        dataset = Dataset(
            name=said["name"],
            digest=said["fingerprint"][:DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": said["source"]}),
            profile=json.dumps(said["profile"]),
        )
        context = [InputTag("mlflow.data.context", "training" if "train" in said["profile"] else "testing")]
        self.client.log_inputs(self.id_of(record.stage, record.time), [DatasetInput(dataset, tags=context)])

    def _artifact(self, record: Record) -> None:
        path = self._file(record.payload["path"])
        folder = Path(record.payload["path"]).parent.as_posix()
        run = self.id_of(record.stage, record.time)
        self.client.log_artifact(run, str(path), None if folder == "." else folder)

    def _model(self, record: Record) -> None:
        weights, manifest = self._file(record.payload["weights"]), self._file(record.payload["manifest"])
        run = self.id_of(record.stage, record.time)
        log_model(self.client, run, self._state.experiment_id, weights=weights, manifest=manifest)

    def _file(self, relative: str) -> Path:
        path = (self._folder / relative).resolve()
        # A journal from elsewhere must not make us upload this machine's other files.
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise FileNotFoundError(f"there is no file '{relative}' in {self._folder}")
        return path


def kind_of(stage: str) -> str:
    """What a part of a run is, by the name of its stage."""
    first, _, part = stage.partition("/")
    if first in STAGES:
        return "member" if part else "stage"
    return SYSTEM if first == SYSTEM else "measurement"


def mlflow_name(name: str) -> str:
    """``name`` with what MLflow allows in names of metrics and parameters.

    "selfie#2" becomes "selfie.2", for another plugin may be called "selfie_2", but none has a dot.
    """
    return re.sub(r"[^\w\-. :/]", "_", name.replace("#", "."))[:NAME_LENGTH]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted names and texts: texts as they are, all else as JSON."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _ms(time: float) -> int:
    return round(time * 1000)
