"""The names' cache: what it knows, and when it knows it no more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advss.plugins.discovery import discover
from advss.plugins.installed import installed
from advss.plugins.names import Known, recall, remember

Install = Callable[..., str]
SHAPED = """
from typing import Literal
from advss.hookspecs import Defense

class Shaped(Defense):
    '''Shape the ball,
    a little. And more.

    Args:
        mode: how
        fast: or slow
    '''

    name = "shaped"

    def __init__(self, *, mode: float | Literal["a", "b"] = "a", fast: bool = False, base: Defense | str = "pgd"):
        pass

def advss_defenses():
    return [Shaped]
"""


def known_of(distribution: str) -> list[Known]:
    return [known for known in recall(installed()) if known["distribution"] == distribution]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "advss" / "plugins.json"


@pytest.fixture
def acme(install: Install) -> str:
    """A remembered distribution of one defense, forgotten by Python."""
    module = install("acme", SHAPED)
    remember(discover())
    del sys.modules[module]
    return module


def test_names_are_recalled_without_an_import(acme: str) -> None:
    (known,) = known_of("acme")
    assert (known["kind"], known["name"], known["summary"]) == (
        "defense",
        "shaped",
        "Shape the ball, a little. And more",
    )
    assert acme not in sys.modules


def test_options_are_recalled_with_their_few_values(acme: str) -> None:
    options = {o["name"]: (o["type"], o["doc"], o["values"]) for o in known_of("acme")[0]["options"]}
    assert options == {
        "mode": ("float | a | b", "how", ["a", "b"]),
        "fast": ("bool", "or slow", ["true", "false"]),
        "base": ("defense", "", []),
    }


def test_nothing_is_known_before(install: Install) -> None:
    install("acme", SHAPED)
    assert known_of("acme") == []


@pytest.mark.parametrize("file", ["{module}.py", "acme-2.5.dist-info/entry_points.txt", "acme-2.5.dist-info/METADATA"])
def test_a_file_that_changed_forgets(acme: str, tmp_path: Path, file: str) -> None:
    path = tmp_path / acme / file.format(module=acme)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert known_of("acme") == []


def test_a_class_in_another_file_that_changed_forgets(install: Install, tmp_path: Path) -> None:
    hook = "@hookimpl\ndef advss_defenses(): return [Shaped]"
    install("acme", f"from advss.hookspecs import hookimpl\nfrom acme_inner import Shaped\n\n{hook}")
    inner = tmp_path / "acme_inner.py"
    inner.write_text(SHAPED.replace("def advss_defenses", "def unused"))
    sys.path.insert(0, str(tmp_path))
    try:
        remember(discover())
        assert len(known_of("acme")) == 1
        os.utime(inner, ns=(0, 1))
        assert known_of("acme") == []
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("acme_inner", None)


def test_another_version_is_not_known(acme: str, tmp_path: Path) -> None:
    info = tmp_path / acme / "acme-2.5.dist-info"
    info.rename(info.with_name("acme-2.6.dist-info"))
    assert known_of("acme") == []


def test_what_is_gone_is_dropped(acme: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / acme).rename(tmp_path / "elsewhere")
    remember(discover())
    assert not any("acme" in place for place in json.loads(cache.read_text())["distributions"])


def test_what_holds_is_not_written_again(acme: str, cache: Path) -> None:
    before = cache.stat().st_ino
    remember(discover())
    assert cache.stat().st_ino == before


def test_a_broken_distribution_is_not_kept(acme: str, tmp_path: Path) -> None:
    path = tmp_path / acme / f"{acme}.py"
    path.write_text("1 / 0")
    remember(discover())
    assert known_of("acme") == []


def test_a_distribution_that_a_dependency_broke_is_forgotten(install: Install, tmp_path: Path) -> None:
    """Its own files are what they were."""
    (tmp_path / "acme_needs.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        module = install("acme", "import acme_needs\n" + SHAPED)
        remember(discover())
        (tmp_path / "acme_needs.py").write_text("1 / 0")
        for name in (module, "acme_needs"):
            del sys.modules[name]
        assert len(known_of("acme")) == 1
        remember(discover())
        assert known_of("acme") == []
    finally:
        sys.path.remove(str(tmp_path))


def test_what_is_switched_off_stays_known(acme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "shaped")
    remember(discover())
    monkeypatch.setenv("ADVSS_DISABLE_PLUGINS", "acme")
    remember(discover())
    assert len(known_of("acme")) == 1


def spoiled(content: Any, way: str) -> Any:
    """A cache that is somebody else's, or of another time."""
    entries = content["distributions"]
    for entry in entries.values():
        if way == "plugins":
            entry["plugins"] = [7]
        elif way == "option":
            entry["plugins"][0]["options"] = [{"name": ["x"], "type": "int", "doc": "", "values": []}]
        elif way == "files":
            entry["files"] = ["x"]
        elif way == "version":
            del entry["version"]
    return {
        "format": {"format": 0, "distributions": entries},
        "entries": {"format": 1, "distributions": [1]},
        "entry": {"format": 1, "distributions": dict.fromkeys(entries)},
    }.get(way, content)


@pytest.mark.parametrize("way", ["plugins", "option", "files", "version", "format", "entries", "entry"])
def test_a_foreign_cache_is_ignored_and_rewritten(acme: str, cache: Path, way: str) -> None:
    cache.write_text(json.dumps(spoiled(json.loads(cache.read_text()), way)))
    assert known_of("acme") == []
    remember(discover())
    assert len(known_of("acme")) == 1
