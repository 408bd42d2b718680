"""Accuracy of a classifier, clean and under PGD with restarts, and the examples of it, in chunks that fit memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.attacks.gradient import maximise
from advss.attacks.threat import Threat
from advss.attacks.victim import as_victim

NO_ANSWER = -2  # -1 is an image without a label


def answers(logits_BK: Tensor) -> Tensor:
    """The class of the largest logit (B,); ``NO_ANSWER``, which no label is, where a logit is not finite."""
    return logits_BK.argmax(1).where(logits_BK.isfinite().all(1), NO_ANSWER)


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


def right_clean_and_attacked(
    model: nn.Module, x_BCHW: Tensor, label_B: Tensor, generator: Generator, threat: Threat, *, restarts: int = 1
) -> tuple[Tensor, Tensor]:
    """Which images are classified right, clean and under attack: two bool tensors (B,).

    An image counts as robust when it is right unperturbed (δ = 0 lies in the ball) and after every restart; so each
    restart attacks only what still stands.
    """
    attack = _pgd(model, generator, threat)
    with as_victim(model):
        clean_B, robust_B, _ = _withstood(model, x_BCHW, label_B, attack, restarts)
    return clean_B, robust_B


def adversarial_examples(
    model: nn.Module, x_BCHW: Tensor, label_B: Tensor, generator: Generator, threat: Threat, *, restarts: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`right_clean_and_attacked` returns, with the same draws, and an example (B, C, H, W) of each image.

    The example of an image that fell is what felled it; of a robust one, the last restart's. An image that is wrong
    unperturbed is attacked once, after all others, and stands for itself where the attack would make it right. So the
    model is wrong about exactly the examples of the images that are not robust.
    """
    attack = _pgd(model, generator, threat)
    with as_victim(model):
        clean_B, robust_B, examples_BCHW = _withstood(model, x_BCHW, label_B, attack, restarts)
        wrong = (~clean_B).nonzero()[:, 0]
        if len(wrong):
            tried = attack(x_BCHW[wrong], label_B[wrong])
            still_wrong = ~_right(model, tried, label_B[wrong])
            examples_BCHW[wrong[still_wrong]] = tried[still_wrong]
    return clean_B, robust_B, examples_BCHW


Attack = Callable[[Tensor, Tensor], Tensor]  # images and labels -> perturbed images


def _pgd(model: nn.Module, generator: Generator, threat: Threat) -> Attack:
    def attack(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        def criterion(xs: tuple[Tensor, ...]) -> Tensor:
            return F.cross_entropy(model(xs[0]).float(), label_B, reduction="sum")

        return maximise(criterion, (x_BCHW,), generator, threat)[0]

    return attack


def _withstood(
    model: nn.Module, x_BCHW: Tensor, label_B: Tensor, attack: Attack, restarts: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Right when clean, right after every restart, and the last that was tried of each image."""
    clean_B = _right(model, x_BCHW, label_B)
    robust_B, tried_BCHW = clean_B.clone(), x_BCHW.clone()
    for _ in range(restarts):
        left = robust_B.nonzero()[:, 0]
        if not len(left):
            break
        adversarial = attack(x_BCHW[left], label_B[left])
        robust_B[left] = _right(model, adversarial, label_B[left])
        tried_BCHW[left] = adversarial
    return clean_B, robust_B, tried_BCHW


def _right(model: nn.Module, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
    with torch.no_grad():
        right_B: Tensor = answers(model(x_BCHW)) == label_B
    return right_B


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
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            chunk = max(1, chunk // 2)
            continue
        chunks.append(tuple(part.cpu() for part in measured))
        start += len(measured[0])
        if tick is not None:
            tick(len(measured[0]))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
