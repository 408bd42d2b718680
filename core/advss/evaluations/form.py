"""The form of what an evaluation gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from advss.measuring import Answers
from advss.training.form import MisfitError

OWN = ("label", "index")  # of the images, in the file of the answers
LONGEST = 80  # letters of a title
ACCURACIES = ("ta", "ra")  # which the headline is made of


def checked(answers: Any, count: int) -> dict[str, Tensor]:
    """Answers about ``count`` images, on the CPU.

    Raises:
        MisfitError: they are no mapping of names to tensors with a row an image, there are none, or a name is core's.
    """
    if not isinstance(answers, Mapping) or not answers:
        raise MisfitError(f"measure() must return tensors by name, got {type(answers).__name__}; name what is measured")
    for name, answer in answers.items():
        if name in OWN:
            raise MisfitError(f"an answer is called '{name}', which core keeps beside the answers; call it otherwise")
        if not isinstance(name, str) or not isinstance(answer, Tensor):
            raise MisfitError(f"measure() must return tensors by name, got {type(answer).__name__} for {name!r}")
        if answer.shape[:1] != (count,):
            shape = tuple(answer.shape)
            raise MisfitError(f"the answer '{name}' must have a row for each of the {count} images, got shape {shape}")
    # copied: two names may be of one tensor, which no file holds twice
    return {name: answer.detach().cpu().clone() for name, answer in answers.items()}


def accuracies(answers: Answers) -> dict[str, Tensor]:
    """The answers that are right or wrong: bool (N,)."""
    return {name: answer for name, answer in answers.items() if answer.dtype == torch.bool and answer.ndim == 1}


def checked_figures(figures: Any, counted: Collection[str]) -> Mapping[str, Any]:
    """What figures() gives beside the accuracies ``counted``.

    Raises:
        MisfitError: it is no mapping, has a name of an accuracy, or notes or a summary that are no lines.
    """
    if not isinstance(figures, Mapping):
        raise MisfitError(f"figures() must return a dict, got {type(figures).__name__}")
    for name in figures:
        if name in {*counted, *ACCURACIES}:
            raise MisfitError(f"figures() gives '{name}', which is counted from the bool answer of that name")
    notes = figures.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) and "\n" not in note for note in notes):
        raise MisfitError(f"figures()['notes'] must be a list of lines, got {notes!r:.60}")
    summary = figures.get("summary", "")
    if not isinstance(summary, str) or "\n" in summary:
        raise MisfitError(f"figures()['summary'] must be a line, got {summary!r:.60}")
    return figures


def checked_passes(passes: Any) -> int:
    """What passes() gives.

    Raises:
        MisfitError: it is no whole number from 0.
    """
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 0:
        raise MisfitError(f"passes() must return a whole number of passes an image costs, or 0, got {passes!r:.40}")
    return passes


def checked_words(words: Any, name: str) -> str:
    """What in_words() gives for a name.

    Raises:
        MisfitError: it is no short line.
    """
    if not isinstance(words, str) or not words.strip() or "\n" in words or len(words) > LONGEST:
        raise MisfitError(f"in_words('{name}') must return a few words in one line, got {words!r:.100}")
    return words
