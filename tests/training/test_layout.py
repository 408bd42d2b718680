from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advss.cache import read_cache, write_cache
from advss.training.layout import FILE, choose_format

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Clock:
    """Time that passes in trials only, slower in one layout."""

    def __init__(self, slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.tried, self.slow = 0.0, [], slow  # type: tuple[float, list[torch.memory_format], str]
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def trial(self, memory_format: torch.memory_format) -> None:
        self.tried.append(memory_format)
        self.now += 2.0 if self.slow in str(memory_format) else 1.0

    def choose(self, modules: nn.Module | None = None, **other: Any) -> str:
        usual: dict[str, Any] = {"network": ("resnet18", {}), "device": CPU, "bf16": False}
        return choose_format(self.trial, modules=modules or nn.Conv2d(3, 8, 3), **(usual | other))


@pytest.mark.parametrize(("slow", "chosen"), [("contiguous", "channels_last"), ("channels_last", "contiguous")])
def test_the_faster_is_taken_after_a_step_in_each(slow: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(slow, monkeypatch)
    assert clock.choose() == chosen
    assert clock.tried == [torch.contiguous_format, torch.channels_last]


def test_what_was_measured_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock("contiguous", monkeypatch).choose()
    later = Clock("channels_last", monkeypatch)
    assert later.choose() == "channels_last"
    assert later.tried == []


@pytest.mark.parametrize("other", [{"network": ("resnet18", {"channels": 8})}, {"bf16": True}])
def test_another_network_or_precision_is_measured_anew(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Clock("contiguous", monkeypatch).choose()
    assert Clock("channels_last", monkeypatch).choose(**other) == "contiguous"


def test_a_layout_that_there_is_not_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock("contiguous", monkeypatch)
    clock.choose()
    write_cache(FILE, dict.fromkeys(read_cache(FILE), "diagonal"))
    assert clock.choose() == "channels_last"
    assert len(clock.tried) == 4


@pytest.mark.parametrize("modules", [nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1), nn.Linear(3, 3)])
def test_nothing_is_tried_where_windows_do_not_overlap(modules: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock("contiguous", monkeypatch)
    assert clock.choose(modules) == "contiguous"
    assert clock.tried == []


@pytest.mark.parametrize(("bf16", "chosen"), [(True, "channels_last"), (False, "contiguous")])
def test_nothing_is_tried_on_a_gpu(bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock("contiguous", monkeypatch)
    assert clock.choose(device=torch.device("cuda"), bf16=bf16) == chosen
    assert clock.tried == []
