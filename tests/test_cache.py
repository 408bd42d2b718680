"""The cache loses nothing that matters, whatever lies where it should be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from advss.cache import cache_path, changed_at, read_cache, write_cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "advss"


def test_what_is_written_is_read() -> None:
    write_cache("a.json", {"x": [1, "é"]})
    assert read_cache("a.json") == {"x": [1, "é"]}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_cache_is_empty(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "a.json").write_bytes(content)
    assert read_cache("a.json") == {}


def test_what_is_no_cache_is_overwritten(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.json").write_text("{")
    write_cache("a.json", {"x": 1})
    assert json.loads((folder / "a.json").read_text()) == {"x": 1}


def test_nothing_else_is_left_in_the_folder(folder: Path) -> None:
    write_cache("a.json", {"x": 1})
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_a_folder_in_its_place_is_silent(folder: Path) -> None:
    (folder / "a.json" / "inner").mkdir(parents=True)
    write_cache("a.json", {"x": 1})
    assert read_cache("a.json") == {}
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_a_file_in_the_folders_place_is_silent(folder: Path) -> None:
    folder.write_text("")
    write_cache("a.json", {"x": 1})
    assert read_cache("a.json") == {}


def test_a_relative_cache_home_is_not_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path("a.json") == tmp_path / ".cache" / "advss" / "a.json"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", nowhere)
    write_cache("a.json", {"x": 1})
    assert read_cache("a.json") == {}


def test_when_a_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.utime(path, ns=(5, 7_000_000_000))
    assert changed_at(path) == 7_000_000_000
    assert changed_at(tmp_path / "gone") == 0
    assert changed_at("a\0b") == 0
