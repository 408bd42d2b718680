"""The description of a model that a checkpoint's manifest carries."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.encoder import build_encoder
from advss.models.spec import ModelSpec, build_encoder_from

OPTIONS: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
SPEC = ModelSpec("resnet18", OPTIONS, DataFacts(10, 32, 3, 4), (0.1, 0.2, 1 / 3), (0.3, 0.2, 0.1), ("a", "b"))


def test_json_restores_an_equal_description() -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


def test_the_encoder_is_the_one_that_was_described() -> None:
    torch.manual_seed(0)
    built = build_encoder_from(SPEC)
    torch.manual_seed(0)
    expected = build_encoder(
        SPEC.backbone, SPEC.options, SPEC.data, mean=SPEC.mean, std=SPEC.std, branches=SPEC.branches
    ).state_dict()
    assert built.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in built.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "missing or unknown fields colour"),
        ({"mean": ["x"]}, "model description: could not convert"),
        ({"data": {"sides": 3}}, "model description: .*sides"),
    ],
)
def test_a_broken_description_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelSpec.from_json(SPEC.to_json() | change)


def test_a_missing_field_is_named() -> None:
    values = SPEC.to_json()
    del values["std"]
    with pytest.raises(UsageError, match="missing or unknown fields std"):
        ModelSpec.from_json(values)


def test_the_description_is_read_without_torch() -> None:
    code = "import sys, advss.models.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
