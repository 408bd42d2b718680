"""Strict loading: all of a state dict, or nothing of it and one line that says what does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from advss.errors import UsageError

SHOWN = 3  # keys of each kind that a message names


def load_strict(into: nn.Module | Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str) -> None:
    """Copy ``state`` into the parameters and buffers of a module, in place: device, dtype and memory format stay.

    Args:
        into: what is loaded into: a module, or its tensors by name.
        state: a tensor for each name there, no more and no less.
        what: names the source in the message, e.g. ``"pretrain/best.safetensors"``.

    Raises:
        UsageError: a key is missing, unexpected or of another shape; then nothing was copied.
    """
    check_fits(into, state, what=what)
    with torch.no_grad():
        for key, tensor in _tensors(into).items():
            tensor.copy_(state[key])


def check_fits(into: nn.Module | Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str) -> None:
    """The checks of :func:`load_strict` alone.

    Raises:
        UsageError: as there.
    """
    own = _tensors(into)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if own and len(missing) == len(own):
        raise UsageError(
            f"{what}: none of the model's {len(own)} tensors is in it (it has {_named(unexpected)}); "
            "it is a checkpoint of another backbone, or of something else"
        )
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts = [
        f"missing {_named(_with_nearest(missing, unexpected))}" if missing else "",
        f"unexpected {_named(unexpected)}" if unexpected else "",
        f"other shapes: {_named(shapes)}" if shapes else "",
    ]
    if any(parts):
        reason = "; ".join(part for part in parts if part)
        raise UsageError(f"{what} does not fit the model: {reason}; is it a checkpoint of another backbone or task?")


def _tensors(of: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return of.state_dict() if isinstance(of, nn.Module) else of


def _with_nearest(missing: Sequence[str], unexpected: Sequence[str]) -> Iterable[str]:
    for index, key in enumerate(missing):
        close = difflib.get_close_matches(key, unexpected, n=1, cutoff=0.8) if index < SHOWN else []
        yield f"{key} (nearest: {close[0]})" if close else key


def _named(keys: Iterable[str]) -> str:
    listed = list(keys)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more if listed else "nothing"
