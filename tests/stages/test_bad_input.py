from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from advss.config import Choice, DataFlag, EvalSettings, RunConfig
from advss.data.fingerprint import PartName
from advss.data.images import InMemory
from advss.data.splits import Splits
from advss.data.watch import Watch
from advss.errors import UsageError
from advss.evaluations.evaluate import evaluate
from advss.runs import opened as run_module
from advss.runs import own_data as own_data_module
from advss.runs import session as session_module
from advss.runs.classifier import load_classifier
from advss.runs.folder import RunFolder, classifier_of, plan_run
from advss.runs.session import open_data
from advss.stages.fit import finetune as finetune_run
from advss.stages.fit import fit
from advss.stages.fit import pretrain as pretrain_run
from advss.tracking.journal import read_records
from advss.training.checkpoints import load_checkpoint, save_checkpoint
from advss.training.reporting import Silent
from advss.training.work import Work

Settings = Callable[..., RunConfig]
QUICK = {"epochs": 1, "batch_size": 64}


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def pretrained(settings: Settings, **more: object) -> RunConfig:
    config = settings("rotation", "none", name="source", stage=QUICK, **more)
    pretrain_run(config, reporter=Silent())
    return config


def edit(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change a checkpoint's tensors and sign it anew."""
    checkpoint = load_checkpoint(path)
    change(checkpoint.tensors)
    save_checkpoint(path, checkpoint.tensors, checkpoint.manifest)


# ---------------------------------------------------------------- strict loading
def test_renamed_key_is_named(settings: Settings) -> None:
    source = pretrained(settings).runs_dir / "source"

    def rename(tensors: dict[str, Tensor]) -> None:
        tensors["encoder.net.conv1.wieght"] = tensors.pop("encoder.net.conv1.weight")

    edit(source / "pretrain/best.safetensors", rename)
    with pytest.raises(UsageError, match=r"net\.conv1\.weight.*net\.conv1\.wieght"):
        finetune_run(settings("none", "none"), source=source, reporter=Silent())


def test_renamed_key_of_a_classifier_is_named(settings: Settings) -> None:
    config = settings("none", "none", stage=QUICK)
    fit(config, reporter=Silent())
    path = config.runs_dir / "run/finetune/best.safetensors"
    edit(path, lambda tensors: tensors.update({"haed.weight": tensors.pop("head.weight")}))
    with pytest.raises(UsageError, match=r"head\.weight.*haed\.weight"):
        load_classifier(path)


def test_checkpoint_of_another_backbone_is_refused(settings: Settings) -> None:
    source = pretrained(settings).runs_dir / "source"
    wider = Choice("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]})
    with pytest.raises(UsageError, match=r"is of backbone resnet18 .*not of resnet18"):
        finetune_run(settings("none", "none", backbone=wider), source=source, reporter=Silent())


def test_checkpoint_of_fine_tuning_is_no_start(settings: Settings) -> None:
    config = settings("none", "none", stage=QUICK)
    fit(config, reporter=Silent())
    with pytest.raises(UsageError, match="is a checkpoint of 'finetune'; fine-tuning starts from pretraining"):
        finetune_run(
            replace(config, name="next"), source=config.runs_dir / "run/finetune/best.safetensors", reporter=Silent()
        )


def test_examples_are_no_start(settings: Settings, tmp_path: Path) -> None:
    examples = tmp_path / "a/examples/0.safetensors"
    save_checkpoint(examples, {}, {"kind": "examples", "key": {}})  # without all that a stage records
    with pytest.raises(UsageError, match="is a checkpoint of 'examples'; fine-tuning starts from pretraining"):
        finetune_run(settings("none", "none"), source=examples, reporter=Silent())


def test_checkpoint_of_pretraining_is_no_classifier(settings: Settings) -> None:
    config = pretrained(settings)
    with pytest.raises(UsageError, match="is a checkpoint of 'pretrain'; a classifier comes from fine-tuning"):
        load_classifier(config.runs_dir / "source/pretrain/best.safetensors")


def test_run_without_an_encoder_is_no_source(settings: Settings) -> None:
    config = settings("none", "none", stage=QUICK)
    fit(config, reporter=Silent())
    with pytest.raises(UsageError, match=r"--from: run .* has no pretrained encoder"):
        finetune_run(replace(config, name="next"), source=config.runs_dir / "run", reporter=Silent())


def test_run_without_a_classifier_cannot_be_evaluated(settings: Settings) -> None:
    config = pretrained(settings)
    with pytest.raises(UsageError, match="has no fine-tuned model; run `advss finetune --from"):
        evaluate(config.runs_dir / "source", EvalSettings(steps=1), reporter=Silent())


# ---------------------------------------------------------------- names and folders
@pytest.mark.parametrize("name", ["..", "../up", "a/b", "/abs", "a..b", ".hidden", "", " x", "-x", "a\\b", "a\n"])
def test_name_that_could_leave_the_folder_is_refused(name: str, settings: Settings) -> None:
    from advss.naming import check_name

    with pytest.raises(UsageError, match="is no run name"):
        check_name(name)


def test_existing_run_needs_resume(settings: Settings, tmp_path: Path) -> None:
    config = settings(runs_dir=tmp_path / "my runs")
    folder = config.runs_dir / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    with pytest.raises(UsageError, match=f"run folder {folder} exists; continue it by --resume '{folder}' or choose"):
        fit(config, reporter=Silent())


def test_a_folder_that_is_no_run_is_not_to_be_resumed(settings: Settings) -> None:
    config = settings()
    (config.runs_dir / "run").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"run folder .* exists; choose another --name"):
        fit(config, reporter=Silent())


@pytest.mark.parametrize("resume", [False, True])
def test_link_in_the_place_of_a_run_is_refused(resume: bool, settings: Settings, tmp_path: Path) -> None:
    config = settings()
    (tmp_path / "elsewhere").mkdir()
    config.runs_dir.mkdir()
    (config.runs_dir / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        fit(config, resume=resume, reporter=Silent())


def test_runs_folder_that_cannot_be_made_is_one_line(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--runs-dir: cannot make"):
        fit(settings(runs_dir=tmp_path / "file"), reporter=Silent())


def test_finished_run_says_so_and_stays(settings: Settings) -> None:
    config, said = settings("none", "none", stage=QUICK), Said()
    result = fit(config, reporter=Silent())
    before = {path: path.read_bytes() for path in (config.runs_dir / "run").rglob("*") if path.is_file()}
    assert fit(config, resume=True, reporter=said) == result
    assert len(said.lines) == 1
    assert "is finished; nothing to do" in said.lines[0]
    assert before == {path: path.read_bytes() for path in (config.runs_dir / "run").rglob("*") if path.is_file()}


def test_folder_without_a_checkpoint_starts_afresh(settings: Settings) -> None:
    config = settings("none", "none", stage=QUICK)
    (config.runs_dir / "run").mkdir(parents=True)
    assert fit(config, resume=True, reporter=Silent())["status"] == "finished"


@pytest.mark.parametrize("gone", ["best.json", "best.safetensors"])
def test_half_a_checkpoint_is_told_by_the_missing_file(gone: str, settings: Settings) -> None:
    config = pretrained(settings)
    for stage in ("pretrain", "finetune"):
        folder = config.runs_dir / "source" / stage
        folder.mkdir(exist_ok=True)
        (folder / "best.json").touch()
        (folder / "best.safetensors").touch()
        (folder / gone).unlink()
    with pytest.raises(UsageError, match=rf"source/finetune/{gone} is missing: .* are one checkpoint"):
        evaluate(config.runs_dir / "source", EvalSettings(steps=1), reporter=Silent())
    with pytest.raises(UsageError, match=rf"source/pretrain/{gone} is missing: .* are one checkpoint"):
        finetune_run(replace(config, name="next"), source=config.runs_dir / "source", reporter=Silent())


# ---------------------------------------------------------------- before any training
BAD: dict[str, tuple[dict[str, object], str]] = {
    "unknown backbone": ({"backbone": Choice("resnet81")}, "resnet81"),
    "unknown option of the backbone": ({"backbone": Choice("resnet18", {"width": 3})}, "--backbone.width"),
    "unknown task": ({"pretext": (Choice("rotatoin", {}, "rotatoin"),)}, "did you mean 'rotation'"),
    "grid that does not divide": ({"pretext": (Choice("jigsaw", {"grid": 5}, "jigsaw"),)}, "grid 5 does not divide"),
    "option of the defense": ({"defense": Choice("pgd", {"steps": 0})}, "steps must be at least 1"),
    "option of the later defense": ({"finetune_defense": Choice("pgd", {"eps": -1.0})}, "eps must be at least 0"),
    "unknown scheme": ({"finetune": Choice("fulll")}, "did you mean 'full'"),
    "unknown data": ({"data": Choice("digit")}, "did you mean 'digits'"),
    "unknown device": ({"device": "cuda:99"}, "cuda:99"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_fails_before_training_and_leaves_no_folder(what: str, settings: Settings) -> None:
    choices, message = BAD[what]
    config = replace(settings(), **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        fit(config, reporter=Forbidding())
    assert not (config.runs_dir / "run").exists()


@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
def test_batch_larger_than_the_data_fails_before_training(stage: str, settings: Settings) -> None:
    config = settings()
    config = replace(config, **{stage: replace(config.pretraining, batch_size=100)})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fewer than a batch of 100"):
        fit(config, reporter=Forbidding())
    assert not (config.runs_dir / "run").exists()


def test_a_run_that_cannot_begin_leaves_nothing_in_mlflow(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store := f"sqlite:///{tmp_path}/store.db")
    choices, message = BAD["grid that does not divide"]
    config = replace(settings(tracking=True), **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        fit(config, reporter=Forbidding())
    assert not Path(store.removeprefix("sqlite:///")).exists()


def test_a_stage_that_cannot_begin_is_not_tracked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(work: Work) -> None:
        if work.stage == "finetune":
            raise UsageError("cannot begin")

    monkeypatch.setattr(session_module, "check_runs", judge)
    with pytest.raises(UsageError, match="cannot begin"):
        fit(settings("rotation,jigsaw", stage=QUICK), reporter=Silent())
    records = list(read_records(settings().runs_dir / "run/metrics.jsonl"))
    assert [r.stage for r in records if r.kind == "start"] == ["pretrain", "pretrain/jigsaw", "pretrain/rotation"]
    assert {r.payload["status"] for r in records if r.kind == "end"} == {"FINISHED"}


class Forbidding(Silent):
    """Lets no stage begin."""

    def start(self, stage: str, *, steps: int, done: int, epochs: int, unit: str = "step") -> None:
        raise AssertionError(f"{stage} has begun")


def test_nothing_to_train_is_refused(settings: Settings) -> None:
    none = replace(settings().finetuning, epochs=0)
    for config in (settings("none", finetuning=none), settings(pretraining=none, finetuning=none)):
        with pytest.raises(UsageError, match="advss fit: nothing to train"):
            fit(config, reporter=Silent())
        with pytest.raises(UsageError, match="advss finetune: nothing to train"):
            finetune_run(config, source=None, reporter=Silent())


@pytest.mark.parametrize("name", ["n" * 201, "n" * 300])
def test_a_long_name_is_refused(name: str, settings: Settings) -> None:
    with pytest.raises(UsageError, match=rf"--name: expected at most 200 letters, got {len(name)}"):
        fit(settings(name=name), reporter=Silent())


def test_a_run_of_many_tasks_finds_a_name(settings: Settings) -> None:
    tasks = tuple(Choice("rotation", {}, f"rotation#{place}") for place in range(99))
    folder = plan_run(replace(settings(), pretext=tasks, name=None), resume=False)
    assert len(folder.name) == 200
    folder.path.mkdir(parents=True)


def test_pretraining_without_a_task_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="nothing to train; give --pretext"):
        pretrain_run(settings("none"), reporter=Silent())


# ---------------------------------------------------------------- the test images
def test_no_stage_that_trains_reads_the_test_images(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sealed(InMemory):
        def read(self, places_B: Tensor) -> Tensor:
            raise AssertionError("the test images were read")

        def select(self, places_B: Tensor) -> InMemory:
            raise AssertionError("the test images were read")

    def sealed(config: RunConfig, parts: Sequence[PartName], watch: Watch, flag: DataFlag) -> Splits:
        splits = open_data(config, parts, watch, flag)
        if "test" not in parts:
            return splits
        images = splits.test.images
        assert isinstance(images, InMemory)
        test = replace(splits.test, images=Sealed(images.pixels, images.rows))
        return replace(splits, parts={**splits.parts, "test": test})

    monkeypatch.setattr(run_module, "open_data", sealed)
    monkeypatch.setattr(own_data_module, "open_data", sealed)
    monkeypatch.setattr(run_module, "overlap", lambda *splits: [])  # looks for equal images, and chooses nothing
    config = settings("rotation", "pgd", stage=QUICK)
    result = pretrain_run(config, reporter=Silent())
    assert (result["ta"], result["ra"], result["status"]) == (None, None, "finished")
    tuned = replace(config, name="tuned")
    result = finetune_run(tuned, source=config.runs_dir / "run", reporter=Silent())
    assert (result["ta"], result["ra"], result["status"]) == (None, None, "finished")
    with pytest.raises(AssertionError, match="the test images were read"):
        evaluate(config.runs_dir / "tuned", config.evaluation, device="cpu", reporter=Silent())
    assert json.loads((config.runs_dir / "tuned/result.json").read_text())["ta"] is None


def test_a_run_without_a_good_epoch_is_not_to_be_resumed(settings: Settings) -> None:
    """What it says when it diverges, to who measures it, too."""
    config = settings("none", "none", stage={"lr": 1e20, "clip": 0.0, "epochs": 2})
    with pytest.raises(UsageError, match=r"no epoch of finetune was good; start again, with a lower --finetune-lr"):
        fit(config, reporter=Silent())
    with pytest.raises(
        UsageError, match=r"run has no fine-tuned model: .*; no epoch of finetune was good; start again"
    ):
        classifier_of(RunFolder(config.runs_dir / "run"))
