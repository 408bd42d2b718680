"""The pictures of answers are of the answers that they name, and the calibration error is the one that is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from advss.attacks.evaluation import NO_ANSWER
from advss.evaluations.pictures import calibration_errors, draw_answers
from advss.measuring import Measured

CLEAN, ATTACKED = ("answer", "confidence"), ("attacked", "attacked_confidence")


def measured(**more: Tensor) -> Measured:
    """90 images of three classes: all right when clean, two of three when attacked."""
    place, label = torch.arange(90), torch.arange(90) % 3
    sure = 0.34 + 0.66 * place / 90
    attacked = (label + (place % 9 < 3)) % 3
    answers = {"answer": label, "confidence": sure, "attacked": attacked, "attacked_confidence": sure.flip(0)}
    return Measured({**answers, **more}, label, place, ("a", "b", "c"))


def test_each_kind_is_drawn_of_its_own_answers() -> None:
    figures = draw_answers({"clean": CLEAN, "PGD": ATTACKED}, measured())
    assert list(figures) == ["confusion", "by-class", "reliability"]
    panels = [axes for axes in figures["confusion"].axes if axes.get_title()]
    assert [(panel.get_title(), [text.get_text() for text in panel.texts]) for panel in panels] == [
        ("clean", ["30", "30", "30"]),
        ("PGD", ["20", "10", "20", "10", "10", "20"]),
    ]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in figures["by-class"].axes[0].lines]
    assert [100.0] * 3 in drawn
    assert pytest.approx([200 / 3] * 3) in drawn


def test_the_calibration_error_is_the_papers() -> None:
    found = measured()
    sure, right = found.answers["attacked_confidence"].double().numpy(), (found.answers["attacked"] == found.label)
    of_bin = np.ceil(sure * 15).astype(int)  # Guo et al. 2017, eq. (3): bin m is ((m - 1) / 15, m / 15]
    gaps = [abs((right.numpy() - sure)[of_bin == m].sum()) for m in range(1, 16)]
    errors = calibration_errors({"ece": CLEAN, "attacked_ece": ATTACKED}, found)
    assert errors["attacked_ece"] == pytest.approx(sum(gaps) / 90, abs=1e-6)
    assert errors["ece"] == pytest.approx(float(1 - found.answers["confidence"].double().mean()), abs=1e-6)


def test_an_image_without_answer_has_no_calibration() -> None:
    none = torch.arange(90) < 10
    sure = measured().answers["confidence"].masked_fill(none, torch.nan)
    some = measured(confidence=sure, answer=(torch.arange(90) % 3).masked_fill(none, NO_ANSWER))
    expected = 1 - float(sure[10:].double().mean())
    assert calibration_errors({"ece": CLEAN}, some) == {"ece": pytest.approx(expected, abs=1e-6)}


def test_without_any_confidence_there_is_no_error_and_yet_pictures() -> None:
    nothing = measured(confidence=torch.full((90,), torch.nan), answer=torch.full((90,), NO_ANSWER))
    assert calibration_errors({"ece": CLEAN}, nothing) == {}
    assert len(draw_answers({"clean": CLEAN}, nothing)) == 3
