"""What an evaluation is tried on: a small classifier, measured as core measures one, and six images.

Letters: B images of a chunk, C channels, H W their sides, K classes.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor, nn

from advss.attacks.victim import as_victim
from advss.config import Choice, EvalSettings
from advss.evaluations.form import checked
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim
from advss.plugins import build
from advss.plugins.measured import filled
from advss.randomness import global_stream, stream
from advss.testing.subject import Subject
from advss.testing.verdicts import UncheckedError, as_in_training

SETTINGS = EvalSettings(steps=3)  # what options that are left to --eval-... are filled with
B, SIDE, CELLS, CLASSES = 6, 32, 4, 4
WRONG = (1, 4)  # places of images that are wrong unperturbed


class SmallClassifier(nn.Module):
    """Two layers on the means of 4 x 4 cells, images (B, 3, H, W) to float32 logits (B, K), the same at every call.

    It computes in float64, so that how its passes are split shows in no answer.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        with global_stream("cpu", "classifier"):
            self.cells = nn.Sequential(nn.AdaptiveAvgPool2d(CELLS), nn.Flatten(), nn.Linear(3 * CELLS**2, 32))
            self.head = nn.Sequential(nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, classes))
        self.double().eval()
        self.passes = list[int]()  # how many images each had

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        self.passes.append(len(x_BCHW))
        logits_BK: Tensor = self.head(self.cells(x_BCHW.double() - 0.5))
        return logits_BK.float()


def images(*, seed: int = 0, count: int = B) -> Tensor:
    """Images (B, 3, H, W) of cells of one colour each, some of which an attack changes the answer to."""
    cells = torch.rand(count, 3, CELLS, CELLS, generator=stream("cpu", "cells", seed))
    return cells.repeat_interleave(SIDE // CELLS, 2).repeat_interleave(SIDE // CELLS, 3)


class Chunk:
    """Images with labels, and a classifier that is right about some of them, stood up as core stands one up.

    Args:
        classes: how many it knows.
        noise: that it says to have been fine-tuned on.
        model: another classifier.
        seed: of the images.
        count: how many of them.
    """

    def __init__(
        self,
        classes: int = CLASSES,
        *,
        noise: float = 0.0,
        model: nn.Module | None = None,
        seed: int = 0,
        count: int = B,
    ) -> None:
        small = SmallClassifier(classes)
        self.x_BCHW = images(seed=seed)[:count]
        with torch.no_grad():
            self.label_B = small(self.x_BCHW).argmax(1)
        wrong = [place for place in WRONG if place < count]
        self.label_B[wrong] = (self.label_B[wrong] + 1) % classes
        self.network = model or small
        self.victim = Victim(self.network.eval(), classes=[f"class {k}" for k in range(classes)], noise=noise)

    def __len__(self) -> int:
        return len(self.label_B)

    @property
    def measured_of(self) -> dict[str, Any]:
        """What figures and pictures are told beside the answers."""
        return {"label": self.label_B, "index": torch.arange(len(self)), "classes": self.victim.classes}


def evaluation_of(subject: Subject, settings: EvalSettings = SETTINGS) -> Evaluation:
    """The evaluation that is tried, made anew, with what --eval-... would say."""
    options = filled(subject.completed(), settings)
    evaluation = build("evaluation", Choice(subject.choice.name, options))
    assert isinstance(evaluation, Evaluation)
    return evaluation


def refusal(evaluation: Evaluation, victim: Victim) -> str | None:
    """What check() says of a model that cannot be measured; None of one that can."""
    try:
        evaluation.check(victim)
    except ValueError as error:
        return str(error)
    return None


def chunk_for(subject: Subject, **how: Any) -> Chunk:
    """Images and a classifier that the evaluation does not refuse.

    Raises:
        UncheckedError: it refuses all that are tried.
    """
    said: str | None = None
    for classes, noise in product((CLASSES, 10, 2), (0.0, 0.25)):
        chunk = Chunk(classes, noise=noise, **how)
        said = refusal(evaluation_of(subject), chunk.victim)
        if said is None:
            return chunk
    raise UncheckedError(f"its check() refuses every model that is tried: {said}")


def new_draws(part: str = "") -> Generator:
    """The generator of a part, the same at every call."""
    return stream("cpu", "evaluate", part)


def parts_of(evaluation: Evaluation, chunk: Chunk) -> tuple[str, ...]:
    """What is measured one after another."""
    return tuple(evaluation.parts(len(chunk.victim.classes)))


def answers_of(evaluation: Evaluation, chunk: Chunk) -> dict[str, Tensor]:
    """What all parts give in a row, on the CPU; of their form."""
    answers: dict[str, Tensor] = {}
    for part in parts_of(evaluation, chunk):
        answers = part_of(evaluation, chunk, part, answers)
    return answers


def part_of(evaluation: Evaluation, chunk: Chunk, part: str, before: Answers) -> dict[str, Tensor]:
    """What one part gives, where it is of its form."""
    with as_victim(chunk.victim):
        found = evaluation.measure_part(part, before, chunk.victim, chunk.x_BCHW, chunk.label_B, new_draws(part))
    return as_in_training(checked, found, len(chunk))


def measured(evaluation: Evaluation, chunk: Chunk) -> Measured:
    """A measurement of one chunk."""
    return Measured(answers_of(evaluation, chunk), **chunk.measured_of)


def unlike(some: Answers, others: Answers, *, near: bool = False) -> str:
    """The name of an answer that is not the same in both; empty where there is none.

    Args:
        some: answers.
        others: of as many images.
        near: whether numbers may differ in their last digits.
    """
    if set(some) != set(others):
        return ", ".join(sorted(set(some) ^ set(others)))
    rtol, atol = (1e-4, 1e-5) if near else (0.0, 0.0)
    close = partial(torch.allclose, rtol=rtol, atol=atol, equal_nan=True)
    for name, one in some.items():
        other = others[name]
        if one.dtype != other.dtype or one.shape != other.shape or not close(one.double(), other.double()):
            return name
    return ""
