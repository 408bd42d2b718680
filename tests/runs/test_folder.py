"""What a message says to type fits the run that it is said of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advss.cli.main import main
from advss.configuration.resolve import resolve, to_yaml
from advss.errors import UsageError
from advss.runs.folder import RunFolder, classifier_of, find_run
from advss.stages.fit import finetune
from advss.training.reporting import Silent


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("my runs/a"))
    folder.path.mkdir(parents=True)
    folder.config.touch()
    return folder


@pytest.mark.parametrize(
    ("result", "typed"),
    [
        ({"status": "running"}, "advss fit --resume 'my runs/a'"),
        ({"status": "running", "command": "pretrain"}, "advss pretrain --resume 'my runs/a'"),
        ({"status": "running", "command": "finetune"}, "advss finetune --resume 'my runs/a'"),
        ({"status": "running", "command": "rm -r ~;"}, "advss fit --resume 'my runs/a'"),
        ({"status": "finished"}, "advss finetune --from 'my runs/a'"),
        (
            {"status": "finished", "epochs": {"pretrain": 1, "finetune": 0}},
            "advss finetune --from 'my runs/a' --finetune-epochs N",
        ),
    ],
)
def test_a_run_without_a_classifier_is_finished_by_the_command_that_began_it(
    result: dict[str, Any], typed: str, run: RunFolder
) -> None:
    run.result.write_text(json.dumps(result))
    with pytest.raises(UsageError, match=f"has no fine-tuned model; run `{typed}` first"):
        classifier_of(run)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"status": "running", "pretext": ["rotation"]}, "run `advss fit --resume 'my runs/a'` first"),
        (
            {"status": "running", "pretext": ["r"], "command": "pretrain"},
            "run `advss pretrain --resume 'my runs/a'` first",
        ),
        ({"status": "running", "pretext": ["rotation"], "command": "finetune"}, "name a run that has"),
        ({"status": "finished", "pretext": []}, "name a run that has"),
    ],
)
def test_a_run_without_an_encoder_is_gone_on_with_where_it_will_have_one(
    result: dict[str, Any], said: str, run: RunFolder, settings: Any
) -> None:
    run.result.write_text(json.dumps(result))
    with pytest.raises(UsageError, match=f"has no pretrained encoder; {said}"):
        finetune(settings(), source=run.path, reporter=Silent())


@pytest.mark.parametrize(("begun", "said"), [("fit", "finetune"), ("finetune", "fit"), ("fit", "pretrain")])
def test_a_run_is_resumed_by_the_command_that_began_it(
    begun: str, said: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.config.write_text(to_yaml(resolve({"pretext": "rotation"}, environ={})))
    run.result.write_text(json.dumps({"status": "running", "command": begun}))
    assert main([said, "--resume", str(run.path), "--quiet"]) == 2
    line = f"was begun by `advss {begun}`; go on with: advss {begun} --resume 'my runs/a'"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("called", ["latest", "my runs/a/.", "my runs/b/../a"])
def test_a_run_has_its_name_however_it_is_called(called: str, run: RunFolder) -> None:
    Path("latest").symlink_to("my runs/a")
    (run.path.parent / "b").mkdir()
    assert find_run(called).path.resolve() == run.path.resolve()
    assert find_run(called).name == "a"


def test_a_run_has_its_name_from_within(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path)
    assert find_run(".").path == Path.cwd()
