"""The average of classifiers: probabilities against float64, gradients against the formula, copies against one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advss.attacks import Threat
from advss.attacks.pgd import PGD
from advss.models.averaged import AveragedClassifier

SHAPE, CLASSES = (3, 4, 4), 5


def images(count: int = 8) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def linear(seed: int, scale: float = 1.0) -> nn.Sequential:
    """Flattened pixels times a random matrix."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, CLASSES))
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model


def weights(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Matrix (K, D) and bias (K,) in float64."""
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    return layer.weight.detach().double(), layer.bias.detach().double()


def probabilities(model: nn.Sequential, x: Tensor) -> Tensor:
    """By hand, in float64: (B, K)."""
    matrix, bias = weights(model)
    exponentials = torch.exp(x.flatten(1).double() @ matrix.T + bias)
    return exponentials / exponentials.sum(1, keepdim=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_logits_are_the_logs_of_the_mean_probabilities(count: int) -> None:
    members = [linear(seed) for seed in range(count)]
    mean = sum((probabilities(member, images()) for member in members), torch.zeros(8, CLASSES)) / count
    assert torch.allclose(AveragedClassifier(members)(images()).double().exp(), mean, atol=1e-6)


def test_the_softmax_of_the_logits_is_the_mean_itself() -> None:
    logits = AveragedClassifier([linear(0), linear(1)])(images())
    assert torch.allclose(logits.softmax(1), logits.exp(), atol=1e-6)


def test_the_gradient_of_the_cross_entropy_is_that_of_the_formula() -> None:
    members, label = [linear(seed, 0.3) for seed in range(3)], torch.arange(8) % CLASSES
    x = images().requires_grad_()
    loss = F.cross_entropy(AveragedClassifier(members)(x), label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    top, bottom = torch.zeros(8, 48, dtype=torch.float64), torch.zeros(8, 1, dtype=torch.float64)
    for member in members:  # -d log mean_m p_m[y] / dx, where dp[y]/dx = p[y] (W[y] - sum_k p[k] W[k])
        p, (matrix, _) = probabilities(member, images()), weights(member)
        own = p[torch.arange(8), label][:, None]
        top += own * (matrix[label] - p @ matrix)
        bottom += own
    assert torch.allclose(gradient.flatten(1).double(), -top / bottom, rtol=1e-4, atol=1e-6)


def test_logits_of_a_thousand_stay_finite_and_so_do_gradients() -> None:
    x = images().requires_grad_()
    logits = AveragedClassifier([linear(0, 300.0), linear(1, 300.0)])(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.zeros(8, dtype=torch.int64)), x)
    assert float(linear(0, 300.0)(images()).detach().abs().max()) > 1000
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


def test_members_in_half_precision_are_averaged_in_float32() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = linear(0)(x)
            return logits.to(torch.bfloat16)

    assert AveragedClassifier([Half(), Half()])(images()).dtype == torch.float32


@pytest.mark.parametrize("count", [2, 3])
def test_copies_of_one_model_are_as_accurate_and_as_robust(count: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    x = images(200)
    label = model(x + 0.03 * torch.randn(x.shape, generator=generator)).argmax(1)
    threat = Threat(eps=0.02, step_size=0.005, steps=5)
    found = [
        PGD(restarts=2)(one, x, label, threat, torch.Generator().manual_seed(0))
        for one in (model, AveragedClassifier([copy.deepcopy(model) for _ in range(count)]))
    ]
    assert torch.equal(found[0].clean_B, found[1].clean_B)
    assert torch.equal(found[0].robust_B, found[1].robust_B)
    assert 0 < found[0].robust_B.sum() < (found[0].clean_B == label).sum() < 200
