"""A model that is attacked, asked about as many images at once as memory holds.

An attack keeps what it knows of a whole chunk of images; only its passes through the model are split. So memory that
runs out changes nothing that is drawn, and of the answers no more than a backend's rounding in smaller passes does.
Letters: B images, K classes.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from advss.attacks.evaluation import answers
from advss.attacks.threat import Threat
from advss.attacks.victim import as_victim
from advss.memory import ran_out

Loss = Callable[[Tensor, slice], Tensor]  # logits of images, and which of all they are -> (B,), what is to grow


class Passes:
    """Passes through ``model``, which stands as a victim: images to logits, in float32 or better."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.at_once = model, sys.maxsize

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """One pass, with what gradients the caller enables."""
        logits_BK: Tensor = self.model(x_BCHW)
        return logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Of images: (B, K)."""
        with torch.no_grad():
            (logits_BK,) = self.split(lambda part: (self.forward(x_BCHW[part]),), len(x_BCHW))
        return logits_BK

    def right(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Which images are answered with their label: bool (B,)."""
        return answers(self.logits(x_BCHW)) == label_B

    def ascent(self, x_BCHW: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), loss (B,) and each image's gradient of its loss (B, C, H, W); what is nan in it is 0."""
        logits_BK, loss_B, gradient = self.split(lambda part: self._ascent(x_BCHW[part], part, loss), len(x_BCHW))
        return logits_BK, loss_B, gradient

    def _ascent(self, x_BCHW: Tensor, part: slice, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            x_BCHW = x_BCHW.detach().requires_grad_()
            logits_BK = self.forward(x_BCHW)
            loss_B = loss(logits_BK, part)
        return logits_BK.detach(), loss_B.detach(), gradient_by(loss_B, x_BCHW)

    def split(self, ask: Callable[[slice], tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
        """What ``ask`` says of ``count`` images, halved from then on when the device's memory runs out."""
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        while start < count or not parts:
            part = slice(start, min(count, start + self.at_once))
            try:
                parts.append(ask(part))
            except RuntimeError as error:
                if not ran_out(error) or part.stop - start <= 1:
                    raise
                self.at_once = (part.stop - start + 1) // 2
                continue
            start = part.stop
        return parts[0] if len(parts) == 1 else tuple(torch.cat(one) for one in zip(*parts, strict=True))


def gradient_by(value_B: Tensor, x_BCHW: Tensor, *, again: bool = False) -> Tensor:
    """Gradient of each image's value; 0 where it is not finite or the image has no influence.

    Args:
        value_B: one an image, of ``x_BCHW``.
        x_BCHW: images that require gradients.
        again: more gradients are to be taken of the same pass.
    """
    if not value_B.requires_grad:
        return torch.zeros_like(x_BCHW)
    (gradient,) = torch.autograd.grad(value_B.sum(), x_BCHW, retain_graph=again, allow_unused=True)
    return torch.zeros_like(x_BCHW) if gradient is None else gradient.nan_to_num(0, 0, 0)


class Chunk:
    """Images that are attacked together, which of them still stand, and an adversarial example of each that fell.

    Attributes:
        x_BCHW: the images.
        label_B: their classes.
        left_S: places of those that stand: they are right unperturbed, and nothing has felled them.
        examples_BCHW: what felled an image; the image itself where nothing did.
        ranked_BK: classes by falling logit of the unperturbed image, its own last; of those that stood at first.
        margin_B: how far the own logit is above the next; 0 for those that did not stand.
    """

    def __init__(self, asked: Passes, x_BCHW: Tensor, label_B: Tensor, standing_B: Tensor | None) -> None:
        self.x_BCHW, self.label_B, self.examples_BCHW = x_BCHW.detach(), label_B, x_BCHW.detach().clone()
        self.left_S = torch.arange(len(x_BCHW), device=x_BCHW.device)
        if standing_B is not None:
            self.left_S = self.left_S[standing_B]
        self.ranked_BK, self.margin_B = label_B[:, None], torch.zeros_like(x_BCHW.flatten(1)[:, 0])
        if len(self.left_S):
            self._look(asked.logits(self.x_BCHW[self.left_S]))

    def _look(self, logits_SK: Tensor) -> None:
        """Of the images to be attacked, unperturbed."""
        own_S = self.label_B[self.left_S]
        right_S = answers(logits_SK) == own_S
        self.left_S, own_S1, logits_SK = self.left_S[right_S], own_S[right_S, None], logits_SK[right_S]
        others_SK = logits_SK.scatter(1, own_S1, -torch.inf)
        self.ranked_BK = self.label_B[:, None].repeat(1, logits_SK.shape[1])
        self.ranked_BK[self.left_S] = others_SK.argsort(1, descending=True)
        margin_S = logits_SK.gather(1, own_S1)[:, 0] - others_SK.amax(1)
        self.margin_B[self.left_S] = margin_S.to(self.margin_B.dtype)

    def fell(self, place_F: Tensor, examples_FCHW: Tensor) -> None:
        """The images at these places stand no more."""
        self.examples_BCHW[place_F] = examples_FCHW
        self.left_S = self.left_S[~torch.isin(self.left_S, place_F)]


class Part(ABC):
    """A part of AutoAttack: called it attacks a chunk of images; a model must have ``least_classes``."""

    def __call__(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        label_B: Tensor,
        threat: Threat,
        generator: Generator,
        *,
        standing_B: Tensor | None = None,
    ) -> Tensor:
        """An adversarial example of each image that falls, the image itself of every other: (B, C, H, W).

        Args:
            model: images to logits; it is in eval mode meanwhile, and afterwards as it was.
            x_BCHW: images in [0, 1].
            label_B: their classes.
            threat: its norm and radius are those of the ball; the rest of it is not used.
            generator: of what is drawn, on the images' device; while images stand, how much that is does not depend on
                which.
            standing_B: bool, the images to attack; without it all. One that is wrong unperturbed is not attacked.

        Raises:
            ValueError: the model has fewer than ``least_classes``.
        """
        with as_victim(model):
            asked = Passes(model)
            chunk = Chunk(asked, x_BCHW, label_B, standing_B)
            self.fell(asked, chunk, threat, generator)
        return chunk.examples_BCHW

    @abstractmethod
    def fell(self, asked: Passes, chunk: Chunk, threat: Threat, generator: Generator) -> None:
        """Attack what stands of a chunk, which is told of what falls."""
