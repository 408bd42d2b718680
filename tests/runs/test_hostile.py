"""A run's folder from somebody else chooses no host, no path outside it and no code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from advss.cli.main import main
from advss.configuration.resolve import resolve, to_mapping
from advss.errors import UsageError
from advss.hookspecs import DataFacts
from advss.models.spec import ModelSpec, build_encoder_from
from advss.runs.curves import draw_curves
from advss.runs.folder import RunFolder, find_run, told_finished
from advss.runs.lock import in_use
from advss.runs.stored import stored_config
from advss.stages.fit import _kept_start
from advss.tracking.store import elsewhere
from advss.training.checkpoints import has_checkpoint, save_checkpoint
from advss.training.reporting import Silent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "theirs"
    (folder / "finetune").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(resolve({"data": "cifar10"}, environ={}))))
    return folder


def say(run: Path, **settings: object) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(content | settings))


@pytest.mark.parametrize("place", ["metrics.jsonl", "figures", "finetune/best.safetensors"])
def test_a_link_is_refused(place: str, run: Path, tmp_path: Path) -> None:
    (run / place).symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match=rf"{place} is a link, and a run's folder holds none"):
        find_run(run)


@pytest.mark.parametrize("place", [".lock", ".mlflow.json.new"])
def test_a_link_in_a_folder_that_is_only_sent_is_refused(
    place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").unlink()  # as a comparison of runs has none
    (run / "metrics.jsonl").touch()
    (tmp_path / "theirs").write_text("precious")
    (run / place).symlink_to(tmp_path / "theirs")
    assert main(["sync", str(run)]) == 2
    assert f"{place} is a link, and a run's folder holds none" in capsys.readouterr().err
    assert (tmp_path / "theirs").read_text() == "precious"


def test_neither_the_lock_nor_a_new_file_follows_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("precious")
    for place in (".lock", ".last.safetensors.new"):
        (run / place).symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="cannot lock"):
        in_use(run)
    save_checkpoint(run / "last.safetensors", {}, {})
    assert (tmp_path / "theirs").read_text() == "precious"
    assert has_checkpoint(run / "last.safetensors")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ([], "it is list, not a mapping"),
        ({"epochs": 5}, "epochs"),
        ({"seconds": {"evaluate": "1"}}, "seconds.evaluate"),
        ({"evaluation": {"file": "x"}}, "evaluation.checkpoint"),
        ({"source": 5}, "source"),
        ({"ta": "0.9"}, "ta"),
    ],
)
def test_a_result_of_another_form_is_one_line(content: object, wrong: str, run: Path) -> None:
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"no result of a run: {wrong}.*; move it away; `advss evaluate"):
        RunFolder(run).read_result()


@pytest.mark.parametrize("state", ['{"uri": 5}', '{"uri": "x", "runs": []}', '{"uri": "x", "offset": "0"}', "[]"])
def test_a_state_of_sending_of_another_form_is_one_line(state: str, run: Path) -> None:
    (run / "mlflow.json").write_text(state)
    with pytest.raises(UsageError, match="not readable"):
        elsewhere(run, "sqlite:///x")


def test_a_stored_address_is_no_command_in_what_is_said_to_type(run: Path) -> None:
    (run / "mlflow.json").write_text(json.dumps({"uri": "http://x;touch outside"}))
    assert "MLFLOW_TRACKING_URI='http://x;touch outside' allows it" in elsewhere(run, "sqlite:///x")


@pytest.mark.parametrize("stage", ["../../outside", "/tmp/outside", "a/../../b", ".", "a\n", 3, None])
def test_a_stage_in_the_journal_is_no_path(stage: object, run: Path, tmp_path: Path) -> None:
    record = {"kind": "metrics", "time": 0, "stage": stage, "step": 1, "epoch": 1, "values": {"train/loss": 1}}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(UsageError, match="is not a journal record"):
        draw_curves(run / "metrics.jsonl", run / "figures")
    assert not list(tmp_path.glob("outside*"))


@pytest.mark.parametrize("lacking", [{"step": 1}, {"step": 1, "epoch": 1, "values": [1]}, {"values": {"a": "x"}}])
def test_metrics_of_another_form_are_no_record(lacking: dict[str, Any], run: Path) -> None:
    record = {"kind": "metrics", "time": 0, "stage": "pretrain", **lacking}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(UsageError, match="is not a journal record"):
        draw_curves(run / "metrics.jsonl", run / "figures")


def test_a_stored_folder_of_runs_and_a_download_do_not_count(run: Path, tmp_path: Path) -> None:
    say(run, **{"runs-dir": str(tmp_path / "outside"), "data": {"cifar10": {"root": "x", "download": True}}})
    config = stored_config(run)
    assert config.runs_dir == Path("runs")
    assert config.data.options == {"root": Path("x").absolute(), "download": False}


@pytest.mark.parametrize("name", ["hf-hub:their/model", "hf_hub:their/model", "local-dir:/x", "resnet18.a1_in1k"])
def test_a_backbone_is_fetched_from_nowhere(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ModelSpec(name, {}, DataFacts(10, 32, 3, 10), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UsageError, match="--backbone"):
        build_encoder_from(spec)


@pytest.mark.parametrize("option", ["pretrained_cfg", "checkpoint_path", "pretrained_cfg_overlay", "cache_dir"])
def test_an_option_of_a_backbone_fetches_nothing(option: str) -> None:
    spec = ModelSpec(
        "resnet18", {option: {"url": "http://127.0.0.1:1"}}, DataFacts(10, 32, 3, 10), (0.5,) * 3, (0.5,) * 3
    )
    with pytest.raises(UsageError, match=f"--backbone.{option}: resnet18 has no such option"):
        build_encoder_from(spec)


def test_yaml_makes_no_objects(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text("seed: !!python/object/apply:os.system ['touch outside']\n")
    assert main(["evaluate", str(run)]) == 2


def test_a_stored_start_outside_the_runs_is_not_followed(run: Path, tmp_path: Path) -> None:
    session: Any = SimpleNamespace(folder=RunFolder(run))
    beside = run.parent / "other" / "pretrain" / "best.safetensors"
    assert _kept_start(session, beside) == beside
    with pytest.raises(UsageError, match="outside the folder of runs, is not followed; begin again by `advss finetune"):
        _kept_start(session, tmp_path / "elsewhere.safetensors")


def test_a_finished_result_names_the_folder_it_lies_in(run: Path) -> None:
    (run / "result.json").write_text(json.dumps({"name": "x", "folder": "$(touch outside)", "status": "finished"}))
    result = told_finished(RunFolder(run), Silent())
    assert (result["name"], result["folder"]) == ("theirs", str(run))
