"""Scripts of jobs: bash runs them as a launcher would, sbatch is handed each behind those it needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from advss.errors import UsageError
from advss.launching import Job
from advss.testing.launched import CODES, ENDED, LOST, NEEDS, Place, Told
from advss_launchers.print import Print

SBATCH = r"""#!/usr/bin/env bash
echo "$(printf '<%s>' "$@" | tr '\n' ' ')" >> "$CALLS"
echo $((100 + $(wc -l < "$CALLS")))
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder whose name a shell must have quoted."""
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    return Place(folder)


def script(launcher: Print, jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> str:
    board = Told()
    launcher.check()
    launcher.launch(jobs, board)
    assert board.told == []
    return capsys.readouterr().out


def test_printing_runs_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    script(Print(), place.jobs(), capsys)
    assert list(place.folder.iterdir()) == []


def test_bash_runs_each_that_may_run_once_and_ends_with_1(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(Print(), place.jobs(), capsys)
    assert subprocess.run(["bash", "-c", text], capture_output=True, check=False).returncode == 1
    assert {name: len(place.began(name)) for name in CODES} == {name: name not in LOST for name in CODES}
    (_, *before), *_ = place.began("second")
    assert f"first{ENDED}" in before
    assert {*(place.folder / "first.log").read_text().splitlines()} == {"output of first", "errors of first"}


def test_bash_ends_with_0_where_all_went_well(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(Print(), [place.job("first"), place.job("second", needs=("first", "done before"))], capsys)
    assert subprocess.run(["bash", "-c", text], capture_output=True, check=True).stderr == b""
    assert place.ended("second")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sbatch that notes what it is called with, and numbers from 101 on."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def test_sbatch_is_handed_each_behind_those_it_needs(
    place: Place, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = script(Print(style="sbatch", options="--gres=gpu:1 --comment='a b'"), place.jobs(), capsys)
    subprocess.run(["bash", "-c", text], check=True)
    found = dict(zip(CODES, calls.read_text().splitlines(), strict=True))
    number = {name: str(101 + n) for n, name in enumerate(CODES)}
    for name, call in found.items():
        assert f"<--job-name={name}>" in call
        assert "<--gres=gpu:1><--comment=a b>" in call
        after = ":".join(["afterok", *(number[before] for before in NEEDS.get(name, ()))])
        assert (f"<--dependency={after}>" in call) == (name in NEEDS)
        assert f"<--output={place.folder / name}.log>" in call


@pytest.mark.parametrize(
    ("launcher", "said"),
    [(Print(options="--time=1"), "are of sbatch"), (Print(style="sbatch", options="'"), "No closing quotation")],
)
def test_what_nobody_takes_is_refused(launcher: Print, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        launcher.check()
