"""Load of processor, memory and GPUs, written to the journal under the names MLflow gives its system metrics."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from advss.errors import UsageError
from advss.tracking.journal import Journal, read_records

SYSTEM = "system"  # the stage of the samples: apart, for MLflow shows them before all others of a run
PERIOD_S = 10.0  # between two samples
MIB = 2**20


class SystemMonitor(threading.Thread):
    """Samples until closed; a sample's step is the whole seconds since the run first began."""

    def __init__(self, journal: Journal, *, period_s: float = PERIOD_S) -> None:
        super().__init__(name="advss-system", daemon=True)
        self._journal = journal
        self._period_s = period_s
        self._closing = threading.Event()

    def run(self) -> None:
        """The thread's work."""
        began = next(read_records(self._journal.path)).time
        gpus = _gpus()
        psutil.cpu_percent()  # the first call has nothing to compare with
        started = False
        while not self._closing.wait(self._period_s):
            values = {f"{SYSTEM}/{key}": value for key, value in (_host() | _load(gpus)).items()}
            try:
                if not started:  # not before: a run of seconds has none
                    self._journal.start_stage(SYSTEM)
                    started = True
                self._journal.metrics(SYSTEM, round(time.time() - began), values)
            except UsageError:  # a full disk: training's own next line meets it and says so
                return

    def close(self) -> None:
        """Stop sampling."""
        self._closing.set()
        self.join(1.0)


def _host() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MIB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_usage_megabytes": psutil.Process().memory_info().rss / MIB,
    }


def _gpus() -> list[Any]:
    """NVIDIA's handles of all GPUs; none without nvidia-ml-py or a driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def _load(gpus: list[Any]) -> dict[str, float]:
    if not gpus:
        return {}
    nvml = importlib.import_module("pynvml")
    readings: dict[str, Callable[[Any], float]] = {
        "utilization_percentage": lambda gpu: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        "memory_usage_megabytes": lambda gpu: float(nvml.nvmlDeviceGetMemoryInfo(gpu).used / MIB),
        "power_usage_watts": lambda gpu: float(nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    }
    values: dict[str, float] = {}
    for index, gpu in enumerate(gpus):
        for name, read in readings.items():
            with suppress(nvml.NVMLError):  # some cards, and parts of a card, do not tell
                values[f"gpu_{index}_{name}"] = read(gpu)
    return values
