"""Distributions made up in a temporary folder, found as installed ones are."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from advss.plugins import forget
from advss.switches import switch_off

Install = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _fresh_discovery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in ("ADVSS_DISABLE_PLUGINS", "ADVSS_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    switch_off(())
    forget()
    yield
    switch_off(())
    forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module. Returns the module's name; ``target`` follows it in the entry point."""

    def install_one(name: str, code: str, *, version: str = "2.5", entry: str = "plugin", target: str = "") -> str:
        module = f"fake_plugin_{next(_numbers)}"
        folder = tmp_path / module
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[advss]\n{entry} = {module}{target}\n")
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(folder)
        return module

    return install_one
