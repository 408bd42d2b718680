"""Signs that attacks by gradients say too little of a model: AutoAttack's checks (Croce and Hein 2020), by image.

Letters: B images, K classes, P passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from advss.attacks.balls import around
from advss.attacks.evaluation import answers
from advss.attacks.losses import margin
from advss.attacks.passes import Passes
from advss.attacks.threat import Threat
from advss.attacks.victim import as_victim

PASSES = 5  # of the same images
APART = 1e-4  # logits over their length are no farther from those of another pass
CLOSE = 1e-5  # to 0, to 1 and to a sum of 1
FLAGS = ("randomness", "softmax", "gradients-inside", "zero-gradients")
TAKE_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


def flags(
    model: nn.Module, x_BCHW: Tensor, label_B: Tensor, threat: Threat, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Which images are right, bool (B,), and which of FLAGS each of them raises, bool (B, 4).

    Args:
        model: images to logits; it is in eval mode meanwhile.
        x_BCHW: images in [0, 1].
        label_B: their classes.
        threat: zero gradients are looked for at a random point of its ball.
        generator: of that point, on the images' device.
    """
    with as_victim(model):
        asked = Passes(model)
        logits_PBK = torch.stack([asked.logits(x_BCHW) for _ in range(PASSES)])
        right_B = answers(logits_PBK[0]) == label_B
        inside_B = torch.full_like(right_B, takes_gradients(asked, x_BCHW))
        zero_B = right_B & _zero(asked, around(x_BCHW, threat).start(generator), label_B)
    return right_B, torch.stack([_random(logits_PBK), _softmax(logits_PBK[0]), inside_B, zero_B], 1)


def takes_gradients(asked: Passes, x_BCHW: Tensor) -> bool:
    """Whether the model takes gradients of its own in a pass forward."""

    def ask(part: slice) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return (asked.forward(x_BCHW[part].detach().requires_grad_()).detach(),)

    with _Watched() as watched:
        asked.split(ask, len(x_BCHW))
    return bool(watched.gradients)


class _Watched(TorchFunctionMode):
    gradients = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.gradients |= func in TAKE_GRADIENTS
        return func(*args, **(kwargs or {}))


def _random(logits_PBK: Tensor) -> Tensor:
    unit_BPK = F.normalize(logits_PBK.double(), dim=2).transpose(0, 1)
    apart_B = torch.cdist(unit_BPK, unit_BPK).amax((1, 2)) > APART
    answer_PB = torch.stack([answers(logits_BK) for logits_BK in logits_PBK])
    return apart_B | (answer_PB != answer_PB[0]).any(0)


def _softmax(logits_BK: Tensor) -> Tensor:
    within_B = ((logits_BK > -CLOSE) & (logits_BK < 1 + CLOSE)).all(1)
    return within_B & ((logits_BK.sum(1) - 1).abs() < CLOSE)


def _zero(asked: Passes, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
    """No pixel changes the margin, or no finite number says how it does."""
    *_, gradient = asked.ascent(x_BCHW, lambda logits_BK, part: margin(logits_BK, label_B[part]))
    return ~gradient.flatten(1).any(1)
