from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from advss.tracking.journal import Journal, read_metrics, read_records
from advss.tracking.system import SystemMonitor


def sampled(path: Path) -> dict[str, float]:
    """The first sample that a monitor writes."""
    journal = Journal(path)
    journal.run(name="sample", experiment="advss")
    monitor = SystemMonitor(journal, period_s=0.02)
    monitor.start()
    deadline = time.monotonic() + 10
    before = len(read_metrics(path))
    while len(read_metrics(path)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monitor.close()
    assert not monitor.is_alive()
    first = read_metrics(path)[0]
    assert first.stage == "system"
    return first.values


def test_processor_and_memory_are_sampled(tmp_path: Path) -> None:
    values = sampled(tmp_path / "metrics.jsonl")
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert 0 < values["system/system_memory_usage_percentage"] <= 100
    assert values["system/process_memory_usage_megabytes"] > 1


def test_the_samples_are_a_stage_that_goes_on_where_a_run_does(tmp_path: Path) -> None:
    for _ in range(2):
        sampled(tmp_path / "metrics.jsonl")
    kinds = [record.kind for record in read_records(tmp_path / "metrics.jsonl") if record.stage == "system"]
    assert kinds[:2] == ["start", "metrics"]
    assert kinds.count("start") == 2


def test_what_a_gpu_does_not_tell_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(gpu: int) -> int:
        raise RuntimeError

    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=refuse,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=(gpu + 1) * 2**30),
        nvmlDeviceGetPowerUsage=lambda gpu: 250_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    values = sampled(tmp_path / "metrics.jsonl")
    assert {key: value for key, value in values.items() if "gpu" in key} == {
        "system/gpu_0_memory_usage_megabytes": 1024,
        "system/gpu_1_memory_usage_megabytes": 2048,
        "system/gpu_0_power_usage_watts": 250,
        "system/gpu_1_power_usage_watts": 250,
    }
