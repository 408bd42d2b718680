"""Free adversarial training against the paper's Algorithm 1 written out, and runs that are killed and resumed."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from advss.cli.main import main
from advss.config import Choice, StageSettings
from advss.data.augmentation import Augment
from advss.data.images import InMemory
from advss.data.loader import Loader
from advss.data.splits import Part
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Loss, Objective, Phase, Task, Views
from advss.plugins import build
from advss.testing import conformance
from advss.tracking.tracker import Tracker
from advss.training.reporting import Silent
from advss.training.trainer import Trainer
from advss.training.work import Modules, Work
from advss_free_at import FreeAT

Inputs = tuple[Tensor, ...]
EPS = 8 / 255
CPU = torch.device("cpu")


class Labels(Task):
    """Classify the images."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,), {"label": batch.label})

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = encoder(inputs[0])
        return Loss(F.cross_entropy(logits, targets["label"]), (logits,), labels=(targets["label"],))


def work(defense: Defense) -> Work:
    """Two epochs of four batches of eight black, white and grey images, by plain gradient descent."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4))
    pixels = torch.randint(-100, 356, (32, 3, 8, 8)).clamp(0, 255).to(torch.uint8)
    part = Part(InMemory(pixels), torch.arange(32), torch.arange(32) % 4)
    modules = Modules(net, {"labels": Labels()}, "pretrain")
    return Work(
        modules=modules,
        defense=defense,
        loader=Loader(part, batch_size=8, device=CPU, augment=Augment(crop=1, flip=True), key=(0, "pretrain")),
        phases=[Phase(1.0, [{"params": list(modules.parameters())}])],
        settings=StageSettings(2, 8, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant"),
        validate=lambda modules, arithmetic: {"clean/loss": 1.0},
        score=lambda metrics: (0.0,),
        seed=0,
        device=CPU,
    )


@pytest.mark.parametrize("replays", [1, 4])
def test_training_is_the_papers_algorithm_1(replays: int, tmp_path: Path) -> None:
    given = work(FreeAT(eps=EPS, replays=replays))
    net = copy.deepcopy(given.modules.trunk)
    (tmp_path / "pretrain").mkdir()
    tracker = Tracker(tmp_path, name="it", enabled=False)
    trainer = Trainer(given, folder=tmp_path / "pretrain", tracker=tracker, reporter=Silent())
    trainer.run()

    delta = torch.zeros(8, 3, 8, 8)
    for step in range(8):
        batch = given.loader.batch(*divmod(step, 4), progress=0.0)
        for _ in range(replays):
            x = (batch.x + delta).clamp(0, 1).requires_grad_()
            slope, *slopes = torch.autograd.grad(F.cross_entropy(net(x), batch.label), [x, *net.parameters()])
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), slopes, strict=True):
                    parameter.sub_(0.05 * gradient)
            delta = (delta + EPS * slope.sign()).clamp(-EPS, EPS)
    assert delta.abs().amax() > 0.9 * EPS
    torch.testing.assert_close(trainer.carried[0], delta, atol=1e-7, rtol=0)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(given.modules.trunk.state_dict()[name], expected, atol=1e-6, rtol=1e-5)


def test_in_validation_it_attacks_by_pgd() -> None:
    given = work(FreeAT(eps=EPS))
    batch = given.loader.batch(0, 0, progress=0.0)
    views = (Views((batch.x,), {"label": batch.label}),)
    objective = TaskObjective(
        given.modules.trunk, given.modules.tasks(), views, index=batch.index, stage="pretrain", key=(0,)
    )
    (found,) = given.defense.attack(objective, torch.Generator().manual_seed(0))
    assert float((found - batch.x).abs().amax()) == pytest.approx(EPS, rel=1e-4)
    with torch.no_grad():
        assert objective((found,)).value > objective((batch.x,)).value


def test_around_it_another_defense_carries_too() -> None:
    awp = pytest.importorskip("advss_awp")
    around = awp.AWP(base=FreeAT(replays=4))
    assert around.replays == 4
    one, other = (work(d) for d in (around, FreeAT(replays=4)))
    batch = one.loader.batch(0, 0, progress=0.0)
    found = []
    for given in (one, other):
        objective = given.objective(batch, step=0)
        objective.carried = (torch.full_like(batch.x, EPS / 2),)
        found.append(given.defense.carry(objective, objective.inputs, (batch.x - 0.5,))[0])
    assert torch.equal(found[0], found[1])


TINY = "--data.limit 80 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,8,8] --device cpu"
SHORT = "--pretrain-epochs 2 --finetune-epochs 1 --pretrain-batch-size 32 --finetune-batch-size 32 --tracking false"
STEPS = "--pretrain-epoch-steps 1 --finetune-epoch-steps 1"
LITTLE = "--eval-steps 1 --eval-valid-steps 1 --eval-limit 10 --memory-format contiguous --ensemble-loss mean"
RUN = f"--pretext rotation,rotation --diversity 0.1 {TINY} {SHORT} {STEPS} {LITTLE}"
FREE = "--defense free-at --defense.replays 3 --defense.steps 1"


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process SIGTERM at one call of carry() after a stage's first batch, counted from 1."""
    carry = FreeAT.carry

    def at(call: int) -> None:
        calls = iter(range(1, 1000))

        def counted(self: FreeAT, objective: Objective, inputs: Inputs, gradients: Inputs) -> Inputs:
            if objective.progress > 0 and next(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return carry(self, objective, inputs, gradients)

        monkeypatch.setattr(FreeAT, "carry", counted)

    return at


def steps_done(stage: str) -> tuple[int, int]:
    """Batches of the epoch, and steps on the next one, that the run's last checkpoint has behind it."""
    progress = json.loads(Path(f"runs/broken/{stage}/last.json").read_text())["progress"]
    return progress["batch"], progress["replay"]


def test_an_ensemble_that_is_killed_among_the_steps_of_a_batch_goes_on_bit_for_bit(
    stopping: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining has 2 + 2 batches of 3 steps, fine-tuning 2."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *f"{RUN} {FREE} --name whole".split()]) == 0
    stopping(2)
    assert main(["fit", *f"{RUN} {FREE} --name broken".split()]) == 143
    assert steps_done("pretrain") == (1, 2)
    stopping(8)
    assert main(["fit", "--resume", "broken"]) == 143
    assert steps_done("finetune") == (1, 1)
    stopping(0)
    assert main(["fit", "--resume", "broken"]) == 0
    for stage in ("pretrain", "finetune"):
        whole, broken = (load_file(f"runs/{name}/{stage}/last.safetensors") for name in ("whole", "broken"))
        assert whole.keys() == broken.keys()
        assert "carried.0" in whole
        assert all(torch.equal(t, broken[name]) for name, t in whole.items())


@pytest.mark.parametrize("option", ["replays 0", "eps 8", "steps 0"])
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--defense", "free-at", *f"--defense.{option}".split()]) == 2
    assert f"--defense.{option.split()[0]} must be" in capsys.readouterr().err


def test_by_default_it_is_the_papers() -> None:
    built = build("defense", Choice("free-at"))
    assert isinstance(built, FreeAT)
    assert (built.replays, built.threat.eps) == (8, EPS)


test_it_keeps_the_contract = conformance("free-at")
