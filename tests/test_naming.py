from __future__ import annotations

from pathlib import Path

import pytest

from advss.naming import as_typed


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("runs/a", "runs/a"),
        ("/else where/a", "'/else where/a'"),
        ("my runs/a", "'my runs/a'"),
        ("runs/it's", """'runs/it'"'"'s'"""),
        ("../runs/a", "../runs/a"),
    ],
)
def test_a_path_is_quoted_for_the_shell(path: str, typed: str) -> None:
    assert as_typed(path) == typed


def test_a_path_below_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed(tmp_path / "runs" / "a") == "runs/a"
