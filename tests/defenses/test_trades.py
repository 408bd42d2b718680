"""TRADES: both its attacks and its loss on softmax regression, written down in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.errors import UsageError
from advss.hookspecs import Batch, Defense, Encoder, Loss, Task, Views
from advss_defenses.none import NoDefense
from advss_defenses.trades import Trades
from advss_pretext.rotation import Rotation

Norm = Literal["linf", "l2"]
Attack = Literal["kl", "ce"]
Pair = Callable[[float], TaskObjective]
LABEL = torch.arange(6) % 3
ATTACKS = pytest.mark.parametrize("attack", ["kl", "ce"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head_of(objective: TaskObjective, member: str = "regression") -> nn.Linear:
    head = objective.root.members[member].head
    assert isinstance(head, nn.Linear)
    return head


# ---------------------------------------------------------------- the attack
def iterates(objective: TaskObjective, attack: Attack, norm: Norm, start: Tensor, eps: float) -> list[Tensor]:
    """Five steps of 0.15. Wᵀ(q - p) is the gradient of KL(p ‖ q), and of the cross-entropy with onehot for p."""
    head, clean = head_of(objective), objective.inputs[0].flatten(1)
    weight, bias = head.weight.detach(), head.bias.detach()
    pulled = (clean @ weight.T + bias).softmax(1) if attack == "kl" else torch.eye(3).double()[LABEL]
    x, found = start.flatten(1), []
    for _ in range(5):
        gradient = ((x @ weight.T + bias).softmax(1) - pulled) @ weight
        if norm == "linf":
            x = x + 0.15 * gradient.sign()
            x = torch.minimum(torch.maximum(x, clean - eps), clean + eps)
        else:
            delta = x + 0.15 * gradient / gradient.norm(dim=1, keepdim=True) - clean
            x = clean + delta * (eps / delta.norm(dim=1, keepdim=True)).clamp(max=1)
        x = x.clamp(0, 1)
        found.append(x.view_as(start))
    return found


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("linf", 0.5), ("l2", 0.4)])
def test_the_kl_attack_climbs_the_divergence_from_a_gaussian_start(wide: TaskObjective, norm: Norm, eps: float) -> None:
    """At 0.5 the images end at 0 and 1."""
    (clean,) = wide.inputs
    start = clean + 0.001 * torch.empty_like(clean).normal_(generator=generator())
    for steps, expected in enumerate(iterates(wide, "kl", norm, start, eps), 1):
        (found,) = Trades(norm=norm, eps=eps, step_size=0.15, steps=steps).attack(wide, generator())
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_the_ce_attack_climbs_the_loss_from_a_uniform_start(wide: TaskObjective, eps: float) -> None:
    (clean,) = wide.inputs
    start = (clean + torch.empty_like(clean).uniform_(-eps, eps, generator=generator())).clamp(0, 1)
    for steps, expected in enumerate(iterates(wide, "ce", "linf", start, eps), 1):
        (found,) = Trades(attack="ce", eps=eps, step_size=0.15, steps=steps).attack(wide, generator())
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@ATTACKS
def test_the_attack_is_a_function_of_its_generator_and_detached(regression: TaskObjective, attack: Attack) -> None:
    defense = Trades(attack=attack, steps=1, step_size=1e-4)
    found = [defense.attack(regression, generator(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not found[0].requires_grad


@pytest.mark.parametrize(("attack", "passes"), [("kl", 4), ("ce", 3)])
def test_clean_predictions_are_computed_once_an_attack(regression: TaskObjective, attack: Attack, passes: int) -> None:
    seen: list[int] = []
    head_of(regression).register_forward_hook(lambda *_: seen.append(1))
    Trades(attack=attack, steps=3).attack(regression, generator())
    assert len(seen) == passes


def divergences(objective: TaskObjective, inputs: tuple[Tensor, ...]) -> float:
    """KL(clean ‖ attacked), summed over the members of a pair, each at its own input."""
    total = 0.0
    for member, clean, x in zip(("one", "other"), objective.inputs, inputs, strict=True):
        weight, bias = (t.detach().double() for t in head_of(objective, member).parameters())
        p, q = ((at.double().flatten(1) @ weight.T + bias).softmax(1) for at in (clean, x))
        total += float((p * (p / q).log()).sum(1).mean())
    return total


@ATTACKS
def test_the_attack_ascends_the_diversity_term_too(pair: Pair, attack: Attack) -> None:
    both, defense = pair(5.0), Trades(eps=0.2, step_size=0.05, attack=attack)
    aware, unaware = defense.attack(both, generator()), defense.attack(pair(0.0), generator())
    assert torch.as_tensor(both(aware).penalty) > torch.as_tensor(both(unaware).penalty) + 0.01
    assert 0 < divergences(both, aware) < divergences(both, unaware)


def rotations(encoder: Encoder, batch: Batch, *, diversity: float = 0.0) -> TaskObjective:
    """Two rotation tasks on a small network with BatchNorm; one where there is no diversity term."""
    tasks = {f"rotation{i}": Rotation() for i in range(2 if diversity else 1)}
    for i, task in enumerate(tasks.values()):
        with torch.random.fork_rng():
            torch.manual_seed(i)
            task.build(encoder)
    views = tuple(task.views(batch, generator(i)) for i, task in enumerate(tasks.values()))
    return TaskObjective(encoder, tasks, views, stage="pretrain", key=(0,), diversity=diversity)


@ATTACKS
def test_attack_mode_is_how_the_network_stands_while_attacked(encoder: Encoder, batch: Batch, attack: Attack) -> None:
    objective = rotations(encoder, batch)
    by_train, by_eval = (
        Trades(steps=2, attack=attack, attack_mode=mode).attack(objective, generator())[0] for mode in ("train", "eval")
    )
    objective.root.eval()
    standing = Trades(steps=2, attack=attack).attack(objective, generator())[0]
    assert torch.equal(by_eval, standing)
    assert not torch.equal(by_eval, by_train)


# ---------------------------------------------------------------- the loss
@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_loss_and_gradient_are_those_of_clean_loss_plus_beta_divergence(wide: TaskObjective, beta: float) -> None:
    """Through clean and attacked predictions alike: with either held, the gradient is another."""
    (clean,), head = wide.inputs, head_of(wide)
    attacked = (clean + 0.3 * torch.empty_like(clean).normal_(generator=generator(3))).clamp(0, 1)
    loss = Trades(beta=beta).loss(wide, (attacked,), generator())
    found = torch.autograd.grad(loss.total, [head.weight, head.bias])

    weight, bias = head.weight.detach().clone().requires_grad_(), head.bias.detach().clone().requires_grad_()
    raised = [(x.flatten(1) @ weight.T + bias).exp() for x in (clean, attacked)]
    p, q = (r / r.sum(1, keepdim=True) for r in raised)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = -p[torch.arange(6), LABEL].log().mean() + beta * divergence
    assert float(loss.value.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for ours, plain in zip(found, torch.autograd.grad(expected, [weight, bias]), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)
    assert float(loss.metrics["kl"]) == pytest.approx(float(divergence.detach()), rel=1e-12)
    assert not loss.metrics["kl"].requires_grad
    assert float(loss.metrics["accuracy"]) == pytest.approx(float((q.argmax(1) == LABEL).double().mean()))
    torch.testing.assert_close(loss.logits[0].softmax(1), q)


def test_a_probability_that_underflows_leaves_the_gradient_finite(regression: TaskObjective) -> None:
    head = head_of(regression)
    with torch.no_grad():
        head.weight.mul_(2000)
    (clean,) = regression.inputs
    assert (head(clean.flatten(1)).softmax(1) == 0).any()
    loss = Trades().loss(regression, (clean + 0.05,), generator())
    gradient = torch.autograd.grad(loss.total, head.weight)[0]
    assert loss.total.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


class Several(Task):
    """Two logits: the input as (B, 2, 3, 2), that is 6 distributions over 2 classes, and as 3 over 4."""

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        return Loss(inputs[0].mean(), (inputs[0].view(-1, 2, 3, 2), inputs[0].view(-1, 3, 4)))


def test_the_divergence_is_summed_over_decisions_and_logits_and_averaged_over_the_batch(images: Tensor) -> None:
    clean, attacked = images.double(), images.double().flip(0)
    objective = TaskObjective(nn.Identity(), {"several": Several()}, (Views((clean,)),), stage="pretrain", key=(0,))
    total = 0.0
    for x, y in zip(clean.flatten(1).tolist(), attacked.flatten(1).tolist(), strict=True):
        for start, size in [(i, 2) for i in range(0, 12, 2)] + [(i, 4) for i in range(0, 12, 4)]:
            p, q = ([math.exp(v) for v in z[start : start + size]] for z in (x, y))
            p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    loss = Trades(beta=2.0).loss(objective, (attacked,), generator())
    assert float(loss.value) == pytest.approx(float(clean.mean()) + 2 * total / len(clean), rel=1e-12)


def test_beta_is_6_by_default(wide: TaskObjective) -> None:
    attacked = (wide.inputs[0].flip(0),)
    by_default, said, other = (d.loss(wide, attacked, generator()) for d in (Trades(), Trades(beta=6), Trades(beta=5)))
    assert torch.equal(by_default.value, said.value)
    assert not torch.equal(by_default.value, other.value)


# ---------------------------------------------------------------- β = 0
def trained(defense: Defense, objective: TaskObjective) -> tuple[list[Tensor], int]:
    """Attack, loss, gradients and buffers of a step, and the passes through the network that it took."""
    passes: list[int] = []
    hook = objective.root.trunk.register_forward_hook(lambda *_: passes.append(1))
    inputs = defense.attack(objective, generator())
    loss = defense.loss(objective, inputs, generator())
    hook.remove()
    total = loss.total
    total.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in objective.root.parameters() if p.grad is not None]
    return [*inputs, total.detach(), *gradients, *objective.root.buffers()], len(passes)


@ATTACKS
@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_with_beta_0_it_is_standard_training_to_the_bit(
    encoder: Encoder, batch: Batch, attack: Attack, diversity: float
) -> None:
    standard, passes = trained(NoDefense(), rotations(copy.deepcopy(encoder), batch, diversity=diversity))
    found, same = trained(Trades(beta=0.0, attack=attack), rotations(encoder, batch, diversity=diversity))
    assert passes == same
    assert len(standard) == len(found)
    assert all(torch.equal(a, b) for a, b in zip(standard, found, strict=True))


# ---------------------------------------------------------------- what it refuses
class Silent(Task):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        self.asked += 1
        return Loss(inputs[0].square().mean())


@ATTACKS
def test_a_task_without_logits_is_an_error_before_any_step(images: Tensor, attack: Attack) -> None:
    task = Silent()
    objective = TaskObjective(nn.Identity(), {"silent": task}, (Views((images,)),), stage="pretrain", key=(0,))
    with pytest.raises(UsageError, match=r"^defense trades needs logits to compare, .* gives none; use pgd$"):
        Trades(attack=attack).attack(objective, generator())
    assert task.asked == 1


def test_one_member_without_logits_is_an_error_though_the_other_has_some(encoder: Encoder, batch: Batch) -> None:
    rotations_alone = rotations(encoder, batch, diversity=0.0)
    tasks = {**rotations_alone.members, "silent": Silent()}
    views = (*rotations_alone.views.values(), Views((batch.x,)))
    objective = TaskObjective(encoder, tasks, views, stage="pretrain", key=(0,))
    with pytest.raises(UsageError, match="one of several, gives none"):
        Trades().attack(objective, generator())


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_a_beta_out_of_range_is_an_error(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be at least 0 and finite, got"):
        Trades(beta=beta)


@pytest.mark.parametrize("option", ["eps", "step_size", "steps"])
def test_what_makes_no_attack_is_an_error(option: str) -> None:
    said: dict[str, Any] = {option: -1}
    with pytest.raises(ValueError, match=f"{option} must be"):
        Trades(**said)
