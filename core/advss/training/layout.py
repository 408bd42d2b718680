"""Memory layout: channels_last wins on some networks and loses on others, so it is measured, once on a machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from advss.cache import read_cache, write_cache

FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
FILE, MOST = "layouts.json", 200  # entries of the cache; the oldest go


def choose_format(
    trial: Callable[[torch.memory_format], object],
    *,
    modules: nn.Module,
    network: Sequence[object],
    device: torch.device,
    bf16: bool,
) -> str:
    """The layout whose trial is the shorter, tried once each and remembered in the user's cache.

    Without spatial convolutions there is nothing to gain. Nor is anything tried on a GPU, whose first step in a layout
    is compilation: tensor cores read bf16 as channels_last, and float32 stays in torch's own layout.

    Args:
        trial: one step of the work in a layout, leaving nothing behind.
        modules: what is laid out.
        network: what the answer hangs on beside machine and precision: the backbone and the form of a batch.
        device: on which it runs.
        bf16: whether its passes are in bfloat16.
    """
    if not any(isinstance(part, nn.Conv2d) and _overlaps(part) for part in modules.modules()):
        return "contiguous"
    if device.type == "cuda":
        return "channels_last" if bf16 else "contiguous"
    key = " ".join(map(str, [*network, "bf16" if bf16 else "float32", *_machine(device)]))
    known = read_cache(FILE)
    if known.get(key) in FORMATS:
        return str(known[key])
    seconds = {name: _seconds(trial, memory_format) for name, memory_format in FORMATS.items()}
    chosen = min(seconds, key=lambda name: seconds[name])
    write_cache(FILE, dict([*known.items(), (key, chosen)][-MOST:]))
    return chosen


def _overlaps(convolution: nn.Conv2d) -> bool:
    """Whether its windows overlap; those of a patch embedding do not, and it is one small product of matrices."""
    return any(size > step for size, step in zip(convolution.kernel_size, convolution.stride, strict=True))


def _machine(device: torch.device) -> tuple[object, ...]:
    return device.type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), "threads", torch.__version__


def _seconds(trial: Callable[[torch.memory_format], object], memory_format: torch.memory_format) -> float:
    began = time.perf_counter()
    trial(memory_format)
    return time.perf_counter() - began
