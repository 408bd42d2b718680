"""The fifth kind of plugin: what is measured of a classifier, and all that is passed to it.

A part of the contract, which :mod:`advss.hookspecs` gives too. Letters: B images of a chunk, N of a measurement, C
channels, H W their sides, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from advss.memory import ran_out
from advss.naming import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answers = Mapping[str, Tensor]  # by name, each (B, ...): a row an image; bool (B,) is an accuracy


class Victim(nn.Module):
    """A classifier that is measured: images (B, C, H, W) in [0, 1] to logits (B, K), float32 or better.

    It is in eval mode, and none of its parameters takes a gradient. Passes that memory does not hold are split.
    """

    def __init__(self, model: nn.Module, *, classes: Sequence[str], noise: float = 0.0, side: int = 0) -> None:
        super().__init__()
        self.model, self.classes = model, tuple(classes)
        self.noise = noise  # standard deviation of the Gaussian noise it was fine-tuned on, pixels in [0, 1]
        self.side = side  # of the images that it was made for; 0 where that is not known
        self.at_once = sys.maxsize  # images of a pass; core halves it when the device's memory runs out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits, with the gradients that the caller enables."""
        try:
            return self._split(x_BCHW)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            self.halve(len(x_BCHW))
            return self.forward(x_BCHW)

    def halve(self, count: int) -> None:
        """Pass half as many images at once as ``count``, or as before; raises what is being handled where it is one."""
        if min(count, self.at_once) == 1:
            raise
        self.at_once = (min(count, self.at_once) + 1) // 2

    def _split(self, x_BCHW: Tensor) -> Tensor:
        if len(x_BCHW) <= self.at_once:
            logits_BK: Tensor = self.model(x_BCHW)
            return logits_BK
        parts = [x_BCHW[start : start + self.at_once] for start in range(0, len(x_BCHW), self.at_once)]
        if torch.is_grad_enabled() and x_BCHW.requires_grad:  # nothing of a part is held until its gradient is taken
            return torch.cat([checkpoint(self.model, part, use_reentrant=False) for part in parts])
        return torch.cat([self.model(part) for part in parts])


@dataclass(frozen=True)
class Measured:
    """What was measured of N images, on the CPU."""

    answers: Answers  # each (N, ...), as the chunks gave them
    label: Tensor  # (N,) int64
    index: Tensor  # (N,) int64, places in the test set
    classes: tuple[str, ...]  # names of the K


class Evaluation:
    """Measures a classifier by :meth:`measure`, chunk by chunk; core keeps, resumes, stores, tracks and draws.

    An option that is called as one of ``--eval-...`` (norm, eps, step_size, steps, top_share, restarts, loss) and has
    the default None takes what that says: ``--eval-eps`` is of every attack, ``--NAME.eps`` of this one alone.
    """

    name: ClassVar[str]
    most: int = 0  # images that are measured at most, as many of each class; 0 is all that --limit leaves
    chunk: int = 0  # images that are measured together and share draws; 0 is --eval-batch-size, 1 reuses single images

    def title(self) -> str:
        """What is measured, in a few words: ``PGD-20 ℓ∞ 8/255``."""
        return self.name

    def check(self, model: Victim) -> None:
        """Before anything is measured, and before training: ValueError where it cannot be of such a model."""

    def known_by(self, options: Mapping[str, Any], model: Victim) -> Mapping[str, Any]:
        """What the answers hang on of all its options, as JSON has it: measurements that are alike in it are the same.

        Leave out what changes no answer, and say what a model decides.
        """
        return options

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        """Answers about the images of a chunk, which hang on these four alone; keep nothing on self.

        Args:
            model: the classifier.
            x_BCHW: images in [0, 1], float32, on the model's device.
            label_B: their classes, int64.
            generator: of all that is drawn, on that device; the same for a chunk whatever was measured before it. Draw
                for the whole chunk, whichever of its images still need it.
        """
        raise NotImplementedError

    def passes(self, classes: int) -> int:
        """Passes forward and backward that an image costs; core says them before it begins, unless they are 0."""
        return 0

    def parts(self, classes: int) -> Sequence[str]:
        """Names of what is measured of each chunk one after another; a kill loses no more than one part."""
        return ("",)

    def measure_part(
        self, part: str, before: Answers, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator
    ) -> Answers:
        """As :meth:`measure`, of one of the :meth:`parts`; ``before`` is what the part before it gave, empty at first.

        What the last part gives is what is measured; the generator is the part's own.
        """
        return self.measure(model, x_BCHW, label_B, generator)

    def figures(self, measured: Measured) -> dict[str, Any]:
        """More than the accuracies, as JSON has it; ``notes``, a list of lines, is told to the user.

        ``summary``, a line, stands for all figures where measurements are listed: give it where they are many.
        """
        return {}

    def in_words(self, name: str) -> str:
        """A figure or a part as tables and progress call it: ``RA after 40 steps``; files and MLflow keep its name."""
        return in_words(name)

    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        """Matplotlib figures by name, for the run's folder and MLflow."""
        return {}
