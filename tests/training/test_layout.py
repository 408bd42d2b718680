from __future__ import annotations

import time

import pytest
import torch

from advss.config import MemoryFormat
from advss.training.layout import choose_format

CPU = torch.device("cpu")


@pytest.mark.parametrize(("slow", "chosen"), [("contiguous", "channels_last"), ("channels_last", "contiguous")])
def test_auto_takes_the_faster(slow: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def trial(memory_format: torch.memory_format) -> None:
        nonlocal now
        now += 2.0 if memory_format == getattr(torch, f"{slow}_format" if slow == "contiguous" else slow) else 1.0

    assert choose_format("auto", trial, CPU) == chosen


def test_median_forgives_one_slow_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.contiguous_format: iter([9.0, 1.0, 50.0, 1.0]), torch.channels_last: iter([9.0, 2.0, 2.0, 2.0])}
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def trial(memory_format: torch.memory_format) -> None:
        nonlocal now
        now += next(seconds[memory_format])

    assert choose_format("auto", trial, CPU) == "contiguous"


@pytest.mark.parametrize("asked", ["contiguous", "channels_last"])
def test_what_is_asked_for_is_not_measured(asked: MemoryFormat) -> None:
    def trial(memory_format: torch.memory_format) -> None:
        raise AssertionError

    assert choose_format(asked, trial, CPU) == asked
