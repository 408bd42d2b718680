from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advss.config import RunConfig
from advss.data.splits import Splits
from advss.errors import UsageError
from advss.hookspecs import Phase
from advss.plugins import registry
from advss.runs import opened as opened_module
from advss.runs import session as session_module
from advss.runs.session import choose_device
from advss.stages.fit import fit
from advss.training.checkpoints import load_checkpoint
from advss.training.reporting import Reporter, Silent
from advss.training.signals import Interrupted
from advss.training.work import Work

Settings = Callable[..., RunConfig]
Tensors = Callable[[RunConfig, str, str], dict[str, Tensor]]
Stop = Callable[[str, str, int], Reporter]


def layout(config: RunConfig) -> object:
    return load_checkpoint(config.runs_dir / "run/finetune/last.safetensors").manifest["memory_format"]


def test_resuming_keeps_the_layout_that_was_measured(
    settings: Settings, stopper: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("none", "none", memory_format="auto")
    monkeypatch.setattr(session_module, "choose_format", lambda trial, **facts: "channels_last")
    with pytest.raises(Interrupted):
        fit(config, reporter=stopper("finetune", "step", 1))
    assert layout(config) == "channels_last"
    monkeypatch.setattr(session_module, "choose_format", lambda trial, **facts: "contiguous")
    fit(config, resume=True, reporter=Silent())
    assert layout(config) == "channels_last"


def test_measuring_the_layout_leaves_the_run_as_it_would_be(
    settings: Settings, tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings("selfie", name="plain")
    fit(plain, reporter=Silent())

    def measured(trial: Callable[[torch.memory_format], object], **facts: object) -> str:
        for memory_format in (torch.channels_last, torch.contiguous_format):
            trial(memory_format)
        return "contiguous"

    monkeypatch.setattr(session_module, "choose_format", measured)
    auto = replace(plain, name="auto", memory_format="auto")
    fit(auto, reporter=Silent())
    one, other = tensors(plain, "finetune", "last"), tensors(auto, "finetune", "last")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_is_named_before_its_data_are_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreadable(*_: object) -> Splits:
        raise UsageError("cannot be read")

    monkeypatch.setattr(opened_module, "open_data", unreadable)
    with pytest.raises(UsageError):
        fit(settings(), reporter=Silent())
    assert capsys.readouterr().err == "starting run\n"


def test_a_run_that_cannot_begin_leaves_no_folder_and_nothing_to_sync(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def cannot(work: Work) -> None:
        raise UsageError("cannot run")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(session_module, "check_runs", cannot)
    with pytest.raises(UsageError, match="cannot run"):
        fit(settings("none", tracking=True), reporter=Silent())
    assert "sync" not in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_layout_is_measured_once_for_all_stages(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["channels_last"])
    monkeypatch.setattr(session_module, "choose_format", lambda trial, **facts: next(answers))
    config = settings("rotation", "none", memory_format="auto")
    fit(config, reporter=Silent())
    assert layout(config) == "channels_last"


def test_a_layout_that_is_asked_for_is_not_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(session_module, "choose_format")
    config = settings("none", "none", memory_format="channels_last")
    fit(config, reporter=Silent())
    assert layout(config) == "channels_last"


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"memory_format": "channels_last"}])
def test_other_arithmetic_trains_alike(change: dict[str, str], settings: Settings, tensors: Tensors) -> None:
    plain = settings("none", "pgd", name="plain")
    other = replace(plain, name="other", **change)  # type: ignore[arg-type]
    found = [fit(config, reporter=Silent())["best_metrics"]["finetune"]["train/loss"] for config in (plain, other)]
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_weights_stay_float32_under_bf16(settings: Settings, tensors: Tensors) -> None:
    config = settings("none", "none", precision="bf16")
    fit(config, reporter=Silent())
    kinds = {t.dtype for t in tensors(config, "finetune", "best").values()}
    assert kinds == {torch.float32, torch.int64}


def test_options_in_tuples_resume_as_in_lists(settings: Settings, stopper: Stop) -> None:
    config = settings("none", "none")
    options = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}
    config = replace(config, backbone=replace(config.backbone, options=options))
    with pytest.raises(Interrupted):
        fit(config, reporter=stopper("finetune", "step", 1))
    assert fit(config, resume=True, reporter=Silent())["status"] == "finished"


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cpu:x"])
def test_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(UsageError, match=f"--device: '{device}' cannot be used here"):
        choose_device(device)


@pytest.mark.parametrize(("epochs", "said"), [(1, 1), (2, 0)])
def test_a_phase_without_an_epoch_is_said(
    epochs: int, said: int, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = lambda self, classifier: [Phase(0.5, [{"params": list(classifier.parameters())}])] * 2  # noqa: E731
    monkeypatch.setattr(registry().find("finetune", "full"), "phases", halves)
    fit(settings("none", "none", stage={"epochs": epochs}), reporter=Silent())
    line = "advss: warning: phase 1 of 2 of --finetune full does not take place: its share of --finetune-epochs 1"
    assert capsys.readouterr().err.count(line) == said
