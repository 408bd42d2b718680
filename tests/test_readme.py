"""What the README says can be typed, can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from advss.attacks import maximise
from advss.cli.main import main
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, DataFacts, PretextTask
from advss.models.encoder import build_encoder
from advss.randomness import stream

README = (Path(__file__).parents[1] / "README.md").read_text()
FIT_LINES = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("advss fit --")]
RESOLVABLE = [line for line in FIT_LINES if "--resume" not in line and "--help" not in line]


def test_there_are_command_lines() -> None:
    assert len(RESOLVABLE) >= 5


@pytest.mark.parametrize("line", RESOLVABLE)
def test_a_command_line_resolves(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in shlex.split(line)[1:] if word != "--print-config"]
    assert main([*arguments, "--print-config"]) == 0
    assert "pretext:" in capsys.readouterr().out


def test_the_plugin_example_learns_and_is_attacked() -> None:
    (source,) = re.findall(r"```python\n(# my_package\.py.*?)```", README, re.S)
    namespace: dict[str, object] = {}
    exec(source, namespace)
    hook = namespace["advss_pretext_tasks"]
    assert callable(hook)
    (offered,) = hook()
    task = offered(share=0.3)
    assert isinstance(task, PretextTask)
    facts = DataFacts(images=8, side=32, classes=2)
    encoder = build_encoder(
        "resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, facts, mean=[0.5] * 3, std=[0.2] * 3
    )
    task.build(encoder)
    x = torch.rand(8, 3, 32, 32, generator=stream("cpu", 0))
    views = task.views(Batch(x, x, torch.arange(8), torch.zeros(8).long()), stream("cpu", 1))
    mirrored = views.targets["flipped"].bool()
    assert torch.equal(views.inputs[0][mirrored], x[mirrored].flip(3))
    assert torch.equal(views.inputs[0][~mirrored], x[~mirrored])
    objective = TaskObjective(encoder, {"flip": task}, (views,), stage="pretrain", key=(0,))
    with objective.attacking("eval"):
        attacked = maximise(
            lambda xs: objective(xs).total, objective.inputs, stream("cpu", 2), eps=0.1, step_size=0.02, steps=5
        )
        assert objective(attacked).value > objective(objective.inputs).value


def test_the_test_command_is_there_once() -> None:
    assert len(re.findall(r"^python3 -m venv .*pytest$", README, re.M)) == 1
