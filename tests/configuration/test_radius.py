"""A norm and its radius: what is said together counts together, and what is not said is the field's, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advss.config import EvalSettings, RunConfig
from advss.configuration.resolve import from_mapping, resolve, to_yaml
from advss.errors import UsageError

Layers = list[dict[str, Any]]
L2, LINF, L1 = ("l2", 0.5, 0.1), ("linf", 8 / 255, 2 / 255), ("l1", 12.0, 2.4)


def config(*layers: dict[str, Any], folder: Path) -> RunConfig:
    """What files, one a layer, and flags after them come to."""
    files = []
    for place, layer in enumerate(layers[:-1]):
        files.append(folder / f"{place}.yaml")
        files[-1].write_text(yaml.safe_dump(layer))
    return resolve(layers[-1], configs=files, environ={}, text=True)


def of(holder: Any) -> tuple[str, float, float]:
    """Norm, radius and step of a defense's options or of the evaluation."""
    return holder["norm"], holder["eps"], holder["step_size"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{}], LINF),
        ([{"eval-norm": "l2"}], L2),
        ([{"eval-norm": "l1"}], L1),
        ([{"eval-norm": "l1", "eval-top-share": 0.1}, {"eval-norm": "l2"}], L2),
        ([{"eval-norm": "l2", "eval-eps": "1"}], ("l2", 1.0, 0.1)),
        ([{"eval-eps": "1", "eval-norm": "l2"}], ("l2", 1.0, 0.1)),
        ([{"eval-norm": "l2", "eval-eps": 1.0}, {"eval-steps": "5"}], ("l2", 1.0, 0.1)),
        ([{"eval-norm": "linf", "eval-eps": 0.01, "eval-step-size": 0.002}, {"eval-norm": "l2"}], L2),
        ([{"eval-norm": "linf", "eval-eps": 0.01}, {"eval-norm": "linf"}], ("linf", 0.01, 2 / 255)),
        ([{"eval-eps": 0.01}, {"eval-norm": "l2"}, {"eval-norm": "linf"}], LINF),
        ([{"eval-norm": "l2"}, {"eval-eps": "1"}], ("l2", 1.0, 0.1)),
    ],
    ids=str,
)
def test_the_radius_of_the_evaluation(layers: Layers, expected: tuple[str, float, float], tmp_path: Path) -> None:
    assert of(vars(config(*layers, folder=tmp_path).evaluation)) == expected


@pytest.mark.parametrize(
    ("layers", "first", "second"),
    [
        ([{"defense.norm": "l2"}], L2, L2),
        ([{"defense.norm": "l1", "defense.top_share": 0.1}, {"finetune-defense.norm": "l2"}], L1, L2),
        ([{"defense.eps": "1", "defense.norm": "l2"}], ("l2", 1.0, 0.1), ("l2", 1.0, 0.1)),
        ([{"defense": {"pgd": {"eps": 1.0, "norm": "l2"}}}, {}], ("l2", 1.0, 0.1), ("l2", 1.0, 0.1)),
        ([{"defense": {"pgd": {"eps": 0.01}}}, {"defense.norm": "l2"}], L2, L2),
        ([{"defense.eps": "0.01", "finetune-defense.norm": "l2"}], ("linf", 0.01, 2 / 255), L2),
        ([{"defense.norm": "l2", "finetune-defense": "trades"}], L2, LINF),
    ],
    ids=str,
)
def test_the_radius_of_a_defense(layers: Layers, first: Any, second: Any, tmp_path: Path) -> None:
    resolved = config(*layers, folder=tmp_path)
    assert of(resolved.defense.options) == first
    assert of(resolved.finetune_defense.options) == second


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"eval-norm": "l2"}, "--eval-norm l2: eps 0.5 and step_size 0.1"),
        ({"eval-norm": "linf", "eval-step-size": "1/255"}, "--eval-norm linf: eps 8/255"),
        ({"eval-norm": "l1", "eval-top-share": "0.1"}, "--eval-norm l1: eps 12 and step_size 2.4"),
        ({"eval-norm": "l1", "eval-eps": "3"}, "--eval-norm l1: step_size 2.4 and top_share 0.01"),
        ({"defense.norm": "l2"}, "--defense.norm, --finetune-defense.norm l2: eps 0.5 and step_size 0.1"),
        ({"defense.norm": "l2", "defense.eps": "1"}, "--defense.norm, --finetune-defense.norm l2: step_size 0.1"),
    ],
    ids=str,
)
def test_what_was_not_said_is_said_in_one_line(said: dict[str, str], line: str, told: Callable[[], list[str]]) -> None:
    resolve(said, environ={}, text=True)
    assert told() == [f"advss: {line}, since nothing else is said"]


def test_python_hears_it_too(told: Callable[[], list[str]]) -> None:
    from_mapping({"defense": {"pgd": {"norm": "l2", "eps": 1.0}}, "eval_norm": "l2"}, environ={})
    assert len(told()) == 2


def test_nothing_is_said_where_all_was(told: Callable[[], list[str]], tmp_path: Path) -> None:
    resolve({}, environ={})
    l2 = {"eval-norm": "l2", "eval-eps": 1, "eval-step-size": 0.2}
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(resolve(l2, environ={})))
    resolve({}, base=path, environ={})
    assert told() == []


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"eval-eps": "8"}, r"--eval-eps: must be at most 1 for linf, got 8\.0: .* so say 8/255"),
        ({"eval-step-size": "2"}, r"--eval-step-size: must be at most 1 for linf, got 2\.0: .* so say 2/255"),
        ({"eval-norm": "l2", "eval-eps": "128"}, r"--eval-eps: must be at most 16 for l2, .* so say 128/255"),
        ({"eval-norm": "l1", "eval-eps": "3060"}, r"--eval-eps: must be at most 256 for l1, .* so say 3060/255"),
        ({"eval-top-share": "0.1"}, r"--eval-top-share: must be left out for linf, got 0\.1: it is of l1 alone"),
        ({"eval-eps": ".nan"}, "--eval-eps: expected a finite number"),
        ({"eval-valid-steps": "0"}, "--eval-valid-steps: must be at least 1, got 0"),
        ({"defense.eps": "8"}, r"--defense\.eps must be at most 1 for linf"),
        ({"defense.step_size": ".inf"}, r"--defense\.step_size must be above 0 and finite"),
        ({"finetune-defense.eps": "8"}, r"--finetune-defense\.eps must be at most 1 for linf"),
        ({"defense": "fgsm-rs", "defense.eps": "8"}, r"--defense\.eps must be at most 1 for linf"),
        ({"defense": "smoothing", "defense.sigma": "64"}, r"--defense\.sigma must be at most 4, got 64\.0"),
    ],
    ids=str,
)
def test_other_units_are_one_line(said: dict[str, str], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        resolve(said, environ={}, text=True)


def test_a_file_is_named_where_it_says_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"0\.yaml: eval-eps: must be at most 1"):
        config({"eval-eps": 8}, {}, folder=tmp_path)


def test_the_settings_of_python_keep_the_rule() -> None:
    assert of(vars(EvalSettings(norm="l2"))) == L2
    with pytest.raises(ValueError, match="eps must be at most 1 for linf, got 8"):
        EvalSettings(eps=8)
    with pytest.raises(ValueError, match="valid_steps must be at least 1, got 0"):
        EvalSettings(valid_steps=0)
