"""Answers as bytes: safetensors, and what these do not keep, the order in which the answers were given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

SAID = "said"  # one entry of the metadata, as safetensors does not keep their order either
NAMES = "names"


def packed(answers: Mapping[str, Tensor], **more: Any) -> bytes:
    """Answers, and ``more`` that JSON can hold; the same gives the same bytes."""
    tensors = {name: answer.contiguous() for name, answer in answers.items()}
    return save(tensors, metadata={SAID: json.dumps({NAMES: [*answers], **more})})


def unpacked(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`packed` was given: the answers in their order, and what was said beside them."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    more = json.loads(header["__metadata__"][SAID])
    tensors = load(data)
    return {name: tensors[name] for name in more.pop(NAMES)}, more
