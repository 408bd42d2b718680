"""The form of what an evaluation gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from advss.training.form import MisfitError

OWN = ("label", "index")  # of the images, in the file of the answers


def checked(answers: Any, count: int) -> dict[str, Tensor]:
    """Answers about ``count`` images, on the CPU.

    Raises:
        MisfitError: they are no mapping of names to tensors with a row an image, there are none, or a name is core's.
    """
    if not isinstance(answers, Mapping) or not answers:
        raise MisfitError(f"measure() must return tensors by name, got {type(answers).__name__}; name what is measured")
    for name, answer in answers.items():
        if name in OWN:
            raise MisfitError(f"an answer is called '{name}', which core keeps beside the answers; call it otherwise")
        if not isinstance(name, str) or not isinstance(answer, Tensor):
            raise MisfitError(f"measure() must return tensors by name, got {type(answer).__name__} for {name!r}")
        if answer.shape[:1] != (count,):
            shape = tuple(answer.shape)
            raise MisfitError(f"the answer '{name}' must have a row for each of the {count} images, got shape {shape}")
    return {name: answer.detach().cpu() for name, answer in answers.items()}
