"""From the journal to MLflow's store, end to end on SQLite."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from advss.errors import UsageError
from advss.tracking.journal import NAME, read_records
from advss.tracking.sync import sync
from advss.tracking.tracker import Tracker
from advss.tracking.view import shown_first

Runs = Callable[[], dict[str, Any]]
Stored = Callable[[], dict[tuple[str, int, str], str]]


def train(folder: Path, *, steps: range = range(30), **options: Any) -> bool:
    """What a short run says to its tracker."""
    tracker = Tracker(folder, name="sample", **options)
    tracker.params({"pretraining": {"lr": 0.1, "milestones": (1, 2)}, "pretext": [{"name": "selfie"}], "seed": 0})
    tracker.dataset(name="digits", source="scikit-learn", fingerprint="ab" * 32, profile={"train": 1293, "classes": 10})
    tracker.artifact(folder / "config.yaml")
    tracker.artifact(folder / "figures" / "curve.svg", stage="finetune")
    for stage in ("pretrain", "finetune"):
        tracker.start_stage(stage)
        for step in steps:
            tracker.metrics(stage, step, {"loss": math.nan if step == 3 else 1 / (step + 1), "ra": step / 100})
        tracker.end_stage(stage, status="FINISHED")
    tracker.metrics("", 0, {"ta": 0.9, "ra": 0.5})
    return tracker.finish("FINISHED", wait_s=60)


def test_every_metric_is_stored_at_its_step(folder: Path, stored: Stored, journaled: Stored) -> None:
    assert train(folder)
    assert stored() == journaled()
    assert len(stored()) == 2 * 2 * 30 + 2


def test_stages_are_nested_in_the_run(folder: Path, runs: Runs) -> None:
    train(folder)
    parent = runs()["sample"].info.run_id
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs().items()}
    assert parents == {"sample": None, "pretrain": parent, "finetune": parent}


def test_members_are_nested_in_their_stage(folder: Path, runs: Runs) -> None:
    with Tracker(folder, name="sample") as tracker:
        tracker.metrics("pretrain/rotation", 1, {"loss": 1.0})
        tracker.finish("FINISHED", wait_s=60)
    member, stage = runs()["pretrain/rotation"], runs()["pretrain"]
    assert member.data.tags["mlflow.parentRunId"] == stage.info.run_id


def test_runs_begin_and_end_when_the_journal_says(folder: Path, runs: Runs) -> None:
    train(folder, enabled=False)
    sync(folder)
    times = [round(record.time * 1000) for record in read_records(folder / NAME)]
    info = runs()["sample"].info
    assert (info.status, info.start_time, info.end_time) == ("FINISHED", times[0], times[-1])


def test_the_configuration_is_flat(folder: Path, runs: Runs) -> None:
    train(folder)
    assert runs()["sample"].data.params == {
        "pretraining.lr": "0.1",
        "pretraining.milestones": "[1, 2]",
        "pretext": '[{"name": "selfie"}]',
        "seed": "0",
    }


def test_long_values_are_cut(folder: Path, runs: Runs) -> None:
    tracker = Tracker(folder, name="sample")
    tracker.params({"long": "x" * 7000})
    assert tracker.finish("FINISHED", wait_s=60)
    assert runs()["sample"].data.params == {"long": "x" * 6000}


def test_more_parameters_than_mlflow_takes_at_once(folder: Path, runs: Runs) -> None:
    tracker = Tracker(folder, name="sample")
    tracker.params({f"p{number}": number for number in range(250)})
    assert tracker.finish("FINISHED", wait_s=60)
    assert len(runs()["sample"].data.params) == 250


def test_the_data_set_is_an_input(folder: Path, runs: Runs) -> None:
    train(folder)
    (found,) = runs()["sample"].inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("digits", "abababababababab")
    assert json.loads(found.dataset.profile) == {"train": 1293, "classes": 10}


def test_artifacts_go_to_the_run_of_their_stage(folder: Path, runs: Runs, client: Any) -> None:
    train(folder)
    assert [file.path for file in client.list_artifacts(runs()["sample"].info.run_id)] == ["config.yaml"]
    assert [file.path for file in client.list_artifacts(runs()["finetune"].info.run_id, "figures")] == [
        "figures/curve.svg"
    ]


def test_of_a_run_that_came_to_nothing_mlflow_hears_nothing(folder: Path, runs: Runs) -> None:
    tracker = Tracker(folder, name="sample", lasts=lambda: False)
    tracker.metrics("pretrain", 1, {"loss": 1.0})
    tracker.finish("FAILED", wait_s=60)
    assert runs() == {}


def test_a_run_that_lasts_in_the_end_is_sent_whole(folder: Path, stored: Stored, journaled: Stored) -> None:
    reached: list[bool] = []
    tracker = Tracker(folder, name="sample", lasts=lambda: bool(reached))
    tracker.metrics("pretrain", 1, {"loss": 1.0})
    reached.append(True)
    assert tracker.finish("FINISHED", wait_s=60)
    assert stored() == journaled() == {("pretrain", 1, "loss"): "1.0"}


def test_names_that_mlflow_refuses_are_written_otherwise(folder: Path, stored: Stored) -> None:
    tracker = Tracker(folder, name="sample")
    tracker.metrics("pretrain", 1, {"selfie#2/loss": 1.0})
    assert tracker.finish("FINISHED", wait_s=60)
    assert stored() == {("pretrain", 1, "selfie.2/loss"): "1.0"}


def test_a_resumed_run_goes_on_in_the_same_runs(folder: Path, runs: Runs, stored: Stored, journaled: Stored) -> None:
    train(folder)
    first = {name: run.info.run_id for name, run in runs().items()}
    tracker = Tracker(folder, name="sample")
    tracker.start_stage("finetune")
    tracker.metrics("finetune", 30, {"loss": 0.5})
    assert tracker.finish("FAILED", wait_s=60)
    assert {name: run.info.run_id for name, run in runs().items()} == first
    assert {name: run.info.status for name, run in runs().items()} == {
        "sample": "FAILED",
        "pretrain": "FINISHED",
        "finetune": "FAILED",
    }
    assert stored() == journaled()


@pytest.mark.slow
def test_runs_that_begin_at_once_make_one_store(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from advss.tracking.tracker import Tracker; folder = Path(sys.argv[1]);"
        "sys.exit(not Tracker(folder, name=folder.name).finish('FINISHED', wait_s=60))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    commands = [[sys.executable, "-c", code, str(tmp_path / "runs" / name)] for name in ("first", "second")]
    children = [subprocess.Popen(command, env=environment) for command in commands]
    assert [child.wait() for child in children] == [0, 0]


def test_a_parameter_that_changed_on_resume_becomes_a_tag(folder: Path, runs: Runs) -> None:
    for lr in (0.1, 0.2):
        tracker = Tracker(folder, name="sample")
        tracker.params({"lr": lr, "seed": 0})
        assert tracker.finish("FINISHED", wait_s=60)
    data = runs()["sample"].data
    assert (data.params, data.tags["changed.lr"]) == ({"lr": "0.1", "seed": "0"}, "0.2")


@pytest.mark.parametrize(("raised", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_the_status_tells_how_the_context_was_left(
    folder: Path, runs: Runs, raised: type[BaseException], status: str
) -> None:
    with pytest.raises(raised), Tracker(folder, name="sample"):
        raise raised
    assert runs()["sample"].info.status == status


def test_a_run_that_was_not_sent_is_replayed_whole(folder: Path, stored: Stored, journaled: Stored) -> None:
    train(folder, enabled=False)
    assert sync(folder) == len(list(read_records(folder / NAME)))
    assert stored() == journaled()


def test_a_second_sync_has_nothing_to_send(folder: Path) -> None:
    train(folder)
    assert sync(folder) == 0


def test_sending_everything_again_doubles_nothing(folder: Path, runs: Runs, stored: Stored, journaled: Stored) -> None:
    train(folder)
    inputs = len(runs()["sample"].inputs.dataset_inputs)
    (folder / "mlflow.json").unlink()
    sync(folder)
    assert stored() == journaled()
    assert len(runs()["sample"].inputs.dataset_inputs) == inputs


def test_runs_deleted_in_mlflow_are_made_anew_by_sync(
    folder: Path, runs: Runs, client: Any, stored: Stored, journaled: Stored
) -> None:
    train(folder)
    for run in runs().values():
        client.delete_run(run.info.run_id)
    sync(folder)
    assert stored() == journaled()


def test_a_folder_without_a_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no metrics\.jsonl"):
        sync(tmp_path)


def test_a_file_that_is_gone_does_not_hold_up_the_rest(folder: Path, stored: Stored, journaled: Stored) -> None:
    train(folder, enabled=False)
    (folder / "config.yaml").unlink()
    with pytest.raises(UsageError, match=r"all but 1 records: artifact: there is no file 'config\.yaml'"):
        sync(folder)
    assert stored() == journaled()


def test_a_foreign_journal_cannot_upload_other_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    train(folder, enabled=False)
    with (folder / NAME).open("a") as file:
        file.write(json.dumps({"kind": "artifact", "stage": "", "time": 0, "path": "../../secret"}) + "\n")
    with pytest.raises(UsageError, match=r"there is no file '\.\./\.\./secret'"):
        sync(folder)


def test_an_artifact_outside_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    tracker = Tracker(folder, name="sample", enabled=False)
    with pytest.raises(UsageError, match="lies outside the run's folder"):
        tracker.artifact(tmp_path / "mlflow.db")


def test_without_tracking_only_the_journal_is_written(folder: Path) -> None:
    assert train(folder, enabled=False)
    assert not (folder / "mlflow.json").exists()


def test_training_does_not_import_mlflow_on_its_thread(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from advss.tracking.tracker import Tracker;"
        f"Tracker(Path({str(folder)!r}), name='x', enabled=False).metrics('', 0, {{'loss': 1.0}});"
        "assert not {'mlflow', 'torch', 'pandas'} & set(sys.modules)"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_the_model_is_loaded_without_pickle(
    folder: Path, client: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, manifest = folder / "best.safetensors", folder / "best.json"
    save_file({"weight": torch.arange(12.0).reshape(4, 3)}, weights)
    described = {"model": {"data": {"channels": 3, "side": 8}}, "classes": list("abcd")}
    manifest.write_text(json.dumps(described))
    for _ in range(2):
        tracker = Tracker(folder, name="sample")
        tracker.model(weights, manifest)
        assert tracker.finish("FINISHED", wait_s=60)

    def load_model(path: str) -> torch.nn.Module:
        assert json.loads(Path(path).with_suffix(".json").read_text()) == described
        head = torch.nn.Linear(3, 4, bias=False)
        head.load_state_dict(load_file(path))
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)

    import mlflow

    import advss

    monkeypatch.setattr(advss, "load_model", load_model, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    (output,) = runs()["sample"].outputs.model_outputs
    model = mlflow.pyfunc.load_model(client.get_logged_model(output.model_id).artifact_location)
    images = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    expected = images.mean((2, 3)) @ np.arange(12, dtype=np.float32).reshape(4, 3).T
    np.testing.assert_allclose(model.predict(images), expected, rtol=1e-5)
    for other in (images.astype(np.float64), images[:, :, :4], images[:, :1]):
        with pytest.raises(mlflow.MlflowException, match=r"float32|shape"):
            model.predict(other)


def test_one_filter_gives_one_row_a_run(folder: Path, client: Any, runs: Runs) -> None:
    with Tracker(folder, name="sample") as tracker:
        for stage in ("pretrain", "pretrain/rotation", "finetune", "evaluate", "certify/certify-1", "system"):
            tracker.metrics(stage, 1, {"loss": 1.0})
        tracker.finish("FINISHED", wait_s=60)
    compared = folder.with_name("transfer-1")
    Tracker(compared, name=compared.name, what="transfer", enabled=False).finish("FINISHED")
    sync(compared)
    assert {name: run.data.tags["advss.kind"] for name, run in runs().items()} == {
        "sample": "run",
        "transfer-1": "transfer",
        "pretrain": "stage",
        "pretrain/rotation": "member",
        "finetune": "stage",
        "evaluate": "measurement",
        "certify": "measurement",
        "certify/certify-1": "measurement",
        "system": "system",
    }
    found = client.search_runs(["1"], filter_string=shown_first()["searchFilter"])
    assert [run.info.run_name for run in found] == ["sample"]


def test_a_measurement_leaves_the_run_as_it_ended(folder: Path, runs: Runs) -> None:
    train(folder)
    tracker = Tracker(folder, name="sample", what="measurement")
    tracker.start_stage("evaluate")
    assert tracker.finish("KILLED", wait_s=60)
    assert {name: run.info.status for name, run in runs().items()} == {
        "sample": "FINISHED",
        "pretrain": "FINISHED",
        "finetune": "FINISHED",
        "evaluate": "KILLED",
    }


def test_the_accuracies_of_fine_tuning_are_the_whole_runs_too(folder: Path, runs: Runs) -> None:
    with Tracker(folder, name="sample") as tracker:
        for stage in ("pretrain", "finetune"):
            tracker.metrics(stage, 5, {"valid/ra": 0.25 if stage == "finetune" else 1, "valid/clean/loss": 2.0})
        tracker.finish("FINISHED", wait_s=60)
    assert runs()["sample"].data.metrics == {"valid/ra": 0.25}


def test_the_experiment_has_the_view_that_the_link_opens(folder: Path, client: Any) -> None:
    train(folder)
    view = json.loads(client.get_experiment_by_name("advss").tags["mlflow.sharedViewState.advss"])
    assert view["selectedColumns"][:4] == [
        "metrics.`test/ta`",
        "metrics.`test/ra`",
        "metrics.`test/autoattack/ra`",
        "params.`pretext`",
    ]
    assert view["compareRunSections"][0]["name"] == "test"
