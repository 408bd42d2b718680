"""How evaluations are chosen, and how their options are called: as they are typed, whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advss.cli.arguments import sort_words
from advss.cli.commands import COMMANDS
from advss.configuration.resolve import from_mapping, resolve
from advss.errors import UsageError


def steps(said: dict[str, Any], **more: Any) -> list[tuple[str, Any]]:
    config = resolve(said, environ={}, text=True, **more)
    return [(one.key, one.options.get("steps")) for one in config.evaluate]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"evaluate": "pdg"}, "unknown evaluation 'pdg'; did you mean 'pgd'"),
        ({"evaluate.pgd.stepz": "3"}, r"unknown option --pgd\.stepz of pgd; did you mean 'steps'"),
        ({"evaluate.pgd.steps": "x"}, r"^--pgd\.steps: expected int \| null, got 'x'"),
        ({"evaluate.pgd.eps": "8"}, r"^--pgd\.eps must be at most 1 for linf, got 8\.0: .* say 8/255"),
        (
            {"evaluate.clean.eps": "3"},
            r"^--clean\.eps: --evaluate does not choose it; say --evaluate pgd,gallery,clean$",
        ),
        ({"evaluate.pgdd.eps": "3"}, r"^unknown flag --pgdd\.eps: there is no evaluation 'pgdd'; did you mean 'pgd'"),
        ({"evaluate.date.root": "x"}, r"^unknown flag --date\.root: .*; did you mean 'data'"),
        ({"evaluate": "none", "evaluate.pgd.eps": "1/255"}, r"--pgd\.eps: --evaluate does not choose it"),
        ({"evaluate": "pgd,pgd"}, r"^--evaluate pgd,pgd: both are the same; --pgd#2\.OPTION is the second's"),
        ({"evaluate": "none,pgd"}, "'none' stands alone"),
        ({"evaluate": "pgd,"}, "expected a name, or a name with its options, got ''"),
    ],
)
def test_what_is_wrong_is_called_as_it_was_typed(said: dict[str, str], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        resolve(said, environ={}, text=True)


def test_an_option_of_one_of_two_wins_over_that_of_both_wherever_it_stands() -> None:
    said = {"evaluate": "pgd,pgd", "evaluate.pgd#2.steps": "3", "evaluate.pgd.steps": "2"}
    assert steps(said) == [("pgd", 2), ("pgd#2", 3)]
    assert steps({"evaluate": "pgd,pgd", "evaluate.pgd#1.steps": "3"}) == [("pgd", 3), ("pgd#2", None)]


def test_environment_yaml_and_python_choose_as_the_line_does(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("evaluate: [clean, {pgd: {steps: 4}}, {pgd: {loss: margin}}]\n")
    assert steps({}, configs=[file]) == [("clean", None), ("pgd", 4), ("pgd#2", None)]
    by_variable = resolve({}, environ={"ADVSS_EVALUATE": "clean,pgd"}, text=True)
    by_keyword = from_mapping({"evaluate": ["clean", {"pgd": {"steps": 4}}]}, environ={})
    assert [one.key for one in by_variable.evaluate] == [one.key for one in by_keyword.evaluate] == ["clean", "pgd"]
    assert by_keyword.evaluate[1].options["steps"] == 4


def test_a_variable_for_an_option_is_refused_with_the_flag_that_is_one() -> None:
    with pytest.raises(UsageError, match=r"ADVSS_EVALUATE_PGD would be ignored: .* use --NAME\.pgd"):
        resolve({}, environ={"ADVSS_EVALUATE_PGD": "3"}, text=True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--limit", "-3"], "^--limit: must be at least 0, got -3"),
        (["--limit=x"], "^--limit: expected int, got 'x'"),
        (["--limit"], "^--limit needs a value"),
        (["--eval-limit", "x"], None),  # judged with all other settings
    ],
)
def test_limit_is_called_as_it_was_typed(words: list[str], error: str | None) -> None:
    grammar = COMMANDS["evaluate"].grammar
    if error is None:
        assert sort_words(["RUN", *words], grammar).settings == {"eval-limit": "x"}
        return
    with pytest.raises(UsageError, match=error):
        sort_words(["RUN", *words], grammar)
