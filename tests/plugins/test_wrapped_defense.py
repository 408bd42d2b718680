"""Options that take a defense: how they are said, what core makes of them, and what it says of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advss.cli.main import main
from advss.config import Choice, RunConfig
from advss.configuration.resolve import resolve, to_yaml
from advss.errors import UsageError
from advss.hookspecs import Defense
from advss.plugins import build, complete
from advss.runs.stored import resume_config
from advss_defenses.trades import Trades

CODE = '''
from advss.hookspecs import Defense, hookimpl

class Around(Defense):
    """Another defense, as it is.

    Args:
        base: the other one.
        weight: unused.
    """
    name = "around"
    def __init__(self, *, base: Defense | str = "pgd", weight: float = 1.0) -> None:
        self.base, self.weight = base, weight

class Perhaps(Defense):
    """One or none."""
    name = "perhaps"
    def __init__(self, *, base: Defense | None = None) -> None:
        self.base = base

class Asking(Defense):
    """One that must be named."""
    name = "asking"
    def __init__(self, *, base: Defense) -> None:
        self.base = base

class Endless(Defense):
    """Around itself, by default."""
    name = "endless"
    def __init__(self, *, base: Defense | str = "endless") -> None:
        self.base = base

@hookimpl
def advss_defenses() -> list[type[Defense]]:
    return [Around, Perhaps, Asking, Endless]
'''


@pytest.fixture(autouse=True)
def _wrappers(install: Callable[..., str]) -> None:
    install("wrappers", CODE)


def config(*layers: dict[str, Any], folder: Path) -> RunConfig:
    """What files, one a layer, and flags after them come to."""
    files = []
    for place, layer in enumerate(layers[:-1]):
        files.append(folder / f"{place}.yaml")
        files[-1].write_text(yaml.safe_dump(layer))
    return resolve(layers[-1], configs=files, environ={}, text=True)


def base(*layers: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The defense that ``around`` takes, with its options."""
    options: dict[str, Any] = config(*layers, folder=folder).defense.options["base"]
    return options


FLAGS = {"defense": "around", "defense.base": "trades"}
FILE = {"defense": {"around": {"base": {"trades": {"beta": 3, "steps": 7}}}}}


def trades(**said: Any) -> dict[str, Any]:
    """TRADES with all its options."""
    return {"trades": complete("defense", Choice("trades", said))}


# ---------------------------------------------------------------- how it is said
@pytest.mark.parametrize(
    "layers",
    [
        [FLAGS | {"defense.base.trades.beta": "3"}],
        [{"defense.base.trades.beta": "3"} | FLAGS],
        [FLAGS | {"defense.base.beta": "3"}],
        [FLAGS | {"defense.around.base.trades.beta": "3"}],
        [{"defense": {"around": {"base": {"trades": {"beta": 3}}}}}, {}],
        [{"defense": {"around": {"base": "trades"}}, "defense.base.trades.beta": 3}, {}],
        [{"defense": {"around": {"base": "trades"}}}, {"defense.base.trades.beta": "3"}],
        [{"defense": "around", "defense.base": {"trades": {"beta": 3}}}, {}],
    ],
)
def test_a_defense_is_named_with_its_options_in_flags_and_yaml(layers: list[dict[str, Any]], tmp_path: Path) -> None:
    assert base(*layers, folder=tmp_path) == trades(beta=3.0)


def test_its_options_are_read_in_their_own_types(tmp_path: Path) -> None:
    said = FLAGS | {"defense.base.trades.step-size": "4/255", "defense.base.trades.attack": "ce"}
    assert base(said, folder=tmp_path) == trades(step_size=4 / 255, attack="ce")


def test_another_norm_within_drops_the_radius_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = {"defense": {"around": {"base": {"trades": {"eps": 0.01, "norm": "linf"}}}}}
    assert base(file, {"defense.base.norm": "l2"}, folder=tmp_path) == trades(norm="l2", eps=0.5, step_size=0.1)
    assert "--defense.base.trades.norm, --finetune-defense.base.trades.norm l2: eps 0.5" in capsys.readouterr().err


def test_hyphens_in_a_name_are_its_own(tmp_path: Path) -> None:
    said = {"defense": "around", "defense.base": "fgsm-rs", "defense.base.fgsm-rs.step": "1"}
    assert base(said, folder=tmp_path)["fgsm-rs"]["step"] == 1.0


def test_nothing_said_is_the_default_with_all_its_options(tmp_path: Path) -> None:
    assert base({"defense": "around"}, folder=tmp_path) == {"pgd": complete("defense", Choice("pgd"))}


def test_a_later_layer_adds_to_the_same_defense(tmp_path: Path) -> None:
    assert base(FILE, {"defense.base.trades.steps": "2"}, folder=tmp_path) == trades(beta=3.0, steps=2)
    assert base(FILE, {"defense.base": "trades"}, folder=tmp_path) == trades(beta=3.0, steps=7)
    again = {"defense": {"around": {"base": {"trades": {"steps": 2}}}}}
    assert base(FILE, again, {}, folder=tmp_path) == trades(beta=3.0, steps=2)


def test_another_defense_drops_the_options_of_the_earlier_one(tmp_path: Path) -> None:
    assert base(FILE, {"defense.base": "pgd"}, folder=tmp_path) == {"pgd": complete("defense", Choice("pgd"))}


def test_a_case_speaks_of_it_too(tmp_path: Path) -> None:
    case = {"when": {"defense": "around"}, "defense": {"around": {"base": {"trades": {"beta": 2}}}}}
    assert base({"cases": [case]}, {"defense": "around"}, folder=tmp_path) == trades(beta=2.0)


def test_fine_tuning_takes_what_is_not_said_from_pretraining(tmp_path: Path) -> None:
    said = FLAGS | {"defense.base.trades.beta": "3", "finetune-defense.base.trades.steps": "2"}
    found = config(said, folder=tmp_path)
    assert found.defense.options["base"] == trades(beta=3.0)
    assert found.finetune_defense.options["base"] == trades(beta=3.0, steps=2)


def test_one_may_be_around_another_of_its_kind(tmp_path: Path) -> None:
    said = {"defense": "around", "defense.base": "around", "defense.base.around.base": "trades"}
    found = base(said | {"defense.base.around.base.trades.beta": "3"}, folder=tmp_path)
    assert found == {"around": {"base": trades(beta=3.0), "weight": 1.0}}


def test_it_passes_through_yaml(tmp_path: Path) -> None:
    first = config(FLAGS | {"defense.base.trades.beta": "3", "defense.weight": "2"}, folder=tmp_path)
    assert config(yaml.safe_load(to_yaml(first)), {}, folder=tmp_path) == first


def test_a_run_is_resumed_with_the_same_one_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(config(FILE, {}, folder=tmp_path)))
    resume_config(tmp_path, {"defense.base.trades.beta": "3"}, environ={}, text=True)
    with pytest.raises(UsageError, match=r"--resume: .* has defense .*'beta': 3.0.*not .*'beta': 4.0"):
        resume_config(tmp_path, {"defense.base.trades.beta": "4"}, environ={}, text=True)


# ---------------------------------------------------------------- what the plugin is given
def made(name: str, **options: Any) -> Any:
    return build("defense", Choice(name, options))


def test_the_plugin_is_given_the_defense_itself() -> None:
    wrapped = made("around", base={"trades": {"beta": 3}}).base
    assert isinstance(wrapped, Trades)
    assert wrapped.beta == 3.0


def test_by_default_too() -> None:
    wrapped = made("around").base
    assert isinstance(wrapped, Defense)
    assert wrapped.name == "pgd"


def test_without_a_default_it_must_be_named() -> None:
    with pytest.raises(UsageError, match=r"--defense\.base is missing: asking has no default for it \(defense\)"):
        complete("defense", Choice("asking"))
    assert made("asking", base="none").base.name == "none"


def test_none_is_given_where_none_is_allowed() -> None:
    assert complete("defense", Choice("perhaps")) == {"base": None}
    assert made("perhaps").base is None
    assert made("perhaps", base="none").base.name == "none"


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"defense.base": "tradse"}, r"^--defense\.base: unknown defense 'tradse'; did you mean 'trades'\?$"),
        (
            {"defense.base": "trades", "defense.base.trades.bta": "1"},
            r"^unknown option --defense\.base\.trades\.bta of trades; did you mean 'beta'\?$",
        ),
        (
            {"defense.base": "trades", "defense.base.trades.beta": "x"},
            r"^--defense\.base\.trades\.beta: expected a number, such as 0.5 or 8/255, got 'x'$",
        ),
        (
            {"defense.base": "trades", "defense.base.trades.beta": "-1"},
            r"^--defense\.base\.trades\.beta must be at least 0 and finite, got -1\.0$",
        ),
        (
            {"defense.base.trades.beta": "1"},
            r"^--defense\.base\.trades\.beta: 'trades' is not the defense that base chooses: pgd$",
        ),
        ({"defense.base": ["pgd", "trades"]}, r"^--defense\.base: expected the name of a defense, or a name with"),
        ({"defense.base": None}, r"^--defense\.base: expected defense, got None$"),
        ({"defense": "endless"}, r"more than 8 defenses around 'endless'; does it wrap itself\?$"),
        ({"defense": "asking", "defense.base.beta": "1"}, r"^--defense\.base\.beta: no defense is chosen for base$"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        config({"defense": "around"} | said, folder=tmp_path)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what is shown
def test_the_help_shows_the_chosen_one_and_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    line = "fit --defense around --defense.base trades --defense.base.trades.beta 3 --help"
    assert main(line.split()) == 0
    words = [row.split()[:2] for row in capsys.readouterr().out.splitlines()]
    assert ["--defense.base", "trades"] in words
    assert ["--defense.base.trades.beta", "3"] in words
    assert ["--defense.weight", "1"] in words


def test_plugins_show_says_that_it_takes_a_defense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "around"]) == 0
    assert "the other one (defense)" in capsys.readouterr().out
