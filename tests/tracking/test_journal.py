from __future__ import annotations

import json
import math
import resource
import threading
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.tracking.journal import Journal, StepMetrics, read_metrics, read_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.jsonl"


def test_metrics_come_back_as_written(path: Path) -> None:
    Journal(path).metrics("pretrain", 12, {"loss": 0.1, "accuracy": 1.0}, epoch=3)
    (record,) = read_metrics(path)
    assert record == StepMetrics("pretrain", 12, 3, record.time, {"loss": 0.1, "accuracy": 1.0})


def test_nan_and_infinities_come_back_as_floats(path: Path) -> None:
    Journal(path).metrics("", 0, {"a": math.nan, "b": math.inf, "c": -math.inf})
    values = read_metrics(path)[0].values
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


def test_every_line_is_strict_json(path: Path) -> None:
    journal = Journal(path)
    journal.metrics("", 0, {"loss": math.nan})
    journal.params({"eps": math.inf, "folder": Path("runs"), "milestones": (1, 2)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert lines[1]["config"] == {"eps": "inf", "folder": "runs", "milestones": [1, 2]}


def test_a_line_is_in_the_file_when_the_call_returns(path: Path) -> None:
    journal = Journal(path)
    journal.start_stage("pretrain")
    assert [record.kind for record in read_records(path)] == ["start"]


def test_the_last_value_of_a_step_wins(path: Path) -> None:
    journal = Journal(path)
    journal.metrics("pretrain", 1, {"loss": 1.0, "ra": 0.5})
    journal.metrics("pretrain", 2, {"loss": 2.0})
    journal.metrics("pretrain", 1, {"loss": 3.0})
    values = [(record.step, record.values) for record in read_metrics(path)]
    assert values == [(1, {"loss": 3.0, "ra": 0.5}), (2, {"loss": 2.0})]


def test_equal_steps_of_two_stages_are_kept_apart(path: Path) -> None:
    journal = Journal(path)
    journal.metrics("pretrain", 1, {"loss": 1.0})
    journal.metrics("finetune", 1, {"loss": 2.0})
    assert [(record.stage, record.values["loss"]) for record in read_metrics(path)] == [
        ("pretrain", 1.0),
        ("finetune", 2.0),
    ]


@pytest.mark.parametrize("torn", [b'{"kind": "metr', b"\x00\x00\x00", b"{}"])
def test_a_torn_last_line_is_cut_off_on_opening(path: Path, torn: bytes) -> None:
    Journal(path).metrics("", 1, {"loss": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    Journal(path)
    assert path.read_bytes() == whole


def test_a_journal_that_is_only_a_torn_line_becomes_empty(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"kind"')
    Journal(path)
    assert path.read_bytes() == b""


def test_a_torn_last_line_is_not_read(path: Path) -> None:
    Journal(path).metrics("", 1, {"loss": 1.0})
    with path.open("ab") as file:
        file.write(b'{"kind": "metrics"')
    assert len(list(read_records(path))) == 1


def test_reading_goes_on_at_the_end_of_a_record(path: Path) -> None:
    journal = Journal(path)
    for step in range(3):
        journal.metrics("", step, {"loss": 0.0})
    first = next(read_records(path))
    assert [record.payload["step"] for record in read_records(path, offset=first.end)] == [1, 2]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"kind": "metrics"}'])
def test_a_damaged_line_in_the_midst_is_named(path: Path, line: str) -> None:
    path.parent.mkdir()
    path.write_text(line + "\n")
    with pytest.raises(UsageError, match=rf"metrics\.jsonl: the line before byte {len(line) + 1} is not a journal rec"):
        list(read_records(path))


def test_a_run_that_goes_on_keeps_its_identity(path: Path) -> None:
    for _ in range(2):
        Journal(path).run(name="sample", experiment="advss")
    first, second = read_records(path)
    assert first.payload["id"] == second.payload["id"]


def test_threads_do_not_mix_their_lines(path: Path) -> None:
    journal = Journal(path)

    def write(stage: str) -> None:
        for step in range(200):
            journal.metrics(stage, step, {"loss": 0.0})

    threads = [threading.Thread(target=write, args=(stage,)) for stage in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_metrics(path)) == 800


def test_a_line_the_disk_took_half_of_is_cut_off_and_reported(path: Path) -> None:
    journal = Journal(path)
    journal.metrics("", 1, {"loss": 1.0})
    whole = path.read_bytes()

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, usual[1]))
    try:
        with pytest.raises(UsageError, match="took only a part of a line"):
            journal.metrics("", 2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == whole
