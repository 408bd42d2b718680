"""Which store a run is sent to, and how it is made, whatever a folder is called and whoever made it."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from advss.tracking.store import open_store, sqlite_path, store_uri
from advss.tracking.sync import sync
from advss.tracking.tracker import Tracker


class Client:
    """In MlflowClient's place: makes a table in a SQLite store at once."""

    def __init__(self, tracking_uri: str, registry_uri: str = "") -> None:
        path = sqlite_path(tracking_uri)
        assert path is not None
        self.path = path

    def search_experiments(self) -> None:
        with closing(sqlite3.connect(self.path)) as store:
            store.execute("create table made (x)")


def test_a_drive_without_hard_links_has_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    monkeypatch.setattr(os, "link", refuse)
    open_store(f"sqlite:///{tmp_path}/mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("select name from sqlite_master").fetchall() == [("made",)]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("name", ["what?", "50%41", "a#b c"])
def test_the_store_lies_beside_the_runs_whatever_the_folder_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / name / "runs").mkdir(parents=True)
    for _ in range(2):  # the second time, what the first has made is there
        with create_engine(store_uri(tmp_path / name / "runs")).connect():
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, "cache"] if set(name) & set("?%") else [name]
    )
    assert (tmp_path / name / "mlflow.db").is_file()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "postgresql://127.0.0.1:1/x", "databricks"])
def test_an_address_in_a_runs_folder_is_not_followed(
    address: str, folder: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mlflow.json").write_text(json.dumps({"uri": address}))
    assert Tracker(folder, name="sample").finish("FINISHED", wait_s=60)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"advss: {folder} names the store {address}, which is not followed; MLFLOW_TRACKING_URI={address} allows it"
    ]
    assert json.loads((folder / "mlflow.json").read_text())["uri"] == uri


def test_a_store_elsewhere_on_this_machine_is_not_opened(folder: Path, uri: str, tmp_path: Path) -> None:
    (folder / "mlflow.json").write_text(json.dumps({"uri": f"sqlite:///{tmp_path}/other.db"}))
    (tmp_path / "other.db").write_bytes(b"")
    Tracker(folder, name="sample", enabled=False).finish("FINISHED")
    sync(folder)
    assert (tmp_path / "other.db").read_bytes() == b""
    assert json.loads((folder / "mlflow.json").read_text())["uri"] == uri


def test_the_variable_allows_an_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert store_uri(folder.parent) == "http://127.0.0.1:1"
