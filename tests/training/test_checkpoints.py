from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from advss.errors import UsageError
from advss.training.checkpoints import back_to_good, has_checkpoint, load_checkpoint, save_checkpoint

CORE = Path(__file__).parents[2] / "core/advss"


def save(path: Path, step: int, *, good: bool = True) -> None:
    tensors = {"weight": torch.full((40,), float(step)), "count": torch.tensor(step)}
    save_checkpoint(path, tensors, {"step": step}, good=good)


def step_of(path: Path) -> int:
    """The step of the checkpoint that loads, its tensors and manifest in agreement."""
    checkpoint = load_checkpoint(path)
    assert checkpoint.manifest["step"] == int(checkpoint.tensors["count"])
    assert torch.equal(checkpoint.tensors["weight"], torch.full((40,), float(checkpoint.manifest["step"])))
    return int(checkpoint.tensors["count"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pretrain/last.safetensors"


@pytest.fixture
def two(path: Path) -> Path:
    """A checkpoint of step 2 with one of step 1 before it."""
    save(path, 1)
    save(path, 2)
    return path


def flip(path: Path, place: float, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)


def test_what_was_saved_is_loaded(path: Path) -> None:
    saved = {
        "half": torch.randn(3, 4).bfloat16(),
        "long": torch.arange(5),
        "scalar": torch.tensor(1.5),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    save_checkpoint(path, saved, {"step": 7, "metrics": {"loss": 0.1 + 0.2}})
    loaded = load_checkpoint(path)
    assert loaded.tensors.keys() == saved.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in saved.items())
    assert loaded.manifest["metrics"] == {"loss": 0.1 + 0.2}


def test_file_is_safetensors_and_manifest_is_json(two: Path) -> None:
    with safe_open(two, "pt") as file:
        assert set(file.keys()) == {"weight", "count"}
    assert json.loads(two.with_suffix(".json").read_text())["step"] == 2


@pytest.mark.parametrize("call", ["pickle", "torch.save", "torch.load", "joblib", "marshal", "shelve"])
def test_core_pickles_nothing(call: str) -> None:
    assert [
        p.name for p in CORE.rglob("*.py") if f"import {call}" in p.read_text() or f"{call}(" in p.read_text()
    ] == []


@pytest.mark.parametrize("bit", [0, 5])
@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_flipped_bit_falls_back_to_the_one_before(
    suffix: str, place: float, bit: int, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(two.with_suffix(suffix), place, bit)
    assert step_of(two) == 1
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert str(two) in warnings[0]
    assert "falling back to step 1" in warnings[0]


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_flipped_bit_with_nothing_before_is_an_error(suffix: str, path: Path) -> None:
    save(path, 1)
    flip(path.with_suffix(suffix), 0.5)
    with pytest.raises(UsageError, match=r"last\.safetensors is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_truncation_falls_back_to_the_one_before(suffix: str, left: float, two: Path) -> None:
    data = two.with_suffix(suffix).read_bytes()
    two.with_suffix(suffix).write_bytes(data[: int(left * len(data))])
    assert step_of(two) == 1


def test_manifest_that_is_no_object_is_damage(two: Path) -> None:
    two.with_suffix(".json").write_text("[]")
    assert step_of(two) == 1


def test_no_checkpoint_is_an_error(path: Path) -> None:
    assert not has_checkpoint(path)
    with pytest.raises(UsageError, match="there is no checkpoint"):
        load_checkpoint(path)


def test_whole_checkpoint_loads_without_a_warning(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_of(two) == 2
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- crashes
class PulledPlugError(Exception):
    """Stands for the end of the process: nothing of ours may catch it."""


@pytest.fixture
def pull_plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the n-th move of a file, counted from 0, and all after it fail; a large n lets none."""
    replace = Path.replace

    def pull(number: int) -> None:
        moves = 0

        def move(self: Path, target: Path) -> Path:
            nonlocal moves
            moves += 1
            if moves > number:
                raise PulledPlugError
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", move)

    return pull


@pytest.mark.parametrize("moves", range(4))
def test_crash_between_any_two_moves_leaves_a_whole_checkpoint(
    moves: int, two: Path, pull_plug: Callable[[int], None]
) -> None:
    pull_plug(moves)
    with pytest.raises(PulledPlugError):
        save(two, 3)
    assert step_of(two) == 2


@pytest.mark.parametrize("second", range(5))
@pytest.mark.parametrize("first", range(4))
def test_crash_after_a_crash_leaves_a_whole_checkpoint(
    first: int, second: int, two: Path, pull_plug: Callable[[int], None]
) -> None:
    pull_plug(first)
    with pytest.raises(PulledPlugError):
        save(two, 3)
    pull_plug(second)
    try:
        save(two, 4)
    except PulledPlugError:
        assert step_of(two) in (2, 4)
    else:
        assert step_of(two) == 4


@pytest.mark.parametrize("second", range(5))
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_crash_while_a_damaged_checkpoint_is_replaced_keeps_the_one_before(
    suffix: str, second: int, two: Path, pull_plug: Callable[[int], None]
) -> None:
    flip(two.with_suffix(suffix), 0.4)
    pull_plug(second)
    try:
        save(two, 3)
    except PulledPlugError:
        assert step_of(two) == 1
    else:
        assert step_of(two) == 3


@pytest.mark.parametrize("moves", range(2))
def test_crash_in_the_very_first_save_counts_as_no_checkpoint(
    moves: int, path: Path, pull_plug: Callable[[int], None]
) -> None:
    pull_plug(moves)
    with pytest.raises(PulledPlugError):
        save(path, 1)
    assert not has_checkpoint(path)


# ---------------------------------------------------------------- good and bad ones
@pytest.mark.parametrize("moves", range(3))
def test_the_good_one_before_bad_ones_is_gone_back_to_whenever_the_plug_is_pulled(
    moves: int, path: Path, pull_plug: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(path, 1)
    save(path, 2, good=False)
    with monkeypatch.context():
        pull_plug(moves)
        try:
            save(path, 3, good=False)
        except PulledPlugError:
            assert step_of(path) in (1, 2)
    monkeypatch.undo()
    manifest = back_to_good(path)
    assert manifest is not None
    assert manifest["step"] == step_of(path) == 1


def test_a_good_one_is_gone_back_to_only_from_a_bad_one(two: Path) -> None:
    assert (back_to_good(two) or {})["step"] == step_of(two) == 2


def test_among_bad_ones_there_is_nothing_to_go_back_to(path: Path) -> None:
    save(path, 1, good=False)
    save(path, 2, good=False)
    assert back_to_good(path) is None
    assert step_of(path) == 2


# ---------------------------------------------------------------- disks
@pytest.mark.parametrize("failing", range(2))
def test_full_disk_is_one_line_and_keeps_the_old_checkpoint(
    failing: int, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot save .*last\.safetensors: No space left on device; .* is intact"):
        save(two, 3)
    assert step_of(two) == 2
    assert list(two.parent.glob("*.new")) == []


def test_file_size_limit_of_the_system_is_met_like_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save(path, 1)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, usual[1]))  # far above what the tests themselves write
    try:
        with pytest.raises(UsageError, match="cannot save"):
            save_checkpoint(path, {"w": torch.ones(3_000_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert step_of(path) == 1


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot save"):
        save(tmp_path / "file/last.safetensors", 1)
