"""A study's file: what it may say, what a line adds to it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.studies.definition import (
    Definition,
    axis,
    packaged,
    parse_definition,
    read_definition,
    seeds_of,
    setting,
)
from advss.studies.grid import cells_of


@pytest.mark.parametrize(
    ("said", "key", "values"),
    [
        ("defense=none,pgd", "defense", ["none", "pgd"]),
        ("pretext=none,selfie+rotation", "pretext", ["none", "selfie+rotation"]),
        ("finetune-lr=0.1,1", "finetune-lr", [0.1, 1]),
        ("finetune-milestones=[6,8],[60,80]", "finetune-milestones", [[6, 8], [60, 80]]),
        ("defense={pgd: {steps: 1, eps: 8/255}},none", "defense", [{"pgd": {"steps": 1, "eps": "8/255"}}, "none"]),
        ("--eval-eps=8/255", "eval-eps", ["8/255"]),
    ],
)
def test_commas_stand_between_values_but_within_brackets(said: str, key: str, values: list[Any]) -> None:
    assert axis(said) == (key, values)


@pytest.mark.parametrize("said", ["defense", "defense=", "=pgd"])
def test_an_axis_without_key_or_values_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="--vary: expected KEY=A,B"):
        axis(said)


def test_a_setting_is_a_key_and_a_yaml_value() -> None:
    assert setting("finetune-epochs=4") == ("finetune-epochs", 4)
    with pytest.raises(UsageError, match="--set: expected KEY=VALUE"):
        setting("finetune-epochs")


def test_seeds_are_how_many_or_a_list() -> None:
    assert seeds_of(3, origin="--seeds") == (0, 1, 2)
    assert seeds_of([5, 7], origin="--seeds") == (5, 7)


@pytest.mark.parametrize("said", [0, -1, True, "x", [], [1, 1], [1, -2], 1.5])
def test_seeds_that_are_neither_are_refused(said: Any) -> None:
    with pytest.raises(UsageError, match="--seeds: expected how many"):
        seeds_of(said, origin="--seeds")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("varry: {}", "no part 'varry'; did you mean 'vary'"),
        ("vary: [a]", "vary is a mapping of names to lists"),
        ("vary: {defense: pgd}", "vary is a mapping of names to lists"),
        ("rows: {a: 3}", "rows is a mapping of names to settings"),
        ("skip: {a: 3}", "skip is a list of mappings"),
        ("- a", "expected the parts of a study"),
        ("rows: {a: {}, a: {}}", "stands twice"),
    ],
)
def test_a_file_of_another_form_is_refused_in_a_line(text: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        parse_definition(text, where="study.yaml")


def test_what_is_written_reads_to_the_same() -> None:
    study = Definition.read(
        {
            "fixed": {"data": "digits", "eval-eps": "8/255"},
            "rows": {"a": {"pretext": "none"}, "b": None},
            "vary": {"defense": ["none", {"pgd": {"steps": 2}}]},
            "seeds": [3, 4],
            "skip": [{"row": "a", "defense": "none"}],
            "ensembles": {"both": ["a", "b"]},
        },
        where="x",
    )
    assert parse_definition(study.to_yaml(), where="y") == study


def test_files_that_a_study_names_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("finetune-epochs: 3\n")
    (tmp_path / "study.yaml").write_text("fixed: {config: [digits, mine.yaml]}\n")
    monkeypatch.chdir("/")
    study = read_definition(tmp_path / "study.yaml")
    assert study.fixed["config"] == ["digits", str(tmp_path / "mine.yaml")]


def test_the_studies_that_come_with_advss_can_be_read() -> None:
    assert len(packaged()) == 8
    for name, text in packaged().items():
        study = parse_definition(text, where=name)
        assert study.description
        said = {"data": "digits"} | ({"pretrain-data": "digits"} if "pretrain-data.limit" in study.vary else {})
        labels = {cell.label for cell in cells_of(study.over(said, {}))}
        assert {*study.published.get("rows", {})} <= labels | {*study.ensembles}
        assert {*study.published.get("transfers", {})} <= {*study.transfers}
