"""What goes of a run's folder, and that what is left can still be measured, averaged, gone on from and resumed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import advss
from advss.config import EvalSettings, RunConfig
from advss.errors import UsageError
from advss.evaluations.ensemble import ensemble
from advss.evaluations.evaluate import evaluate
from advss.evaluations.transfer import transfer
from advss.runs.finished import Asked
from advss.runs.lock import locked
from advss.runs.removal import half_removed, prune, remove, spare, to_remove, used_by
from advss.runs.stored import resolve_run
from advss.stages.fit import finetune, fit
from advss.training.reporting import Silent
from advss.training.signals import Interrupted

Settings = Callable[..., RunConfig]
Stored = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def aged(path: Path) -> Path:
    """A file that was last written to a day ago."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 86400,) * 2)
    return path


# ---------------------------------------------------------------- removing
def test_a_removed_run_leaves_nothing(stored: Stored) -> None:
    folder = stored("one")
    stored("two")
    (found,) = to_remove(["one", str(folder)], folder.parent)
    remove(found)
    assert [path.name for path in folder.parent.iterdir()] == ["two"]


def test_what_a_removal_left_half_done_is_found(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored("one")
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)
    remove(folder)
    (half,) = half_removed(folder.parent)
    assert not folder.exists()
    assert (half / "result.json").is_file()


def test_a_run_in_use_is_neither_removed_nor_pruned(stored: Stored) -> None:
    folder = stored("one")
    before = names(folder)
    with locked(folder):
        with pytest.raises(UsageError, match="is in use by process"):
            to_remove(["one"], folder.parent)
        for work in (remove, prune):
            with pytest.raises(UsageError, match="is in use by process"):
                work(folder)
    assert names(folder) == sorted([*before, ".lock"])


def test_a_folder_that_may_be_another_program_s_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/config.yaml").touch()
    with pytest.raises(UsageError, match="so it may be no run's; remove it yourself"):
        to_remove(["project"], tmp_path)


def test_neither_the_folder_of_runs_nor_the_one_we_are_in_is_removed(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored("one")
    with pytest.raises(UsageError, match="contains, the folder of runs; go elsewhere"):
        to_remove([str(folder)], folder / "runs")
    monkeypatch.chdir(folder / "finetune")
    with pytest.raises(UsageError, match="contains, the folder you are in; go elsewhere"):
        to_remove(["one"], folder.parent)


def test_links_are_refused(stored: Stored, tmp_path: Path) -> None:
    folder = stored("one")
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(UsageError, match=f"link is a link; name the folder that it leads to, {folder}"):
        to_remove(["link"], folder.parent)
    (folder / "figures").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="figures is a link"):
        to_remove(["one"], folder.parent)
    with pytest.raises(UsageError, match="figures is a link"):
        spare(folder)


def test_what_others_have_of_it_is_told(stored: Stored) -> None:
    folder = stored("one")
    sha256 = json.loads((folder / "finetune/best.json").read_text())["sha256"]
    others = [
        stored("tuned", source=str(folder / "pretrain/best.safetensors")),
        stored("average", members=[{"run": "one", "folder": "gone/one", "sha256": sha256}]),
        stored("other", source=str(folder) + "-2/pretrain/best.safetensors", source_sha256=None),
        folder,
    ]
    assert used_by(folder, others) == ["tuned starts from it", "average is an average of it and others"]


# ---------------------------------------------------------------- pruning
def test_a_finished_run_keeps_its_best_checkpoints_and_all_that_is_measured(stored: Stored) -> None:
    folder = stored("one")
    for name in ("examples-1.safetensors", "examples-2.part/0-1-2.safetensors"):
        aged(folder / "evaluations" / name)
    measured = ("pgd-1.json", "pgd-1.safetensors", "examples-1.json", "certify-1.part/0-1-2.safetensors")
    kept = [aged(folder / "evaluations" / name) for name in measured]
    kept.append(aged(folder / "initial.safetensors"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    freed, damaged = prune(folder)
    assert names(folder) == sorted(
        [
            ".lock",
            "config.yaml",
            "metrics.jsonl",
            "result.json",
            *(f"{stage}/best.{end}" for stage in ("pretrain", "finetune") for end in ("json", "safetensors")),
            *(str(path.relative_to(folder)) for path in kept),
        ]
    )
    lock = (folder / ".lock").stat().st_size
    assert freed == size - sum((folder / name).stat().st_size for name in names(folder)) + lock
    assert damaged == []
    assert not (folder / "evaluations/examples-2.part").exists()
    assert spare(folder) == {}


def test_an_unfinished_run_loses_nothing_but_what_a_killed_write_left(stored: Stored) -> None:
    folder = stored("one", status="running")
    before = names(folder)
    aged(folder / "pretrain/.last.safetensors.new")
    aged(folder / "evaluations/examples-1.safetensors")
    (folder / ".result.json.7-8.new").write_bytes(b"being written")
    prune(folder)
    assert names(folder) == sorted([*before, ".lock", ".result.json.7-8.new", "evaluations/examples-1.safetensors"])


def test_beside_a_damaged_checkpoint_the_others_are_kept(stored: Stored) -> None:
    folder = stored("one")
    before = [name for name in names(folder) if name.startswith("finetune/")]
    (folder / "finetune/best.safetensors").write_bytes(b"torn")
    _, told = prune(folder)
    assert told == [f"{folder}/finetune/best.safetensors is damaged, so what stands beside it is kept"]
    assert [name for name in names(folder) if "/" in name] == [
        *before,
        "pretrain/best.json",
        "pretrain/best.safetensors",
    ]


def test_without_a_best_checkpoint_the_others_are_kept(stored: Stored) -> None:
    folder = stored("one")
    (folder / "finetune/best.json").unlink()
    assert not [name for name in spare(folder) if name.startswith("finetune")]


# ---------------------------------------------------------------- what a pruned run is good for
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, pretrained, fine-tuned and measured on 80 digits of 16 pixels."""
    folder = tmp_path_factory.mktemp("trained")
    result = advss.fit(
        pretext="rotation",
        defense="none",
        backbone={"resnet18": {"layers": [1, 1, 1, 1], "channels": [8] * 4}},
        pretrain_epochs=2,
        pretrain_batch_size=32,
        finetune_epochs=2,
        finetune_batch_size=32,
        eval_valid_steps=1,
        eval_steps=1,
        eval_limit=20,
        data_limit=80,
        data_size=16,
        name="run",
        runs_dir=str(folder),
        device="cpu",
        memory_format="contiguous",
        tracking=False,
    )
    return Path(result["folder"])


@pytest.fixture
def pruned(trained: Path, tmp_path: Path) -> Path:
    """A folder of it, as a and as b, of which nothing is left but what pruning leaves."""
    for name in "ab":
        shutil.copytree(trained, tmp_path / "runs" / name)
        assert prune(tmp_path / "runs" / name)[0] > 0
    return tmp_path / "runs"


def asked(runs: Path, name: str) -> Asked:
    return Asked(EvalSettings(steps=1, limit=20), runs, name, "cpu", tracking=False)


def test_a_pruned_run_is_measured_as_before(pruned: Path, trained: Path) -> None:
    config = resolve_run(pruned / "a", {}, environ={})
    again = evaluate(pruned / "a", config.evaluation, device="cpu", reporter=Silent())
    before = json.loads((trained / "result.json").read_text())
    assert (again["ta"], again["ra"], again["ta_all"]) == (before["ta"], before["ra"], before["ta_all"])


def test_pruned_runs_are_averaged_and_attacked(pruned: Path) -> None:
    runs = [pruned / "a", pruned / "b"]
    assert ensemble(runs, asked(pruned, "ab"), reporter=Silent())["ta"] is not None
    assert transfer(runs, asked(pruned, "t"), reporter=Silent())["models"] == ["a", "b"]
    assert list((pruned / "a/evaluations").glob("examples-*.safetensors"))
    assert prune(pruned / "a")[0] > 0
    assert transfer(runs, asked(pruned, "t2"), reporter=Silent())["models"] == ["a", "b"]


def test_a_pruned_run_loads_and_is_finished(pruned: Path) -> None:
    advss.load_model(str(pruned / "a"))
    advss.load_encoder(str(pruned / "a"))
    config = resolve_run(pruned / "a", {}, environ={})
    result = fit(replace(config, name="a", runs_dir=pruned), resume=True, reporter=Silent())
    assert result["status"] == "finished"


def test_a_pruned_run_is_gone_on_from(pruned: Path) -> None:
    config = resolve_run(pruned / "a", {"device": "cpu", "name": "tuned", "tracking": False}, environ={})
    tuned = finetune(replace(config, runs_dir=pruned), source=pruned / "a", reporter=Silent())
    assert tuned["status"] == "finished"
    assert used_by(pruned / "a", [pruned / "tuned"]) == ["tuned starts from it"]


def test_a_pruned_unfinished_run_is_resumed_to_the_same_end(
    settings: Settings, stopper: Callable[..., Silent], trained: Path
) -> None:
    config = settings(name="whole")
    fit(config, reporter=Silent())
    with pytest.raises(Interrupted):
        fit(replace(config, name="stopped"), reporter=stopper("finetune", "step", 1))
    prune(config.runs_dir / "stopped")
    fit(replace(config, name="stopped"), resume=True, reporter=Silent())
    ends = [(config.runs_dir / name / "finetune/best.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert ends[0] == ends[1]
