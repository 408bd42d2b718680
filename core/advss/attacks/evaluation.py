"""TA and RA of a classifier: accuracy on clean images and under PGD with restarts, in chunks that fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.attacks.gradient import Norm, maximise


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


def right_clean_and_attacked(  # noqa: PLR0913 - a model, its images, and the threat model
    model: nn.Module,
    x_BCHW: Tensor,
    label_B: Tensor,
    generator: Generator,
    *,
    norm: Norm,
    eps: float,
    step_size: float,
    steps: int,
    restarts: int = 1,
) -> tuple[Tensor, Tensor]:
    """Which images are classified right, clean and under attack: two bool tensors (B,).

    An image counts as robust when it is right unperturbed (δ = 0 lies in the ball) and after every restart; so each
    restart attacks only what still stands.
    """
    with as_victim(model):
        with torch.no_grad():
            clean_B = model(x_BCHW).argmax(1) == label_B
        robust_B = clean_B.clone()
        for _ in range(restarts):
            left = robust_B.nonzero()[:, 0]
            if not len(left):
                break
            label = label_B[left]
            (adversarial,) = maximise(
                lambda xs, label=label: F.cross_entropy(model(xs[0]).float(), label, reduction="sum"),  # type: ignore[misc]
                (x_BCHW[left],),
                generator,
                norm=norm,
                eps=eps,
                step_size=step_size,
                steps=steps,
            )
            with torch.no_grad():
                robust_B[left] = model(adversarial).argmax(1) == label
    return clean_B, robust_B


def in_chunks(
    measure: Callable[[int, int], tuple[Tensor, Tensor]], count: int, chunk: int, tick: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    """``measure(start, stop)`` over ``count`` images, ``chunk`` at once, halved when the device's memory runs out."""
    clean: list[Tensor] = []
    robust: list[Tensor] = []
    start = 0
    while start < count:
        try:
            one, two = measure(start, min(start + chunk, count))
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            chunk = max(1, chunk // 2)
            continue
        clean.append(one.cpu())
        robust.append(two.cpu())
        start += len(one)
        tick(len(one))
    return torch.cat(clean), torch.cat(robust)
