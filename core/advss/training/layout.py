"""Memory layout chosen by measurement: channels_last wins on some objectives and loses on others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from advss.config import MemoryFormat

FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def choose_format(
    asked: MemoryFormat, trial: Callable[[torch.memory_format], object], device: torch.device, *, rounds: int = 3
) -> str:
    """``asked``, or for ``auto`` the layout whose median of ``rounds`` interleaved trials is the shorter.

    Args:
        asked: what the settings say.
        trial: does the work to be timed in a layout, leaving nothing behind.
        device: on which it runs; CUDA is waited for.
        rounds: timed trials of each layout, after one that is not counted.
    """
    if asked != "auto":
        return asked
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    for timed in [False] + [True] * rounds:
        for name, memory_format in FORMATS.items():
            took = _seconds(lambda f=memory_format: trial(f), device)  # type: ignore[misc]
            if timed:
                seconds[name].append(took)
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began
