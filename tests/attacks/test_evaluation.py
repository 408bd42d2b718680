"""What a model answers does not depend on the chunk, and chunks are halved when memory runs out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advss.attacks.evaluation import NO_ANSWER, answered, in_chunks


class Broken(nn.Module):
    """Logits (nan, 0) of every second image, (1, 0) of the others."""

    def forward(self, x: Tensor) -> Tensor:
        broken = x[:, :1, 0, 0] > 0.5
        return torch.where(broken, torch.tensor([math.nan, 0.0]), torch.tensor([1.0, 0.0]))


def test_what_is_answered_does_not_depend_on_the_chunk_and_no_label_is_no_answer() -> None:
    x = torch.tensor([0.0, 1.0] * 3).view(6, 1, 1, 1)
    for chunk in (1, 4, 6):
        found = answered(Broken(), lambda a, b: x[a:b], 6, chunk)
        assert found.tolist() == [0, NO_ANSWER] * 3
    assert NO_ANSWER < -1


def test_a_chunk_that_does_not_fit_memory_is_halved() -> None:
    asked: list[int] = []

    def measure(start: int, stop: int) -> tuple[Tensor, Tensor]:
        asked.append(stop - start)
        if stop - start > 3:
            raise torch.OutOfMemoryError
        return torch.arange(start, stop) % 2 == 0, torch.arange(start, stop) % 3 == 0

    clean, robust = in_chunks(measure, 10, 8, lambda done: None)
    assert asked == [8, 4, 2, 2, 2, 2, 2]
    assert torch.equal(clean, torch.arange(10) % 2 == 0)
    assert torch.equal(robust, torch.arange(10) % 3 == 0)


def test_one_image_that_does_not_fit_memory_is_an_error() -> None:
    def measure(start: int, stop: int) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        in_chunks(measure, 4, 4, lambda done: None)


def test_chunks_of_any_number_of_tensors_are_joined() -> None:
    joined = in_chunks(
        lambda a, b: (torch.arange(a, b), torch.ones(b - a, 2), -torch.arange(a, b)), 5, 2, lambda n: None
    )
    assert [part.tolist() for part in joined] == [[0, 1, 2, 3, 4], [[1.0, 1.0]] * 5, [0, -1, -2, -3, -4]]
