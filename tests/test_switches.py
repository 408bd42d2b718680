"""Plugins are switched off by a variable and by -p no:NAME, which words of a line it is taken from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from advss.errors import UsageError
from advss.switches import switch_off, switched_off, take_switch


@pytest.fixture(autouse=True)
def _nothing_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("ADVSS_DISABLE_PLUGINS", raising=False)
    switch_off(())
    yield
    switch_off(())


def test_the_variable_names_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "acme, My_Lab:tilt,,")
    assert switched_off() == {"acme": "ADVSS_DISABLE_PLUGINS", "my-lab:tilt": "ADVSS_DISABLE_PLUGINS"}


def test_the_line_stands_beside_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "acme")
    switch_off(["Tilt"])
    assert switched_off() == {"acme": "ADVSS_DISABLE_PLUGINS", "tilt": "-p no:Tilt"}


def test_a_later_line_replaces_an_earlier_one() -> None:
    switch_off(["acme"])
    switch_off(["tilt"])
    assert list(switched_off()) == ["tilt"]


@pytest.mark.parametrize("words", [["-p", "no:acme", "fit"], ["-pno:acme", "fit"]])
def test_a_switch_is_taken_off_the_front(words: list[str]) -> None:
    assert (take_switch(words), words) == ("acme", ["fit"])


@pytest.mark.parametrize("words", [[], ["fit", "-p", "no:acme"], ["--print-config"], ["-pretext"]])
def test_other_words_are_left(words: list[str]) -> None:
    before = list(words)
    assert (take_switch(words), words) == (None, before)


@pytest.mark.parametrize(("words", "got"), [(["-p"], "''"), (["-p", "acme"], "'acme'"), (["-p", "no:"], "'no:'")])
def test_a_switch_without_a_name_is_an_error(words: list[str], got: str) -> None:
    with pytest.raises(UsageError, match=f"-p: expected no:NAME of a plugin or distribution to leave out, got {got}"):
        take_switch(words)
