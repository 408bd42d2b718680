"""The journal of a run, ``metrics.jsonl``: one JSON object a line, and all that MLflow is ever told.

Every line has ``kind``, ``time`` (seconds since 1970) and ``stage`` ("" is the whole run, "a/b" is a part of "a").
JSON knows no NaN or infinity: they are written as the texts "nan", "inf" and "-inf" and read back as floats.
"""

from __future__ import annotations

import errno
import json
import math
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal

from advss.errors import UsageError
from advss.files import saving

NAME = "metrics.jsonl"
# a stage names the files of its figures, and whoever made a run's folder wrote its journal
STAGE = re.compile(r"|[A-Za-z0-9][\w:#-]*(/[A-Za-z0-9][\w:#-]*)*", re.ASCII)

Status = Literal["FINISHED", "FAILED", "KILLED"]
_BEGIN, _END = b'{"kind": "run"', b'{"kind": "finish"'
What = Literal["run", "measurement", "transfer"]


@dataclass(frozen=True)
class Record:
    """One line of the journal."""

    kind: str
    time: float  # seconds since 1970
    stage: str
    payload: dict[str, Any]  # all other fields
    end: int  # byte offset in the file just after the line


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of one step of one stage."""

    stage: str
    step: int
    epoch: int | None
    time: float  # seconds since 1970, of the last value
    values: dict[str, float]


class Journal:
    """Appends to the journal of a run; safe to call from several threads.

    A line is in the operating system's hands when a method returns, so it survives the death of the process. A last
    line that a kill or a full disk tore is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._cut_torn_line()

    def run(self, *, name: str, experiment: str, what: What = "run") -> None:
        """The run begins or goes on, or its model is measured: a journal keeps the identity of its first line."""
        known = next((record.payload["id"] for record in read_records(self.path)), uuid.uuid4().hex)
        self._write("run", id=known, name=name, experiment=experiment, what=what)

    def metrics(self, stage: str, step: int, values: Mapping[str, float], *, epoch: int | None = None) -> None:
        """Metrics of one step; ``step`` counts within the stage."""
        numbers = {key: float(value) for key, value in values.items()}
        self._write("metrics", stage=stage, step=step, epoch=epoch, values=numbers)

    def params(self, config: Mapping[str, Any]) -> None:
        """The resolved configuration, nested as it is; what JSON does not know is written as text."""
        self._write("params", config=config)

    def dataset(self, *, name: str, source: str, fingerprint: str, profile: Mapping[str, int]) -> None:
        """The data set: where it is from, a digest of its content, and counts such as images and classes."""
        self._write("dataset", name=name, source=source, fingerprint=fingerprint, profile=profile)

    def start_stage(self, stage: str) -> None:
        """A stage begins, or goes on."""
        self._write("start", stage=stage)

    def end_stage(self, stage: str, *, status: Status) -> None:
        """A stage ends."""
        self._write("end", stage=stage, status=status)

    def artifact(self, path: PurePath, *, stage: str = "") -> None:
        """A file of the run; ``path`` is relative to the journal's folder."""
        self._write("artifact", stage=stage, path=path.as_posix())

    def model(self, *, weights: PurePath, manifest: PurePath) -> None:
        """The trained model; both paths are relative to the journal's folder."""
        self._write("model", weights=weights.as_posix(), manifest=manifest.as_posix())

    def finish(self, status: Status, *, at: float | None = None) -> None:
        """The run ends, or has ended ``at`` a time."""
        self._write("finish", status=status, time=at or time.time())

    def close(self) -> None:
        """Close the file; the journal takes no more lines."""
        self._file.close()

    def _write(self, kind: str, *, stage: str = "", **payload: Any) -> None:
        record = {"kind": kind, "stage": stage, "time": time.time(), **payload}  # unless it tells another time
        line = json.dumps(_plain(record), allow_nan=False, ensure_ascii=False).encode() + b"\n"
        with self._lock, saving(self.path):
            if self._file.write(line) != len(line):
                self._cut_torn_line()
                raise OSError(errno.ENOSPC, "the disk took only a part of a line")

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        if not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)


def unfinished(path: Path) -> bool:
    """Whether what was begun last in a journal has no end there; lines are told apart by how they begin."""
    last = b""
    with path.open("rb") as file:
        for line in file:
            if line.startswith((_BEGIN, _END)):
                last = line
    return last.startswith(_BEGIN)


def end_killed(path: Path) -> bool:
    """Whether a journal has no end and gets one: it was killed, when its last line was written.

    Only where nobody writes it.
    """
    if not unfinished(path):
        return False
    journal = Journal(path)
    journal.finish("KILLED", at=_record(path.read_bytes().splitlines()[-1], 0, path).time)
    journal.close()
    return True


def read_records(path: Path, *, offset: int = 0) -> Iterator[Record]:
    """The complete lines of the journal from a byte offset on; a last line without its end is left for later.

    Raises:
        UsageError: a line is not a journal record.
    """
    with path.open("rb") as file:
        end = file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield _record(line, end, path)


def read_metrics(path: Path) -> list[StepMetrics]:
    """The metrics of a journal, by stage in order of appearance, then by step.

    After a resume a step may stand in the file twice: the last value of a (stage, step, key) wins.
    """
    stages: dict[str, dict[int, StepMetrics]] = {}
    for record in read_records(path):
        if record.kind == "metrics":
            steps = stages.setdefault(record.stage, {})
            step = record.payload["step"]
            earlier = steps[step].values if step in steps else {}
            values = earlier | metric_values(record)
            steps[step] = StepMetrics(record.stage, step, record.payload["epoch"], record.time, values)
    return [steps[step] for steps in stages.values() for step in sorted(steps)]


def metric_values(record: Record) -> dict[str, float]:
    """The values of a record of metrics, NaN and infinities as floats again."""
    return {key: float(value) for key, value in record.payload["values"].items()}


def _record(line: bytes, end: int, path: Path) -> Record:
    try:
        fields = json.loads(line)
        if not STAGE.fullmatch(fields["stage"]):
            raise ValueError(f"stage {fields['stage']!r} is none that a run has")
        if fields["kind"] == "metrics":
            _check_metrics(fields)
        return Record(fields.pop("kind"), float(fields.pop("time")), fields.pop("stage"), fields, end)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: the line before byte {end} is not a journal record ({error}); remove that line"
        raise UsageError(message) from error


def _check_metrics(fields: Mapping[str, Any]) -> None:
    """Raise where a record of metrics lacks what is counted on."""
    for number in (fields["step"], fields["epoch"] or 0, *fields["values"].values()):
        float(number)


def _plain(value: Any) -> Any:
    """``value`` as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, str | int) else str(value)
