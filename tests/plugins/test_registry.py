"""Names of plugins: short ones, full ones, claimed twice; and plugins built from options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advss.cli.main import main
from advss.config import Choice
from advss.errors import UsageError
from advss.plugins import build, complete, registry
from advss.plugins.names import remember
from advss.switches import switch_off

Install = Callable[..., str]
DEFENSE = """
from typing import Literal
from advss.hookspecs import Defense

class Shaped(Defense):
    '''A defense with options.

    Args:
        eps: radius.
    '''

    name = "{name}"

    def __init__(
        self, *, eps: float = 0.1, steps: int = 3, sizes: tuple[int, ...] = (1,), mode: Literal["a", "b"] = "a"
    ):
        if eps < 0:
            raise ValueError(f"eps must be at least 0, got {{eps}}")
        if steps < 1:
            raise ValueError("no\\nsteps")
        self.options = (eps, steps, sizes, mode)

def advss_defenses():
    return [Shaped]
"""


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown pretext task 'selfi'; did you mean 'selfie'"):
        registry().find("pretext", "selfi")


@pytest.mark.parametrize("name", ["shaped", "advss-shaped", "advss-shaped:any"])
def test_a_name_that_a_broken_distribution_may_have_is_not_only_unknown(install: Install, name: str) -> None:
    install("advss-shaped", "import nothing_of_this_name")
    with pytest.raises(UsageError, match="it may be of advss-shaped, which is broken: ModuleNotFoundError: No module"):
        registry().find("defense", name)


def test_a_kind_has_its_own_names() -> None:
    with pytest.raises(UsageError, match="unknown defense 'selfie'"):
        registry().find("defense", "selfie")


def test_a_name_claimed_twice_is_an_error_when_used(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    install("other", DEFENSE.format(name="shaped"))
    with pytest.raises(
        UsageError, match=r"defense 'shaped' is claimed by acme:shaped and other:shaped; say .*--defense acme:shaped"
    ):
        registry().find("defense", "shaped")


def test_a_full_name_settles_it(install: Install) -> None:
    acme = install("acme", DEFENSE.format(name="shaped"))
    install("other", DEFENSE.format(name="shaped"))
    assert registry().find("defense", "acme:shaped").__module__ == acme


def test_builtins_keep_their_short_names(install: Install) -> None:
    acme = install("acme", DEFENSE.format(name="pgd"))
    assert registry().find("defense", "pgd").__module__.startswith("advss_defenses")
    assert registry().find("defense", "acme:pgd").__module__ == acme


def test_rows_say_how_a_shadowed_plugin_is_called(install: Install) -> None:
    install("acme", DEFENSE.format(name="pgd"))
    status = {f"{row.distribution}:{row.name}": row.status for row in registry().rows()}
    assert (status["advss:pgd"], status["acme:pgd"]) == ("ok", "use acme:pgd")


def test_rows_hold_what_is_broken(install: Install) -> None:
    install("acme", "1 / 0")
    (row,) = (row for row in registry().rows() if row.distribution == "acme")
    assert (row.version, row.status) == ("2.5", "broken: ZeroDivisionError: division by zero")


def test_a_disabled_name_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "selfie")
    with pytest.raises(UsageError, match="ADVSS_DISABLE_PLUGINS switches off 'advss:selfie'"):
        registry().find("pretext", "selfie")


def test_a_name_disabled_on_the_line_says_so() -> None:
    switch_off(["selfie"])
    with pytest.raises(UsageError, match=r"; -p no:selfie switches off 'advss:selfie'$"):
        registry().find("pretext", "selfie")


@pytest.mark.parametrize("name", ["shaped", "acme:shaped"])
def test_a_disabled_distribution_that_is_known_to_have_a_name_says_so(install: Install, name: str) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    remember(registry().found)
    switch_off(["acme"])
    with pytest.raises(UsageError, match=f"unknown defense '{name}'; -p no:acme switches off 'acme'$"):
        registry().find("defense", name)


def test_a_disabled_distribution_of_unknown_names_says_so(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    switch_off(["acme"])
    with pytest.raises(UsageError, match=r"known: .*none.* \(-p no:acme switches off 'acme'\)$"):
        registry().find("defense", "shaped")


def test_a_name_that_is_not_disabled_says_nothing_of_switches(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    remember(registry().found)
    switch_off(["acme"])
    with pytest.raises(UsageError) as refused:
        registry().find("defense", "shoped")
    assert "no:acme" not in str(refused.value)


def test_what_is_disabled_is_a_row(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    switch_off(["acme", "advss:pgd"])
    rows = {(row.kind, row.name, row.distribution): row.status for row in registry().rows()}
    assert rows["", "", "acme"] == "disabled by -p no:acme"
    assert rows["defense", "pgd", "advss"] == "disabled by -p no:advss:pgd"


def test_switching_on_again_finds_it_again(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    switch_off(["acme"])
    registry()
    switch_off(())
    assert "shaped" in registry().names("defense")


def test_a_switch_that_leaves_nothing_out_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    switch_off(["selfei"])
    registry()
    line = "advss: warning: -p no:selfei leaves nothing out: there is no such plugin or distribution\n"
    assert capsys.readouterr().err == line


def test_a_variable_that_leaves_nothing_out_is_a_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "not-installed-here")
    registry()
    assert capsys.readouterr().err == ""


def test_build_takes_text_and_values(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    said = {"eps": "8/255", "steps": 5, "sizes": "2,3", "mode": "b"}
    assert build("defense", Choice("shaped", said)).options == (8 / 255, 5, (2, 3), "b")


def test_complete_fills_the_defaults_in(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    expected = {"eps": 0.1, "steps": 7, "sizes": (1,), "mode": "a"}
    assert complete("defense", Choice("shaped", {"steps": "7"})) == expected


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"stpes": 3}, r"unknown option --defense\.stpes of shaped; did you mean 'steps'\?"),
        ({"steps": "abc"}, r"--defense\.steps: expected int, got 'abc'"),
        ({"steps": 2.5}, r"--defense\.steps: expected int, got 2\.5"),
        ({"steps": True}, r"--defense\.steps: expected int, got True"),
        ({"steps": None}, r"--defense\.steps: expected int, got None"),
        ({"mode": "c"}, r"--defense\.mode: expected a \| b, got 'c'"),
        ({"eps": "8/0"}, r"--defense\.eps: expected a number, such as 0.5 or 8/255, got '8/0'"),
        ({"eps": -1}, r"--defense\.eps must be at least 0, got -1\.0"),
        ({"steps": 0}, r"--defense shaped: no steps"),
    ],
)
def test_a_bad_option_is_one_line(install: Install, said: dict[str, object], error: str) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    with pytest.raises(UsageError, match=error):
        build("defense", Choice("shaped", said))


def test_the_flag_in_errors_is_the_callers(install: Install) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    with pytest.raises(UsageError, match=r"--finetune-defense\.eps must be"):
        build("defense", Choice("shaped", {"eps": -1}), flag="--finetune-defense.")


def test_the_command_line_lists_a_broken_plugin(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("acme", "1 / 0")
    assert main(["plugins", "list"]) == 0
    captured = capsys.readouterr()
    assert "acme" in captured.out
    assert captured.err == "advss: warning: plugin acme 2.5 (plugin): ZeroDivisionError: division by zero\n"


def test_strict_plugins_on_the_command_line(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("acme", "1 / 0")
    assert main(["plugins", "list", "--strict-plugins"]) == 2
    assert capsys.readouterr().err == "advss: error: plugin acme 2.5 (plugin): ZeroDivisionError: division by zero\n"


def test_a_third_partys_options_are_on_the_command_line(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("acme", DEFENSE.format(name="shaped"))
    assert main(["fit", "--defense", "shaped", "--defense.sizes", "2,3", "--help"]) == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert rows["shaped"] == ["A", "defense", "with", "options"]
    assert rows["--defense.sizes"][0] == "[2,3]"
