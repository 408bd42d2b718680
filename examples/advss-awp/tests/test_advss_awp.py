"""Adversarial weight perturbation against the same computation in place, in float64, and by the command line."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Generator, Tensor, nn

from advss.cli.main import main
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, Defense, Loss, Objective, Task, Views
from advss.plugins import build
from advss.testing import conformance
from advss_awp import AWP

GAMMA = 0.05
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ATTACKED = (X + 0.03).clamp(0, 1)
LABEL = torch.arange(6) % 4


class Labels(Task):
    """Classify the images; all in float64."""

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,), {"label": batch.label})

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = encoder(inputs[0])
        return Loss(F.cross_entropy(logits, targets["label"]), (logits,))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)).double()


def objective_of(net: nn.Module, *, progress: float = 0.5) -> TaskObjective:
    views = Views((X,), {"label": LABEL})
    return TaskObjective(net, {"labels": Labels()}, (views,), stage="finetune", key=(0,), progress=progress)


def generator() -> Generator:
    return torch.Generator().manual_seed(2)


def defense(name: str, **options: object) -> Defense:
    built = build("defense", Choice(name, options))
    assert isinstance(built, Defense)
    return built


def cross_entropy(net: nn.Module) -> Tensor:
    return F.cross_entropy(net(ATTACKED), LABEL)


def trades(net: nn.Module) -> Tensor:
    clean, attacked = net(X), net(ATTACKED)
    p = clean.softmax(1)
    divergence: Tensor = (p * (p.log() - attacked.softmax(1).log())).sum(1).mean()
    return F.cross_entropy(clean, LABEL) + 3 * divergence


BASES: dict[str, tuple[Defense, Callable[[nn.Module], Tensor]]] = {
    "pgd": (defense("pgd"), cross_entropy),
    "trades": (defense("trades", beta=3.0), trades),
}
every_base = pytest.mark.parametrize("base", BASES)


def in_place(loss_of: Callable[[nn.Module], Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with its weights perturbed in place, the gradients in, and the weights themselves by name."""
    net = network()
    loss_of(net).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                assert parameter.grad is not None
                parameter.add_(GAMMA * parameter.norm() / parameter.grad.norm() * parameter.grad)
    for name, buffer in network().named_buffers():
        net.get_buffer(name).copy_(buffer)
    net.zero_grad()
    loss_of(net).backward()  # type: ignore[no-untyped-call]
    return net, {f"trunk.{name}": p for name, p in net.named_parameters() if p.ndim > 1}


@every_base
def test_weights_move_as_in_place(base: str) -> None:
    wrapped, loss_of = BASES[base]
    found = AWP(base=wrapped, gamma=GAMMA).perturbed(objective_of(network()), (ATTACKED,), generator())
    _, expected = in_place(loss_of)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-12, rtol=1e-12)


class Faint(Defense):
    """Standard training on a loss that is hardly there."""

    def loss(self, objective: Objective, inputs: tuple[Tensor, ...], generator: Generator) -> Loss:
        return Loss(objective(inputs).value * 2.0**-100)


def test_weights_move_as_far_however_short_the_gradient() -> None:
    plain, faint = (
        AWP(base=base, gamma=GAMMA).perturbed(objective_of(network()), (ATTACKED,), generator())
        for base in (Defense(), Faint())
    )
    assert all(torch.equal(faint[name], weight) for name, weight in plain.items())


@every_base
def test_gradients_are_those_at_the_perturbed_weights_and_statistics_move_once(base: str) -> None:
    wrapped, loss_of = BASES[base]
    net = network()
    AWP(base=wrapped, gamma=GAMMA).loss(objective_of(net), (ATTACKED,), generator()).total.backward()  # type: ignore[no-untyped-call]
    expected, _ = in_place(loss_of)
    for (name, own), other in zip(net.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, atol=1e-12, rtol=1e-10, msg=name)
    for own_buffer, other_buffer in zip(net.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(own_buffer, other_buffer)


def test_the_weights_themselves_stay() -> None:
    net, before = network(), copy.deepcopy(network().state_dict())
    AWP(base=Defense(), gamma=GAMMA).loss(objective_of(net), (ATTACKED,), generator())
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_around_itself_it_ascends_from_the_perturbed_weights() -> None:
    """Two steps: the outer one is seen by the inner one, which ends further up than one step does."""
    once, twice = AWP(base=Defense(), gamma=GAMMA), AWP(base=AWP(base=Defense(), gamma=GAMMA), gamma=GAMMA)
    plain, one, two = (
        float(d.loss(objective_of(network()), (ATTACKED,), generator()).value.detach())
        for d in (Defense(), once, twice)
    )
    assert plain < one < two


def test_warmup_leaves_the_other_defense_alone() -> None:
    awp = AWP(base=Defense(), gamma=GAMMA, warmup=0.2)
    plain = cross_entropy(network())
    before = awp.loss(objective_of(network(), progress=0.19), (ATTACKED,), generator()).value
    after = awp.loss(objective_of(network(), progress=0.2), (ATTACKED,), generator()).value
    assert before == plain
    assert after > plain


def test_ascent_and_loss_see_the_same_draws() -> None:
    alone, wrapped = generator(), generator()
    smoothing = defense("smoothing", copies=3)
    smoothing.loss(objective_of(network()), (X,), alone)
    AWP(base=smoothing).loss(objective_of(network()), (X,), wrapped)
    assert torch.equal(alone.get_state(), wrapped.get_state())


@pytest.mark.parametrize(("base", "adversarial", "noise"), [("none", False, 0.0), ("smoothing", True, 0.25)])
def test_how_epochs_are_chosen_and_certified_is_the_other_defenses(base: str, adversarial: bool, noise: float) -> None:
    awp = defense("awp", base=base)
    assert (awp.adversarial, awp.noise) == (adversarial, noise)


def test_by_default_it_is_around_pgd() -> None:
    awp = defense("awp")
    assert isinstance(awp, AWP)
    assert awp.base.name == "pgd"


@pytest.mark.parametrize("option", ["gamma 0", "gamma 1", "warmup 1"])
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--defense", "awp", *f"--defense.{option}".split()]) == 2
    assert f"--defense.{option.split()[0]} must be in" in capsys.readouterr().err


def test_a_run_by_the_command_line(tmp_path: Path) -> None:
    tiny = "--data.limit 60 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,16,16]"
    run = "--pretext none --finetune-epochs 1 --eval-steps 2 --eval-valid-steps 1 --tracking false --name it"
    awp = "--defense awp --defense.base trades --defense.base.trades.steps 1 --defense.gamma 0.01"
    command = Path(sys.executable).with_name("advss")
    subprocess.run(
        [command, "fit", *f"{tiny} {run} {awp}".split()],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    result = json.loads((tmp_path / "runs/it/result.json").read_text())
    assert result["defense"] == "awp"
    assert 0 <= result["ra"] <= result["ta"] <= 1
    config = yaml.safe_load((tmp_path / "runs/it/config.yaml").read_text())
    assert config["defense"]["awp"]["base"]["trades"]["steps"] == 1


test_it_keeps_the_contract = conformance("awp")
