"""Training on Gaussian noise: the noise itself, and the mean over its copies, by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advss.ensemble.objective import TaskObjective
from advss.hookspecs import Loss, Task, Views
from advss_defenses.smoothing import Smoothing

LABEL = torch.arange(6) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Brightness(Task):
    """The mean of its inputs, however many; keeps what it was asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Tensor, ...]] = []

    def loss(self, encoder: nn.Module, inputs: tuple[Tensor, ...], targets: dict[str, Tensor]) -> Loss:
        self.asked.append(tuple(x.detach() for x in inputs))
        value = torch.stack([x.mean() for x in inputs]).sum()
        return Loss(value, tuple(inputs), {"brightness": value.detach()})


def brightness(*inputs: Tensor) -> tuple[TaskObjective, Brightness]:
    task = Brightness()
    return TaskObjective(nn.Identity(), {"it": task}, (Views(inputs),), stage="pretrain", key=(0,)), task


def grey(value: float = 0.5) -> Tensor:
    return torch.full((64, 3, 16, 16), value)


# ---------------------------------------------------------------- the noise
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_the_noise_is_normal_with_deviation_sigma(sigma: float) -> None:
    """Φ of a normal deviate is uniform in [0, 1]."""
    objective, _ = brightness(grey())
    (found,) = Smoothing(sigma=sigma).attack(objective, generator())
    share = torch.special.ndtr((found.double() - 0.5).flatten() / sigma)
    counts, expected = torch.histc(share, bins=20, min=0, max=1), share.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi², 19 degrees of freedom, p = .001


def test_sigma_is_a_quarter_by_default() -> None:
    objective, _ = brightness(grey())
    by_default, said = (d.attack(objective, generator())[0] for d in (Smoothing(), Smoothing(sigma=0.25)))
    assert torch.equal(by_default, said)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_noisy_inputs_leave_0_to_1(level: float) -> None:
    """Of images at the rim half the pixels do; a clamp would keep them."""
    objective, _ = brightness(grey(level))
    (found,) = Smoothing().attack(objective, generator())
    outside = ((found < 0) | (found > 1)).double().mean()
    assert float(outside) == pytest.approx(0.5, abs=0.01)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_inputs_and_copies_have_independent_noise() -> None:
    """With n = 49,152 the deviation of a correlation of 0 is 0.0045."""
    objective, task = brightness(grey(), grey())
    defense, draws = Smoothing(copies=3), generator()
    defense.loss(objective, defense.attack(objective, draws), draws)
    assert [len(inputs) for inputs in task.asked] == [2, 2, 2]
    noises = [x.double() - 0.5 for inputs in task.asked for x in inputs]
    pairs = [(i, j) for i in range(6) for j in range(i)]
    assert max(abs(correlation(noises[i], noises[j])) for i, j in pairs) < 0.02
    assert all(float(noise.std()) == pytest.approx(0.25, rel=0.02) for noise in noises)


def test_the_first_copy_is_what_the_attack_returned() -> None:
    objective, task = brightness(grey())
    given = grey(0.25)
    loss = Smoothing(copies=2).loss(objective, (given,), generator())
    assert torch.equal(task.asked[0][0], given)
    assert len(loss.logits) == 1
    assert torch.equal(loss.logits[0], given)


def test_the_images_are_left_alone_and_the_attack_is_detached() -> None:
    clean = grey().requires_grad_()
    objective, _ = brightness(clean)
    (found,) = Smoothing().attack(objective, generator())
    assert not found.requires_grad
    assert torch.equal(clean.detach(), grey())


def test_the_layout_of_the_images_is_kept() -> None:
    objective, _ = brightness(grey())
    objective.inputs = tuple(x.contiguous(memory_format=torch.channels_last) for x in objective.inputs)
    (found,) = Smoothing().attack(objective, generator())
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_certificates_find_sigma_as_its_noise() -> None:
    assert Smoothing(sigma=0.5).noise == 0.5
    assert Smoothing().noise == 0.25


# ---------------------------------------------------------------- the loss
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_loss_and_gradient_are_means_over_the_copies(wide: TaskObjective, copies: int) -> None:
    """The reference draws the same noise and writes softmax regression down."""
    defense, draws = Smoothing(sigma=0.3, copies=copies), generator()
    loss = defense.loss(wide, defense.attack(wide, draws), draws)
    head = wide.root.members["regression"].head
    assert isinstance(head, nn.Linear)
    found = torch.autograd.grad(loss.total, [head.weight, head.bias])

    redrawn, (clean,) = generator(), wide.inputs
    weight, bias = head.weight.detach().clone().requires_grad_(), head.bias.detach().clone().requires_grad_()
    values, right = [], []
    for _ in range(copies):
        noisy = clean + 0.3 * torch.empty_like(clean).normal_(generator=redrawn)
        logits = noisy.flatten(1) @ weight.T + bias
        values.append((logits.exp().sum(1).log() - logits[torch.arange(6), LABEL]).mean())
        right.append((logits.argmax(1) == LABEL).double().mean())
    expected = torch.stack(values).sum() / copies
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for ours, plain in zip(found, torch.autograd.grad(expected, [weight, bias]), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)
    assert float(loss.metrics["accuracy"]) == pytest.approx(float(torch.stack(right).mean()), rel=1e-6)


# ---------------------------------------------------------------- what it refuses
@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf, 64.0])
def test_a_sigma_out_of_range_is_an_error(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"sigma must be (above 0 and finite|at most 4), got"):
        Smoothing(sigma=sigma)


@pytest.mark.parametrize("copies", [0, -1])
def test_no_copies_is_an_error(copies: int) -> None:
    with pytest.raises(ValueError, match=f"copies must be at least 1, got {copies}"):
        Smoothing(copies=copies)
