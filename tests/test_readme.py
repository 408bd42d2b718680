"""What the README says can be typed, can be typed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from advss.attacks import Threat, maximise
from advss.cli.main import main
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, DataFacts, PretextTask
from advss.models.encoder import build_encoder
from advss.plugins import forget, registry
from advss.randomness import stream
from advss.testing.subject import find
from advss.testing.suite import check

README = (Path(__file__).parents[1] / "README.md").read_text()
FIT_LINES = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("advss fit --")]
RESOLVABLE = [line for line in FIT_LINES if "--resume" not in line and "--help" not in line]


def test_there_are_command_lines() -> None:
    assert len(RESOLVABLE) >= 5


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The plugin that the README writes, with what pip leaves of it; its source."""
    (source,) = re.findall(r"```python\n(# my_package\.py.*?)```", README, re.S)
    (entry_point,) = re.findall(r"```toml\n\[project\.entry-points\.advss\]\n(.*?)```", README, re.S)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[advss]\n" + entry_point.replace('"', ""))
    (tmp_path / "my_package.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield source
    sys.modules.pop("my_package", None)
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("line", RESOLVABLE)
def test_a_command_line_resolves(line: str, my_package: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in shlex.split(line)[1:] if word != "--print-config"]
    assert main([*arguments, "--print-config"]) == 0
    assert "pretext:" in capsys.readouterr().out


def test_the_plugin_example_is_as_short_as_it_says(my_package: str) -> None:
    assert len(my_package.splitlines()) <= 40


def test_the_plugin_example_keeps_the_contract(my_package: str) -> None:
    (subject,) = find("flip")
    failed = [(v.check, v.message) for v in check(subject) if v.outcome != "passed"]
    assert failed == []


def test_the_plugin_example_learns_and_is_attacked(my_package: str) -> None:
    task = registry().find("pretext", "flip")(share=0.3)
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
        threat = Threat(eps=0.1, step_size=0.02, steps=5)
        attacked = maximise(lambda xs: objective(xs).total, objective.inputs, stream("cpu", 2), threat)
        assert objective(attacked).value > objective(objective.inputs).value


def test_the_test_command_is_there_once() -> None:
    assert len(re.findall(r"^python3 -m venv .*pytest$", README, re.M)) == 1
