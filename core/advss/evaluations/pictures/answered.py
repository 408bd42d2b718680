"""All pictures of what a classifier answers, and its calibration error: unperturbed, attacked, or both side by side.

Letters: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from advss.evaluations.pictures.by_class import draw_by_class
from advss.evaluations.pictures.confusion import draw_confusion
from advss.evaluations.pictures.reliability import calibration_error, draw_reliability
from advss.measuring import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Names = tuple[str, str]  # of two answers: the class, int64 (N,), and its probability, float32 (N,)


def draw_answers(kinds: Mapping[str, Names], measured: Measured) -> dict[str, Figure]:
    """Draw the confusion matrices, the accuracy of each class and the reliability diagrams.

    Args:
        kinds: by what the pictures call it, such as "clean", the names of the answers.
        measured: that holds them.
    """
    answers = {kind: measured.answers[answer] for kind, (answer, _) in kinds.items()}
    right = {kind: answer_N == measured.label for kind, answer_N in answers.items()}
    sure = {kind: (measured.answers[confidence], right[kind]) for kind, (_, confidence) in kinds.items()}
    return {
        "confusion": draw_confusion(answers, measured.label, measured.classes),
        "by-class": draw_by_class(right, measured.label, measured.classes),
        "reliability": draw_reliability(sure),
    }


def calibration_errors(kinds: Mapping[str, Names], measured: Measured) -> dict[str, float]:
    """The expected calibration error of each kind over the images whose confidence is finite, as it is drawn.

    Args:
        kinds: by what the number is called, such as "ece", the names of the answers.
        measured: that holds them.
    """
    found = {}
    for name, (answer, confidence) in kinds.items():
        confidence_N: Tensor = measured.answers[confidence]
        known_N = confidence_N.isfinite()
        if known_N.any():
            right_N = measured.answers[answer] == measured.label
            found[name] = calibration_error(confidence_N[known_N], right_N[known_N])
    return found
