"""The final table says what was reached and where everything lies."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advss.cli.table import print_result


def shown(result: dict[str, Any], width: int = 80) -> str:
    target = io.StringIO()
    print_result(result, Console(file=target, width=width))
    return target.getvalue()


@pytest.fixture
def result(tmp_path: Path) -> dict[str, Any]:
    attack = {"norm": "l2", "eps": 0.5, "steps": 20, "restarts": 3}
    folder = tmp_path / ("long-name-of-a-folder" * 4) / "first"
    return {"name": "first", "ta": 0.9, "ra": 0.4567, "ra_attack": attack, "best_epoch": 2, "folder": str(folder)}


def test_the_attack_is_named(result: dict[str, Any]) -> None:
    assert "RA (PGD-20 ×3 ℓ2 0.5)" in shown(result)


def test_a_subset_is_named(result: dict[str, Any]) -> None:
    assert "ℓ2 0.5, 60 images)" in shown(result | {"ra_images": 60})


def test_long_folders_are_not_broken(result: dict[str, Any]) -> None:
    assert result["folder"] in shown(result)


def test_after_pretraining_the_next_command_is_named(result: dict[str, Any]) -> None:
    best = Path(result["folder"]) / "pretrain" / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.touch()
    out = shown(result | {"ta": None, "ra": None, "ra_attack": None})
    assert f"advss finetune --from {result['folder']}" in out
    assert str(best) in out
