"""The evaluation corruptions: its parts, its means, its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advss.measuring import Measured
from advss_evaluations.corruptions import Corruptions


def test_means_are_over_kinds_and_severities() -> None:
    evaluation = Corruptions(kinds=("fog", "contrast"), severities=(1, 5))
    shares = {"ta": 4, "fog_1": 4, "fog_5": 2, "contrast_1": 3, "contrast_5": 1}
    assert list(evaluation.parts(10)) == list(shares)
    answers = {name: torch.arange(4) < right for name, right in shares.items()}
    found = evaluation.figures(Measured(answers, torch.zeros(4), torch.arange(4), ("a", "b")))
    assert found["mean"] == 10 / 16
    assert found["by_kind"] == {"fog": 0.75, "contrast": 0.5}
    assert found["by_severity"] == {"1": 7 / 8, "5": 3 / 8}
    assert "no CIFAR-10-C" in found["summary"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kinds": ("fogg",)}, "kinds has none called 'fogg'; did you mean 'fog'?"),
        ({"kinds": ("fog", "fog")}, "kinds must each be named once, got fog,fog"),
        ({"severities": (6,)}, "severities must be of 1 to 5, got 6"),
        ({"severities": ()}, "severities must each be named once, got none"),
    ],
)
def test_options_that_name_nothing_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("?", r"\?")):
        Corruptions(**options)
