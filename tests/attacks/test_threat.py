"""The one rule for radii, steps and their number, and the field's radius for a norm."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from advss.attacks import Threat


def test_a_norm_without_a_radius_has_the_fields() -> None:
    assert Threat() == Threat(norm="linf", eps=8 / 255, step_size=2 / 255, steps=10)
    assert Threat(norm="l2") == Threat(norm="l2", eps=0.5, step_size=0.1, steps=10)
    assert Threat(norm="l1") == Threat(norm="l1", eps=12, step_size=2.4, steps=10, top_share=0.01)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"eps": 8}, "eps must be at most 1 for linf, got 8: pixels are in [0, 1], so say 8/255"),
        ({"eps": 8.0}, "eps must be at most 1 for linf, got 8.0: pixels are in [0, 1], so say 8/255"),
        ({"step_size": 2}, "step_size must be at most 1 for linf, got 2: pixels are in [0, 1], so say 2/255"),
        (
            {"norm": "l2", "eps": 127.5},
            "eps must be at most 16 for l2, got 127.5: pixels are in [0, 1], so say 127.5/255",
        ),
        ({"norm": "l2", "step_size": 25}, "step_size must be at most 16 for l2, got 25"),
        ({"eps": -0.1}, "eps must be at least 0 and finite, got -0.1"),
        ({"eps": math.nan}, "eps must be at least 0 and finite, got nan"),
        ({"eps": math.inf}, "eps must be at least 0 and finite, got inf"),
        ({"step_size": 0.0}, "step_size must be above 0 and finite, got 0.0"),
        ({"step_size": -1}, "step_size must be above 0 and finite, got -1"),
        ({"step_size": math.nan}, "step_size must be above 0 and finite, got nan"),
        ({"eps": "8/255"}, "eps must be a number, got '8/255'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        (
            {"norm": "l1", "eps": 3060},
            "eps must be at most 256 for l1, got 3060: pixels are in [0, 1], so say 3060/255",
        ),
        ({"norm": "l0"}, "norm must be one of linf, l2, l1, got 'l0'"),
        ({"norm": "l2", "top_share": 0.1}, "top_share must be left out for l2, got 0.1: it is of l1 alone"),
        ({"norm": "l1", "top_share": 0}, "top_share must be above 0 and at most 1, got 0"),
        ({"norm": "l1", "top_share": math.nan}, "top_share must be above 0 and at most 1, got nan"),
        ({"norm": "l1", "top_share": "1%"}, "top_share must be a number, got '1%'"),
    ],
    ids=str,
)
def test_what_makes_no_attack_or_is_in_other_units_is_refused(said: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole line is compared
        Threat(**said)
    assert str(error.value).startswith(line)


def test_nothing_is_advised_that_would_be_refused() -> None:
    with pytest.raises(ValueError, match=r"got 300: pixels are in \[0, 1\]$"):  # 300/255 is above 1
        Threat(eps=300)


@pytest.mark.parametrize(
    "said",
    [{"eps": 0}, {"eps": 1}, {"norm": "l2", "eps": 16}, {"norm": "l1", "eps": 255}, {"eps": np.float32(0.25)}],
    ids=str,
)
def test_what_is_at_the_limits_is_taken(said: dict[str, Any]) -> None:
    assert Threat(**said).eps == said["eps"]
    assert type(Threat(**said).eps) is float


def test_a_threat_is_judged_without_torch() -> None:
    code = "import sys; from advss.attacks import Threat; Threat(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
