"""What a classifier answers, in chunks that fit memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from advss.attacks.victim import as_victim
from advss.memory import ran_out

NO_ANSWER = -2  # -1 is an image without a label


def answers(logits_BK: Tensor) -> Tensor:
    """The class of the largest logit (B,); ``NO_ANSWER``, which no label is, where a logit is not finite."""
    return logits_BK.argmax(1).where(logits_BK.isfinite().all(1), NO_ANSWER)


def confidence(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The probability of the class that is answered (B,), float32; not finite where a logit is not."""
    with torch.no_grad():
        probability_B: Tensor = model(x_BCHW).float().softmax(1).amax(1)
    return probability_B


def answered(model: nn.Module, read: Callable[[int, int], Tensor], count: int, chunk: int) -> Tensor:
    """What ``model`` answers about ``count`` images: (N,) classes or ``NO_ANSWER``, on the CPU.

    Args:
        model: images to logits.
        read: the images from one place to before another, on the model's device.
        count: number of images, at least 1.
        chunk: images at once, at first; see :func:`in_chunks`.
    """
    with as_victim(model), torch.no_grad():
        (answer_N,) = in_chunks(lambda start, end: (answers(model(read(start, end))),), count, chunk)
    return answer_N


def in_chunks(
    measure: Callable[[int, int], tuple[Tensor, ...]], count: int, chunk: int, tick: Callable[[int], None] | None = None
) -> tuple[Tensor, ...]:
    """``measure(start, stop)`` over ``count`` images, ``chunk`` at once, halved when the device's memory runs out.

    Args:
        measure: tensors whose first dimension is that of the images.
        count: number of images, at least 1.
        chunk: images at once, at first.
        tick: told how many images were measured.
    """
    chunks: list[tuple[Tensor, ...]] = []
    start = 0
    while start < count:
        try:
            measured = measure(start, min(start + chunk, count))
        except RuntimeError as error:
            if not ran_out(error) or chunk == 1:
                raise
            chunk = max(1, chunk // 2)
            continue
        chunks.append(tuple(part.cpu() for part in measured))
        start += len(measured[0])
        if tick is not None:
            tick(len(measured[0]))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
