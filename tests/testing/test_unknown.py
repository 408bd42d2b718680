from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.plugins import forget, registry
from advss.plugins.names import remember
from advss.switches import switch_off
from advss.testing.subject import find
from advss.testing.unknown import nearest

Install = Callable[..., None]
CODE = """
from advss.hookspecs import Defense, PretextTask


class Turn(PretextTask):
    name = "{name}"


class Hold(Defense):
    name = "hold"


def advss_pretext_tasks():
    return [Turn]


def advss_defenses():
    return [Hold]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install advss-flip, with a pretext task, the defense hold and the entry point ``whirl``; or another group's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ADVSS_DISABLE_PLUGINS", raising=False)

    def install_it(*, name: str = "turn", entry_points: str = "[advss]\nwhirl = flipping\n") -> None:
        info = tmp_path / "advss_flip-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: advss-flip\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text(entry_points)
        (tmp_path / "flipping.py").write_text(CODE.format(name=name))
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install_it
    sys.modules.pop("flipping", None)
    switch_off(())
    forget()


def said_of(name: str, **how: object) -> str:
    with pytest.raises(UsageError) as raised:
        find(name, **how)  # type: ignore[arg-type]
    return str(raised.value)


@pytest.mark.parametrize("name", ["whirl", "flip", "advss-flip:flip", "Advss_Flip:x"])
def test_a_name_of_the_distribution_or_its_entry_point_is_told_what_it_offers(install: Install, name: str) -> None:
    install()
    assert said_of(name) == f"unknown plugin '{name}'; advss-flip offers the pretext task 'turn', the defense 'hold'"


def test_a_built_ins_name_is_offered_in_full(install: Install) -> None:
    install(name="rotation")
    assert "advss-flip offers the pretext task 'advss-flip:rotation', the defense 'hold'" in said_of("flip")


def test_a_distribution_without_the_kind_is_told_what_it_offers(install: Install) -> None:
    install()
    assert said_of("advss-flip", kind="data").startswith("unknown data source 'advss-flip'; advss-flip offers the ")


@pytest.mark.parametrize("name", ["hold", "advss-flip:hold"])
def test_a_name_of_another_kind_is_told_its_kind(install: Install, name: str) -> None:
    install()
    assert said_of(name, kind="pretext") == f"unknown pretext task '{name}'; '{name}' is a defense"


@pytest.mark.parametrize("entry_points", ["", "[console_scripts]\nflip = flipping:main\n"])
@pytest.mark.parametrize("name", ["advss-flip", "flip", "advss_flip"])
def test_a_distribution_without_entry_points_is_installed_all_the_same(
    install: Install, name: str, entry_points: str
) -> None:
    install(entry_points=entry_points)
    assert said_of(name) == (
        "advss-flip is installed and has no entry point in the group advss; add one to its pyproject.toml and install"
        " it again"
    )


def test_one_with_entry_points_in_another_group_is_told_which(install: Install) -> None:
    install(entry_points="[advss.plugins]\nwhirl = flipping\n[console_scripts]\nflip = flipping:main\n")
    assert said_of("flip").endswith("has no entry point in the group advss; it has them in 'advss.plugins'")


@pytest.mark.parametrize("name", ["turn", "advss-flip:turn", "Advss-Flip:TURN"])
def test_what_is_switched_off_by_its_name_says_so(install: Install, name: str) -> None:
    install()
    switch_off(["turn"])
    assert said_of(name) == f"unknown plugin '{name}'; -p no:turn switches off 'advss-flip:turn'"


@pytest.mark.parametrize("name", ["advss-flip", "flip", "whirl", "advss-flip:hold"])
def test_a_distribution_that_is_switched_off_says_so(install: Install, name: str) -> None:
    install()
    switch_off(["advss-flip"])
    assert said_of(name) == f"unknown plugin '{name}'; -p no:advss-flip switches off 'advss-flip'"


def test_so_do_its_plugins_where_they_have_been_seen(install: Install) -> None:
    install()
    remember(registry().found)
    switch_off(["advss-flip"])
    assert said_of("hold") == "unknown plugin 'hold'; -p no:advss-flip switches off 'advss-flip'"


def test_others_that_are_switched_off_are_not_blamed(install: Install) -> None:
    install()
    switch_off(["advss-flip"])
    assert said_of("rotatoin") == "unknown plugin 'rotatoin'; did you mean 'rotation'?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("trun", "turn"), ("advss-flpi", "advss-flip"), ("advss-flpi:hold", "advss-flip:hold"), ("advs", "advss")],
)
def test_a_misspelt_name_is_told_the_nearest_plugin_or_distribution(install: Install, name: str, meant: str) -> None:
    install()
    assert said_of(name) == f"unknown plugin '{name}'; did you mean '{meant}'?"


@pytest.mark.parametrize("name", ["", "nothere", "../x", "a b"])
def test_a_name_like_no_other_is_told_where_all_are(name: str) -> None:
    told = said_of(name)
    assert told.startswith(f"unknown plugin '{name}'; the nearest are '")
    assert told.endswith("`advss plugins list` has all")


def test_of_many_names_the_nearest_are_told() -> None:
    names = [f"{place}-{number}" for place in ("here", "there") for number in range(20)]
    told = nearest("her-1", names)
    assert told == "; did you mean 'here-1'?"
    told = nearest("nowhere-to-be-found-7", names)
    assert told == "; the nearest are 'here-7', 'there-7', 'here-17'; `advss plugins list` has all"
