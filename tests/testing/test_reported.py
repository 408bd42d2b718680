"""What evaluations say, write and draw, and options that --eval-... reaches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from advss.attacks import Norm, Threat
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Measured, Victim
from advss.testing.checks import reported
from advss.testing.subject import Subject
from advss.testing.verdicts import Verdict

Ask = Callable[..., Verdict]
counts, title = reported.its_counts_are_whole_numbers, reported.its_title_is_one_line
shared = reported.options_take_what_the_line_says_of_every_attack
figures, pictures = reported.its_figures_are_json, reported.its_pictures_can_be_saved
words = reported.its_figures_and_parts_have_words


class Sound(Evaluation):
    """The mean of each image, told and drawn.

    Args:
        norm: of the ball.
        eps: its radius.
        steps: of the attack.
    """

    name = "mine"

    def __init__(self, *, norm: Norm | None = None, eps: float | None = None, steps: int | None = None) -> None:
        self.threat = Threat(norm=norm or "linf", eps=eps, steps=steps or 1)

    def title(self) -> str:
        return f"Means under {self.threat}"

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        return {"mean": x_BCHW.mean((1, 2, 3))}

    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"mean": float(measured.answers["mean"].mean()), "notes": ["they are random"]}

    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        figure = Figure()
        figure.subplots().plot(measured.answers["mean"].numpy())
        return {"means": figure}


class HalfAChunk(Sound):
    chunk = 0.5  # type: ignore[assignment]


class HalfAPass(Sound):
    def passes(self, classes: int) -> int:
        return 0.5  # type: ignore[return-value]


class FewerThanNone(Sound):
    most = -1


class Untitled(Sound):
    def title(self) -> str:
        return None  # type: ignore[return-value]


class LongTitle(Sound):
    def title(self) -> str:
        return "Means\nof images"


class WholeRadius(Sound):
    def __init__(self, *, eps: int | None = None) -> None:
        super().__init__(eps=eps)


class TwoNorms(Sound):
    """Takes ℓ∞ and ℓ1 alone."""

    def __init__(self, *, norm: Literal["linf", "l1"] | None = None) -> None:
        super().__init__(norm=norm)


class RefusesL2(Sound):
    """As it may."""

    def __init__(self, *, norm: Norm | None = None) -> None:
        if norm == "l2":
            raise ValueError("norm l2 is not for this one")
        super().__init__(norm=norm)


class NoDict(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return [1.0]  # type: ignore[return-value]


class ObjectFigure(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"threat": self.threat}


class TensorFigure(Sound):
    """As it may: tensors are lists and numbers."""

    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"mean": measured.answers["mean"].mean(), "means": measured.answers["mean"]}


class NanFigure(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"mean": float(torch.zeros(0).mean())}


class OwnAccuracy(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"ra": 0.5}


class OneNote(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"notes": "they are random"}


class TwoSummaries(Sound):
    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"summary": ["means", "of images"]}


class SaysNothing(Sound):
    def in_words(self, name: str) -> str:
        return {"median": "median of pixels"}.get(name)  # type: ignore[return-value]


class SaysLines(Sound):
    def in_words(self, name: str) -> str:
        return f"{name}\nof pixels"


class OfWhatItMeasured(Sound):
    """Knows only what it has measured itself."""

    def measure(self, model: Victim, x_BCHW: Tensor, label_B: Tensor, generator: Generator) -> Answers:
        self.last = super().measure(model, x_BCHW, label_B, generator)
        return self.last

    def figures(self, measured: Measured) -> dict[str, Any]:
        return {"mean": float(self.last["mean"].mean())}


class DrawsAList(Sound):
    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        return [Figure()]  # type: ignore[return-value]


class DrawsElsewhere(Sound):
    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        return {"../means": Figure()}


class DrawsAnArray(Sound):
    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        return {"means": measured.answers["mean"].numpy()}  # type: ignore[dict-item]


class DrawsText(Sound):
    """Text that matplotlib cannot set."""

    def draw(self, measured: Measured) -> Mapping[str, Figure]:
        figure = Figure()
        figure.suptitle(r"$\nosuchcommand$")
        return {"means": figure}


BROKEN = [
    (HalfAChunk, counts, "chunk is 0.5; give a whole number of images"),
    (FewerThanNone, counts, "most is -1; give a whole number of images"),
    (HalfAPass, counts, r"passes\(\) must return a whole number of passes an image costs, or 0, got 0.5"),
    (Untitled, title, r"title\(\) returns None; return a few words"),
    (LongTitle, title, r"title\(\) returns 'Means\\nof images'; say it in one short line"),
    (
        WholeRadius,
        shared,
        "option 'eps' has the default None, so it is given what --eval-eps says, and is annot.* int",
    ),
    (TwoNorms, shared, "option 'norm' has the default None, so it is given what --eval-norm says"),
    (NoDict, figures, r"figures\(\) must return a dict, got list"),
    (ObjectFigure, figures, r"what figures\(\) returns cannot be written as JSON \(a Threat\); give finite"),
    (NanFigure, figures, r"what figures\(\) returns cannot be written as JSON .*give finite numbers"),
    (OwnAccuracy, figures, r"figures\(\) gives 'ra', which is counted from the bool answer of that name"),
    (OneNote, figures, r"figures\(\)\['notes'\] must be a list of lines, got 'they are random'"),
    (TwoSummaries, figures, r"figures\(\)\['summary'\] must be a line, got \['means', 'of images'\]"),
    (SaysNothing, words, r"in_words\('mean'\) must return a few words in one line, got None"),
    (SaysLines, words, r"in_words\('mean'\) must return a few words in one line, got 'mean\\nof pixels'"),
    (OfWhatItMeasured, figures, "it raised AttributeError: 'OfWhatItMeasured' object has no attribute 'last'"),
    (DrawsAList, pictures, r"draw\(\) returns list; return figures by name"),
    (DrawsElsewhere, pictures, r"draw\(\) calls a figure '../means'; its name is part of a file's"),
    (DrawsAnArray, pictures, r"draw\(\)\['means'\] is ndarray; give a matplotlib Figure"),
    (DrawsText, pictures, "it raised ValueError"),
]


@pytest.mark.parametrize("fact", [counts, title, shared, figures, words, pictures])
@pytest.mark.parametrize("offered", [Sound, RefusesL2, TensorFigure])
def test_what_is_as_it_should_be_passes(ask: Ask, offered: type, fact: Callable[[Subject], None]) -> None:
    assert ask(offered, fact).message == ""


@pytest.mark.parametrize(("offered", "fact", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_it_is_caught(ask: Ask, offered: type, fact: Callable[[Subject], None], message: str) -> None:
    verdict = ask(offered, fact)
    assert verdict.outcome == "failed", verdict.outcome
    assert re.search(message, verdict.message), verdict.message
