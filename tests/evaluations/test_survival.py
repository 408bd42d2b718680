"""Nothing of what was measured is lost: by kills, a full disk, another process at the same work, or damage."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from advss.config import Choice, EvalSettings
from advss.configuration.resolve import to_yaml
from advss.errors import UsageError
from advss.evaluations.chunks import Kept
from advss.evaluations.evaluate import evaluate
from advss.runs.stored import resolve_run
from advss.training.reporting import Silent

SETTINGS = EvalSettings(eps=2 / 255, step_size=1 / 255, steps=2, limit=40, batch_size=10)
CHOSEN = (Choice("pgd", {}, "pgd"), Choice("clean", {}, "clean"))


@pytest.fixture
def run(three_runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three_runs / "a", tmp_path / "a"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was kept of chunks: the measurement's folder and the first image, in order."""
    found, write = list[str](), Kept.write

    def noting(self: Kept, first: int, done: int, answers: Any, took_s: float) -> None:
        write(self, first, done, answers, took_s)
        found.append(f"{Path(str(self.folder)).stem.partition('-')[0]} {first}")

    monkeypatch.setattr(Kept, "write", noting)
    return found


def measured(run: Path, chosen: tuple[Choice, ...] = CHOSEN) -> dict[str, Any]:
    return evaluate(run, SETTINGS, chosen, device="cpu", reporter=Silent())


def answers(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("evaluations/*.safetensors")}


def parts(run: Path) -> list[Path]:
    return sorted(run.glob("evaluations/*.part/*"))


def killed(run: Path, fatal: int, *, before: bool) -> int:
    """Measure in a process that ends by SIGKILL just before, or after, it keeps a chunk; its exit code."""

    def work() -> None:
        write, count = Kept.write, 0

        def fatally(self: Kept, first: int, done: int, answers: Any, took_s: float) -> None:
            nonlocal count
            count += 1
            if not (before and count == fatal):
                write(self, first, done, answers, took_s)
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        Kept.write = fatally  # type: ignore[method-assign]
        measured(run)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    return int(process.exitcode or 0)


def test_after_two_kills_the_answers_are_the_same_and_no_chunk_is_measured_twice(
    run: Path, tmp_path: Path, written: list[str]
) -> None:
    torch.set_num_threads(1)
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    measured(whole)
    at_once = [*written]
    written.clear()
    assert killed(run, 3, before=False) == -signal.SIGKILL  # three chunks of PGD are kept
    assert killed(run, 3, before=True) == -signal.SIGKILL  # the fourth, and one of two clean ones
    assert len(parts(run)) == 1
    measured(run)
    assert written == at_once[5:]
    assert answers(run).items() >= answers(whole).items()
    assert list(run.rglob("*.part")) == list(run.rglob(".*.new")) == []


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has the disk full from when a file of some name is written."""
    sync, name = os.fsync, ""

    def syncing(descriptor: int) -> None:
        if name and name in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def fill(said: str) -> None:
        nonlocal name
        name = said

    monkeypatch.setattr("advss.files.os.fsync", syncing)
    yield fill
    monkeypatch.undo()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="where files' names cannot be looked up")
def test_a_full_disk_is_one_line_and_what_was_kept_is_gone_on_from(
    run: Path, tmp_path: Path, written: list[str], full: Callable[[str], None]
) -> None:
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    measured(whole)
    at_once = [*written]
    written.clear()
    third = f"{at_once[2].split()[1]}-1-"
    full(f".{third}")
    with pytest.raises(UsageError, match=rf"cannot save .*/{third}.*: No space left on device; what was saved before"):
        measured(run)
    full("")
    measured(run)
    assert written == at_once
    assert answers(run).items() >= answers(whole).items()


def test_another_process_that_was_done_first_does_no_harm(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, gone = Kept.write, False

    def removed(self: Kept, first: int, done: int, answers: Any, took_s: float) -> None:
        nonlocal gone
        if len(parts(run)) == 2 and not gone:
            gone = True
            measured(run)  # from the chunks that are kept; then their folder goes
            assert parts(run) == []
        write(self, first, done, answers, took_s)

    monkeypatch.setattr(Kept, "write", removed)
    measured(run)
    assert gone
    assert list(run.rglob("*.part")) == []


def test_the_folder_of_chunks_may_go_while_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, replace, times = Kept(tmp_path / "x.part", {}), Path.replace, list[int]()

    def removing(self: Path, target: Path) -> Path:
        if not times:
            times.append(1)
            shutil.rmtree(tmp_path / "x.part")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", removing)
    kept.write(0, 1, {"a": torch.ones(2)}, 0.0)
    assert kept.read(0, 1)[0] == 1


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{}", b'{"figures": {}}'])
def test_a_damaged_measurement_is_made_again_and_said(
    run: Path, capsys: pytest.CaptureFixture[str], ending: str, damage: bytes
) -> None:
    clean = CHOSEN[1:]
    first = measured(run, clean)
    before, file = answers(run), (run / first["measured"][0]["file"]).with_suffix(ending)
    file.write_bytes(damage)
    again = measured(run, clean)
    assert "measured_before" not in again["measured"][0]
    assert "or the answers beside it are damaged: measured again" in capsys.readouterr().err
    assert answers(run) == before
    assert measured(run, clean)["measured"][0]["measured_before"]


def test_a_damaged_chunk_is_measured_again_and_said(
    run: Path, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert killed(run, 3, before=False) == -signal.SIGKILL
    damaged = parts(run)[1]
    damaged.write_bytes(b"x")
    measured(run)
    assert "1 files of what was measured are damaged" in capsys.readouterr().err
    assert f"pgd {damaged.name.partition('-')[0]}" in written
    assert len([one for one in written if one.startswith("pgd")]) == 2


def test_chunks_that_a_kill_left_beside_a_whole_measurement_go(run: Path) -> None:
    first = measured(run)
    left = (run / first["measured"][0]["file"]).with_suffix(".part")
    left.mkdir()
    index = load_file(left.with_suffix(".safetensors"))["index"]
    (left / f"{index[10]}-1-aa.safetensors").write_bytes(b"x")
    measured(run)
    assert not left.exists()


def test_the_headline_stands_before_what_comes_after_it_is_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(run / "evaluations")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({k: v for k, v in result.items() if k not in ("ra", "evaluation")}))
    write = Kept.write

    def failing(self: Kept, first: int, done: int, answers: Any, took_s: float) -> None:
        if "clean-" in str(self.folder):
            raise UsageError("no more")
        write(self, first, done, answers, took_s)

    monkeypatch.setattr(Kept, "write", failing)
    with pytest.raises(UsageError, match="no more"):
        measured(run)
    after = json.loads((run / "result.json").read_text())
    assert after["evaluation"]["evaluation"] == "pgd"
    assert after["ra"] == after["evaluations"]["pgd"]["figures"]["ra"]["accuracy"]


def test_two_of_one_evaluation_stand_in_the_result_by_their_keys(run: Path) -> None:
    own = resolve_run(run, {"evaluate": "pgd,pgd", "evaluate.pgd#2.steps": "1"}, environ={}, text=True)
    (run / "config.yaml").write_text(to_yaml(own))
    evaluate(run, own.evaluation, own.evaluate[1:], device="cpu", reporter=Silent())
    evaluate(run, own.evaluation, own.evaluate, device="cpu", reporter=Silent())
    result = json.loads((run / "result.json").read_text())
    titles = {name: one["title"] for name, one in result["evaluations"].items()}
    assert titles.items() >= {"pgd": "PGD-2 ×2 ℓ∞ 2/255", "pgd#2": "PGD-1 ×2 ℓ∞ 2/255"}.items()
    assert result["ra_attack"]["steps"] == 2
