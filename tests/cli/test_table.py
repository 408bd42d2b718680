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
    attack = {"evaluation": "pgd", "title": "PGD-20 ×3 ℓ2 0.5"}
    folder = tmp_path / ("long-name-of-a-folder" * 4) / "first"
    return {"name": "first", "ta": 0.9, "ra": 0.4567, "ra_attack": attack, "best_epoch": 2, "folder": str(folder)}


def test_the_attack_is_named(result: dict[str, Any]) -> None:
    assert "RA          PGD-20 ×3 ℓ2 0.5\n" in shown(result)


def test_a_subset_is_named(result: dict[str, Any]) -> None:
    assert "ℓ2 0.5, 60 images\n" in shown(result | {"ra_images": 60})


def test_long_folders_are_not_broken(result: dict[str, Any]) -> None:
    assert result["folder"] in shown(result)


def test_after_pretraining_the_next_command_is_named(result: dict[str, Any]) -> None:
    best = Path(result["folder"]) / "pretrain" / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.touch()
    out = shown(result | {"ta": None, "ra": None, "ra_attack": None})
    assert f"advss finetune --from {result['folder']}" in out
    assert str(best) in out
    out = shown(result | {"ta": None, "epochs": {"pretrain": 3, "finetune": 0}})
    assert f"advss finetune --from {result['folder']} --finetune-epochs N" in out


def test_the_table_of_a_long_run_fits_80_columns(result: dict[str, Any]) -> None:
    long = {"pretrain": 123_456.0, "finetune": 123_456.0, "evaluate": 12_345.0}
    attack = {"evaluation": "pgd", "title": "PGD-100 ×10 ℓ∞ 8/255"}
    measured = {"ra_attack": attack, "ra_images": 10_000, "epochs": {"pretrain": 200, "finetune": 100}}
    lines = shown(result | measured | {"name": "n" * 90, "seconds": long}).splitlines()
    headings, _, numbers, _, ra = lines[1:6]
    assert headings.split() == ["TA", "RA", "best", "epoch", "epochs", "seconds"]
    assert numbers.split()[:4] == ["90.00", "%", "45.67", "%"]
    assert "200 + 100   123456 + 123456 + 12345" in numbers
    assert ra == "RA          PGD-100 ×10 ℓ∞ 8/255, 10000 images"
    assert lines[0] == f"run {'n' * 90}"
    assert max(len(line) for line in lines[1:6]) <= 80


def test_mlflow_is_named_where_something_was_sent(result: dict[str, Any]) -> None:
    assert "advss ui" not in shown(result)  # --tracking false
    folder = Path(result["folder"])
    folder.mkdir(parents=True)
    (folder / "mlflow.json").write_text("{}")
    assert f"MLflow      advss ui --runs-dir {folder.parent}" in shown(result)


def test_a_model_in_doubt_has_one_line_under_the_table(result: dict[str, Any]) -> None:
    said = "the model answers 'dog' for 100 % of the 60 test images, of which 33.33 % are"
    lines = shown(result | {"doubt": said}).splitlines()
    assert [line for line in lines if line.startswith("note:")] == [f"note: {said}"]
    assert lines[4].startswith("note:")
