"""What Python says: keywords that an editor completes, and values in whatever type they come."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml

import advss
from advss.cli.commands import COMMANDS
from advss.configuration.keywords import Keywords, MeasuringKeywords
from advss.configuration.resolve import from_mapping, plain, to_yaml
from advss.configuration.settings import COMPONENTS, SETTINGS, python_keyword
from advss.errors import UsageError


def written(annotation: Any) -> Any:
    """A setting's type, as a keyword has it: paths and sequences may be other types, too."""
    if annotation is Path:
        return str | Path
    return Sequence[get_args(annotation)[0]] if get_origin(annotation) is tuple else annotation  # type: ignore[misc]


def test_every_setting_is_a_keyword_of_its_type() -> None:
    hints = get_type_hints(Keywords)
    settings = {python_keyword(flag): written(setting.option.annotation) for flag, setting in SETTINGS.items()}
    components = {python_keyword(component): hints[python_keyword(component)] for component in COMPONENTS}
    assert hints == {"config": hints["config"], **components, **settings}


def test_what_may_be_said_of_measuring_is_what_the_command_takes() -> None:
    taken = [flag for flag in COMMANDS["evaluate"].grammar.settings if flag != "runs-dir"]
    assert set(get_type_hints(MeasuringKeywords)) == {python_keyword(flag) for flag in taken}


def test_keywords_lead_to_their_flags() -> None:
    config = from_mapping({"data_limit": 300, "finetune_lr": 0.5, "runs_dir": Path("a") / "b"}, environ={})
    assert (config.limit, config.finetuning.lr, config.runs_dir) == (300, 0.5, Path("a/b"))


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (np.str_("a"), "a"),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([[1], [2]]), [[1], [2]]),
        (("a", {"b": np.float64(1.0)}), ["a", {"b": 1.0}]),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (None, None),
    ],
)
def test_a_value_becomes_one_that_yaml_has(value: object, read: object) -> None:
    assert plain(value) == read
    assert yaml.safe_load(yaml.safe_dump(plain(value))) == read


def test_numbers_of_numpy_stand_in_the_configuration() -> None:
    said = {"finetune_lr": np.float64(0.5), "seed": np.int64(3), "finetune_milestones": np.array([2, 3])}
    backbone = {"resnet18": {"layers": np.array([1, 1, 1, 1])}}
    config = from_mapping(said | {"defense": {"pgd": {"eps": np.float64(0.25)}}, "backbone": backbone}, environ={})
    content = yaml.safe_load(to_yaml(config))
    assert (content["finetune-lr"], content["seed"], content["finetune-milestones"]) == (0.5, 3, [2, 3])
    assert (content["defense"]["pgd"]["eps"], content["backbone"]) == (0.25, {"resnet18": {"layers": [1, 1, 1, 1]}})


@pytest.mark.parametrize("value", [Decimal("0.1"), object, print, b"bytes"])
def test_what_is_no_setting_is_refused_by_name_and_leaves_no_folder(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"defense: expected text, numbers, .*, got "):
        advss.fit(defense={"pgd": {"eps": value}}, runs_dir=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="stage 'finetun' is none of pretrain, finetune"):
        advss.load_data("any", stage="finetun")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [5, ["digits", 5], {"digits": 1}])
def test_a_configuration_that_is_no_file_is_named(config: Any) -> None:
    with pytest.raises(UsageError, match=r"config: expected a file, a recipe or a list of them, got"):
        from_mapping({"config": config}, environ={})
