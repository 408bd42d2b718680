"""MART against the paper's formula in float64, on what has labels, and by training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from advss.cli.main import main
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Batch, Loss, Task, Views
from advss.plugins import build
from advss.testing import conformance
from advss_mart import MART

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ATTACKED = (X + 0.03).clamp(0, 1)
LABEL = torch.arange(6) % 4


class Labels(Task):
    """Classify the images, and twice more with half the weight; all in float64."""

    def __init__(self, label: Tensor = LABEL, *, twice: bool = False, told: bool = True) -> None:
        super().__init__()
        self.label, self.twice, self.told = label, twice, told

    def views(self, batch: Batch, generator: Generator) -> Views:
        return Views((batch.x,))

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        logits = encoder(inputs[0])
        value = F.cross_entropy(logits, self.label, ignore_index=-1)
        if not self.twice:
            return Loss(value, (logits,), labels=(self.label,) if self.told else ())
        both = torch.stack([logits, 2 * logits], 1)
        return Loss(value, (logits, both), labels=(self.label, self.label[:, None].expand(-1, 2)), weights=(1.0, 0.5))


def network(scale: float = 1.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(180, 4)
        head.weight.data.mul_(scale)
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), head).double()


def objective(net: nn.Module, task: Task) -> TaskObjective:
    return TaskObjective(net, {"it": task}, (Views((X,)),), stage="finetune", key=(0,))


def generator() -> Generator:
    return torch.Generator().manual_seed(2)


def by_the_paper(clean: Tensor, attacked: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Margin and weighted divergence, row by row, from probabilities."""
    p, q = clean.softmax(1), attacked.softmax(1)
    margins, divergences = [], []
    for p_K, q_K, y in zip(p, q, label.tolist(), strict=True):
        margins.append(-(1 - max(q_K[k] for k in range(4) if k != y)).log())
        divergences.append((p_K * (p_K / q_K).log()).sum() * (1 - p_K[y]))
    return torch.stack(margins).mean(), torch.stack(divergences).mean()


def test_loss_and_gradient_are_the_papers() -> None:
    net, other = network(), network()
    MART(beta=5).loss(objective(net, Labels()), (ATTACKED,), generator()).total.backward()  # type: ignore[no-untyped-call]
    margin, divergence = by_the_paper(other(X), other(ATTACKED), LABEL)
    expected = F.cross_entropy(other(ATTACKED), LABEL) + margin + 5 * divergence
    expected.backward()  # type: ignore[no-untyped-call]
    found = MART(beta=5).loss(objective(network(), Labels()), (ATTACKED,), generator())
    torch.testing.assert_close(found.value, expected, atol=1e-12, rtol=1e-12)
    for own, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, atol=1e-12, rtol=1e-10)


def test_logits_count_by_their_weights() -> None:
    net = network()
    found = MART(beta=5).loss(objective(net, Labels(twice=True)), (ATTACKED,), generator())
    value = F.cross_entropy(net(ATTACKED), LABEL)
    for scale, weight in ((1, 1.0), (1, 0.5), (2, 0.5)):
        margin, divergence = by_the_paper(scale * net(X), scale * net(ATTACKED), LABEL)
        value = value + weight * (margin + 5 * divergence)
    torch.testing.assert_close(found.value, value, atol=1e-12, rtol=1e-12)


def test_label_minus_one_counts_nowhere() -> None:
    net, label = network(), torch.tensor([0, -1, 2, 3, -1, 1])
    known = label >= 0
    found = MART(beta=5).loss(objective(net, Labels(label)), (ATTACKED,), generator())
    margin, divergence = by_the_paper(net(X)[known], net(ATTACKED)[known], label[known])
    expected = F.cross_entropy(net(ATTACKED)[known], label[known]) + (margin + 5 * divergence) * 4 / 6
    torch.testing.assert_close(found.value, expected, atol=1e-12, rtol=1e-12)


def test_sure_predictions_give_finite_gradients() -> None:
    net = network(scale=1e4)
    loss = MART().loss(objective(net, Labels()), (ATTACKED,), generator())
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert loss.value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_without_labels_one_line_says_what_to_use() -> None:
    with pytest.raises(UsageError, match="mart needs labels, and the task, or one of several, gives none; use pgd"):
        MART().loss(objective(network(), Labels(told=False)), (ATTACKED,), generator())


def test_it_is_found_by_name_and_checks_beta(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(build("defense", Choice("mart")), MART)
    assert main(["fit", "--defense", "mart", "--defense.beta", "-1"]) == 2
    assert "--defense.beta must be at least 0" in capsys.readouterr().err


def test_it_learns_classes_and_turns(tmp_path: Path) -> None:
    """Digits, far above the 10 and 25 % of chance after an epoch of each stage under attack."""
    run = "fit --pretext rotation --defense mart --defense.steps 2 --pretrain-epochs 2 --finetune-epochs 2"
    small = "--data.limit 400 --eval-limit 100 --eval-steps 2 --tracking false --name it"
    command = Path(sys.executable).with_name("advss")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([command, *f"{run} {small}".split()], cwd=tmp_path, env=env, check=True)
    result = json.loads((tmp_path / "runs/it/result.json").read_text())
    assert result["best_metrics"]["pretrain"]["valid/adversarial/accuracy"] > 0.4
    assert result["ta"] > 0.5


test_it_keeps_the_contract = conformance("mart")
