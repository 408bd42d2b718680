"""Cells: rows x what varies x seeds, resolved as single runs are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.studies.definition import Definition, packaged, parse_definition, read_definition
from advss.studies.grid import cells_of, written


def test_cells_are_rows_by_values_by_seeds(made: Any) -> None:
    cells = cells_of(made(vary={"finetune-lr": [0.1, 0.01]}, seeds=2))
    assert len(cells) == 3 * 2 * 2
    assert [cell.label for cell in cells[:3]] == ["P1 F4, finetune-lr 0.1"] * 2 + ["P1 F4, finetune-lr 0.01"]
    assert [cell.seed for cell in cells[:4]] == [0, 1, 0, 1]
    assert cells[2].config.finetuning.lr == 0.01
    assert cells[1].config.seed == 1


def test_a_plus_joins_an_ensemble_of_tasks(made: Any) -> None:
    study = made(rows={}, vary={"pretext": ["none", "rotation", "rotation+jigsaw"], "defense": ["none", "pgd"]})
    cells = cells_of(study)
    assert [[one.name for one in cell.config.pretext] for cell in cells[::2]] == [
        [],
        ["rotation"],
        ["rotation", "jigsaw"],
    ]
    assert cells[5].label == "rotation+jigsaw, pgd"
    assert cells[5].config.finetune_defense.name == "pgd"


def test_a_row_wins_over_what_is_fixed_and_a_plugins_option_may_vary(made: Any) -> None:
    study = made({"finetune-epochs": 7}, rows={"a": {"finetune-epochs": 2}, "b": {}}, vary={"defense.steps": [1, 3]})
    cells = cells_of(Definition.over(study, {"defense": "pgd", "pretext": "rotation"}, {}))
    assert [cell.config.finetuning.epochs for cell in cells] == [2, 2, 7, 7]
    assert [cell.config.defense.options["steps"] for cell in cells] == [1, 3, 1, 3]


@pytest.mark.parametrize(
    "skip",
    [
        {"row": "P3 F1"},
        {"finetune": "partial"},
        {"row": ["P3 F1", "x"], "finetune-lr": 0.1},
        {"finetune-defense": "none"},
    ],
)
def test_cells_are_left_out_by_row_value_and_what_is_resolved(made: Any, skip: dict[str, Any]) -> None:
    left = [cell.label for cell in cells_of(made(vary={"finetune-lr": [0.1]}, skip=[skip]))]
    assert left == ["P1 F4, finetune-lr 0.1", "P3 F4, finetune-lr 0.1"]


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"fixed": {"name": "a"}}, "name: a study names its runs itself"),
        ({"fixed": {"seed": 1}}, "seed: a study has seeds"),
        ({"vary": {"seed": [1]}}, "seed: a study has seeds"),
        ({"vary": {"pretext": ["none"]}}, "vary: pretext varies, and row 'P1 F4' says it"),
        ({"vary": {"finetune-lr": [0.1, 0.2, 0.1]}}, "vary: finetune-lr has '0.1' twice; leave one out"),
        ({"skip": [{"row": "P1 F5"}]}, "skip: there is no row 'P1 F5'; did you mean 'P1 F4'"),
        ({"vary": {"finetune-ll": [1]}}, "cell 'P1 F4, finetune-ll 1': unknown setting .*finetune-lr"),
        ({"vary": {"finetune-lr": ["x"]}}, "cell 'P1 F4, finetune-lr x': .*finetune-lr"),
        ({"skip": [{"finetune-ll": 1}]}, "skip: unknown setting 'finetune-ll'; did you mean 'finetune-lr'"),
        ({"skip": [{"data": "digits"}]}, "skip: it leaves no cell"),
        ({"ensembles": {"all": ["P1 F4", "P3 F3"]}}, "'all' is of 'P3 F3', and no cell is called so; did you mean"),
        ({"transfers": {"all": ["P1 F4", "P1 F4"]}}, "'all' needs two or more rows"),
    ],
)
def test_what_is_no_study_is_refused_in_a_line(made: Any, parts: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        cells_of(made(**parts))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"selfie": {"grid": 4}}, "selfie (grid 4)"),
        ([{"selfie": {}}, "rotation"], "selfie+rotation"),
        (True, "true"),
        (0.1, "0.1"),
        ("none", "none"),
    ],
)
def test_a_value_is_written_shortly(value: Any, text: str) -> None:
    assert written(value) == text


def test_table_3_of_the_paper_is_26_trainings_a_seed() -> None:
    study = parse_definition(packaged()["paper-table3"], where="paper-table3")
    assert len(cells_of(study)) == 20


def test_the_study_of_cifar10_gives_p1_the_images_of_pretraining(tmp_path: Path) -> None:
    study = read_definition(Path(__file__).parents[2] / "benchmarks" / "studies" / "cifar10-labels.yaml")
    roots = {f"{flag}.root": str(tmp_path) for flag in ("data", "pretrain-data")}
    rows = {name: {**row, **roots} for name, row in study.rows.items() if name != "P1 F4"}
    rows["P1 F4"] = {**study.rows["P1 F4"], "data.root": str(tmp_path)}
    cells = {cell.label: cell.config for cell in cells_of(replace(study, rows=rows))}
    images = {name: int(0.9 * config.limit) * config.finetuning.epochs for name, config in cells.items()}
    assert images["P1 F4"] == images["P3 F4"] + 45_000 * cells["P3 F4"].pretraining.epochs


def test_what_varies_is_a_list_in_python_too(made: Any) -> None:
    with pytest.raises(UsageError, match="vary: finetune is a list of values, got 'full'"):
        cells_of(made().over({}, {"finetune": "full"}))
