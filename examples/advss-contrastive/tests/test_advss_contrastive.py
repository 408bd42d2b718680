"""The contrastive task: NT-Xent against a double loop in float64, its streams, its attack, and a run by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from advss.cli.main import main
from advss.config import Choice
from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Batch, DataFacts, Defense, Views
from advss.models.encoder import TimmEncoder, build_encoder
from advss.plugins import build
from advss.testing import conformance
from advss_contrastive import Contrastive

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    x = torch.rand(6, 3, 32, 32, generator=generator(1))
    return Batch(x, x.clone(), torch.arange(6), torch.arange(6))


@pytest.fixture
def encoder() -> TimmEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        facts = DataFacts(images=6, side=32)
        return build_encoder("resnet18", TINY, facts, mean=[0.5] * 3, std=[0.25] * 3, branches=Contrastive.branches)


def built(task: Contrastive, encoder: TimmEncoder) -> Contrastive:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        task.build(encoder)
    return task


def objective_of(task: Contrastive, encoder: TimmEncoder, batch: Batch) -> TaskObjective:
    views = built(task, encoder).views(batch, generator())
    return TaskObjective(encoder, {"contrastive": task}, (views,), stage="pretrain", key=(0,))


def pgd(**options: object) -> Defense:
    defense = build("defense", Choice("pgd", {"steps": 3, **options}))
    assert isinstance(defense, Defense)
    return defense


# ---------------------------------------------------------------- the loss
def bare(temperature: float) -> Contrastive:
    """The task with nothing between views and projections."""
    task = Contrastive(temperature=temperature)
    task.tail, task.project = nn.Identity(), nn.Sequential()
    return task


@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_nt_xent_is_that_of_a_double_loop_in_float64(temperature: float) -> None:
    """Eq. (1) of Chen et al.: -log exp(cos(i, j)/t) / Σ_k≠i exp(cos(i, k)/t), j the other view of i."""
    z = torch.randn(10, 7, generator=generator())
    total, nearest = 0.0, 0
    for i in range(10):
        cosines = [float(torch.cosine_similarity(z[i].double(), z[k].double(), dim=0)) for k in range(10)]
        j = (i + 5) % 10
        others = [math.exp(c / temperature) for k, c in enumerate(cosines) if k != i]
        total -= math.log(math.exp(cosines[j] / temperature) / sum(others))
        nearest += all(cosines[j] >= c for k, c in enumerate(cosines) if k != i)
    value, right = bare(temperature).contrast(nn.Identity(), (z,), "clean")  # type: ignore[arg-type]
    assert float(value) == pytest.approx(total / 10, rel=1e-5)
    assert float(right) == pytest.approx(nearest / 10)


def test_under_autocast_cosines_are_float32() -> None:
    z = torch.randn(10, 7, generator=generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = bare(0.5).contrast(nn.Identity(), (z.bfloat16(),), "clean")  # type: ignore[arg-type]
    exact, _ = bare(0.5).contrast(nn.Identity(), (z.bfloat16().float(),), "clean")  # type: ignore[arg-type]
    assert value == exact


def test_dual_stream_is_the_mean_of_both_pairs_losses(encoder: TimmEncoder, batch: Batch) -> None:
    task = built(Contrastive(), encoder)
    views = task.views(batch, generator())
    attacked = tuple((x + 0.03).clamp(0, 1) for x in views.inputs)
    adversarial, _ = task.contrast(encoder, attacked, "adversarial")
    clean, _ = task.contrast(encoder, views.inputs, "clean")
    torch.testing.assert_close(task.loss(encoder, attacked, views.targets).value, (adversarial + clean) / 2)
    task.stream = "adversarial"
    torch.testing.assert_close(task.loss(encoder, attacked, {}).value, adversarial)


# ---------------------------------------------------------------- streams and branches
def statistics(encoder: TimmEncoder, name: str) -> Tensor:
    return torch.cat([t.flatten().float() for key, t in encoder.state_dict().items() if f".@{name}.running" in key])


@pytest.mark.parametrize(("stream", "moving"), [("dual", {"adversarial", "clean"}), ("adversarial", {"adversarial"})])
def test_each_pair_has_batch_norm_of_its_own(stream: str, moving: set[str], encoder: TimmEncoder, batch: Batch) -> None:
    task = Contrastive()
    task.stream = "dual" if stream == "dual" else "adversarial"
    objective = objective_of(task, encoder, batch)
    before = {name: statistics(encoder, name) for name in task.branches}
    objective(tuple((x + 0.1).clamp(0, 1) for x in objective.inputs))
    after = {name: statistics(encoder, name) for name in task.branches}
    assert {name for name in before if not torch.equal(before[name], after[name])} == moving
    assert not torch.equal(after["adversarial"], after["clean"])


class Unfrozen(Contrastive):
    """The same, with the clean stream computed at every step of the attack."""

    def freeze(self, encoder: TimmEncoder, views: Views) -> Views:
        return views


def attacked(task: Contrastive, encoder: TimmEncoder, batch: Batch) -> tuple[tuple[Tensor, ...], int]:
    """The attacked views, and how many passes through the encoder that took."""
    objective, passes = objective_of(task, encoder, batch), list[int]()
    hook = encoder.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    found = pgd().attack(objective, generator())
    hook.remove()
    return found, len(passes)


def test_the_clean_stream_is_computed_once_an_attack_and_the_attack_is_the_same(
    encoder: TimmEncoder, batch: Batch
) -> None:
    (frozen, few), (plain, many) = (attacked(task, encoder, batch) for task in (Contrastive(), Unfrozen()))
    assert (few, many) == (4, 6)
    for a, b in zip(frozen, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_both_views_are_attacked_and_the_loss_rises(encoder: TimmEncoder, batch: Batch) -> None:
    objective = objective_of(Contrastive(), encoder, batch)
    found = pgd().attack(objective, generator())
    for x, clean in zip(found, objective.inputs, strict=True):
        assert 4 / 255 < (x - clean).abs().max() <= 8 / 255 + 1e-6
    with torch.no_grad(), objective.holding_statistics():
        assert objective(found).value > objective(objective.inputs).value


@pytest.mark.parametrize("name", ["none", "pgd", "fgsm-rs", "smoothing"])
def test_every_defense_without_need_of_logits_trains_all_of_it(name: str, encoder: TimmEncoder, batch: Batch) -> None:
    objective, defense = objective_of(Contrastive(), encoder, batch), build("defense", Choice(name))
    defense.loss(objective, defense.attack(objective, generator()), generator()).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.root.parameters())


def test_the_clean_pair_is_what_is_attacked_before_it_is(encoder: TimmEncoder, batch: Batch) -> None:
    views = Contrastive().views(batch, generator())
    assert all(map(torch.equal, views.inputs, (views.targets["first"], views.targets["second"])))
    assert not torch.equal(*views.inputs)


def test_it_learns_under_attack(encoder: TimmEncoder) -> None:
    """At ln(2B - 1) all views are at one point: there attacked training stays if projections begin close together."""
    grey = torch.from_numpy(load_digits().images[:16]).float().unsqueeze(1) / 16
    x = F.interpolate(grey, (32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    digits, draws = Batch(x, x.clone(), torch.arange(16), torch.arange(16)), generator()
    task, values = built(Contrastive(flip=0.0, crop=0.8, jitter=0.1), encoder), list[float]()
    optimizer = torch.optim.SGD([*encoder.parameters(), *task.parameters()], lr=0.2, momentum=0.9)
    for step in range(12):
        views = task.views(digits, draws)
        objective = TaskObjective(encoder, {"contrastive": task}, (views,), stage="pretrain", key=(step,))
        loss = objective(pgd(steps=1).attack(objective, draws)).value
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(loss.detach()))
    assert sum(values[-3:]) / 3 < 0.8 * math.log(31)


# ---------------------------------------------------------------- the command line
def test_a_defense_that_compares_predictions_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "fit --pretext contrastive --defense trades --data.limit 60 --tracking false"
    assert main([*line.split(), "--backbone", "resnet18", *(f"--backbone.{k}={v}" for k, v in TINY.items())]) == 2
    assert "needs logits" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["temperature 0", "dimensions 0", "crop 0", "flip 2", "jitter -1"])
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--pretext", "contrastive", *f"--pretext.{option}".split()]) == 2
    assert f"--pretext.{option.split()[0]} must be" in capsys.readouterr().err


def test_a_run_by_the_command_line_beside_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--data.limit 60 --backbone resnet18 --backbone.layers [1,1,1,1] --backbone.channels [8,8,16,16]"
    quick = "--pretrain-epochs 1 --finetune-epochs 1 --eval-steps 1 --eval-valid-steps 1 --tracking false --name it"
    line = f"--pretext contrastive,rotation --diversity 0.1 --defense pgd --defense.steps 1 {tiny} {quick}"
    assert main(["fit", *line.split()]) == 0
    result = json.loads((tmp_path / "runs/it/result.json").read_text())
    assert result["pretext"] == ["contrastive", "rotation"]
    assert 0 <= result["ra"] <= result["ta"] <= 1


test_it_keeps_the_contract = conformance("contrastive")
