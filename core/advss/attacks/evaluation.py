"""Accuracy of a classifier, clean and under PGD with restarts, and the examples of it, in chunks that fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.attacks.gradient import maximise
from advss.attacks.threat import Threat


@contextmanager
def as_victim(model: nn.Module) -> Iterator[None]:
    """Within: eval mode and no parameter gradients; modes and flags as found after it."""
    modules, learning = list(model.modules()), [p for p in model.parameters() if p.requires_grad]
    modes = [m.training for m in modules]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
        for parameter in learning:
            parameter.requires_grad_(True)


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
        right_B: Tensor = model(x_BCHW).argmax(1) == label_B
    return right_B


def in_chunks(
    measure: Callable[[int, int], tuple[Tensor, ...]], count: int, chunk: int, tick: Callable[[int], None]
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
        tick(len(measured[0]))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
