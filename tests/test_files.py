"""What a run writes of text is whole or as it was before."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.figures import new_figure, save_figure
from advss.files import write_json


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "result.json", {"ta": 0.5})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot save .*result\.json"):
        write_json(tmp_path / "result.json", {"ta": 0.9})
    assert json.loads((tmp_path / "result.json").read_text()) == {"ta": 0.5}


def test_a_figure_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "figures").touch()  # in the place of the folder
    with pytest.raises(UsageError, match=r"cannot save .*curve\.png"):
        save_figure(new_figure(width=1, height=1), tmp_path / "figures" / "curve.png")


def test_one_file_is_written_by_several_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda count: write_json(tmp_path / "mlflow.json", {"offset": count}), range(100)))
    assert json.loads((tmp_path / "mlflow.json").read_text())["offset"] in range(100)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.json"]
