"""What a message says to type fits the run that it is said of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.runs.folder import RunFolder, classifier_of
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
        ({"status": "running", "source": "b/pretrain/best.safetensors"}, "advss finetune --resume 'my runs/a'"),
        ({"status": "finished"}, "advss finetune --from 'my runs/a'"),
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
        ({"status": "running", "pretext": ["rotation"], "source": "b"}, "name a run that has"),
        ({"status": "finished", "pretext": []}, "name a run that has"),
    ],
)
def test_a_run_without_an_encoder_is_gone_on_with_where_it_will_have_one(
    result: dict[str, Any], said: str, run: RunFolder, settings: Any
) -> None:
    run.result.write_text(json.dumps(result))
    with pytest.raises(UsageError, match=f"has no pretrained encoder; {said}"):
        finetune(settings(), source=run.path, reporter=Silent())
