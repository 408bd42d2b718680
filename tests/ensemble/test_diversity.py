"""The diversity term against closed forms, float64 and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from advss.ensemble.diversity import gram, log_det

R = 1e-5


def with_cosine(c: float, count: int = 3) -> list[Tensor]:
    """Two gradients an image, (B, 1, 2, 2), with cosine ``c`` between them and unequal lengths."""
    one, other = torch.zeros(count, 1, 2, 2), torch.zeros(count, 1, 2, 2)
    one[:, 0, 0, 0] = 3.0
    other[:, 0, 0, 0], other[:, 0, 1, 1] = 0.01 * c, 0.01 * math.sqrt(1 - c * c)
    return [one, other]


@pytest.mark.parametrize("c", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_two_members_give_the_closed_form(c: float) -> None:
    expected = math.log((1 + R) ** 2 - c**2)
    assert float(log_det(gram(with_cosine(c)))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("members", [3, 5])
def test_more_members_equal_a_float64_determinant(members: int) -> None:
    gradients = [torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(i)) + 0.5 for i in range(members)]
    total = 0.0
    for image in range(4):
        columns = torch.stack([g[image].double().flatten() for g in gradients])
        columns /= columns.square().sum(1, keepdim=True).sqrt()
        eigenvalues = torch.linalg.eigvalsh(columns @ columns.T)
        total += float((eigenvalues + R).log().sum())
    assert float(log_det(gram(gradients))) == pytest.approx(total / 4, abs=1e-5)


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_orthogonal_gradients_give_nearly_0(members: int) -> None:
    gradients = [torch.zeros(2, 1, 3, 3) for _ in range(members)]
    for i, gradient in enumerate(gradients):
        gradient.view(2, -1)[:, i] = 10.0**i
    assert float(log_det(gram(gradients))) == pytest.approx(members * math.log(1 + R), abs=1e-7)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_parallel_gradients_give_a_finite_value(members: int) -> None:
    """GᵀG of equal columns has one eigenvalue M and M - 1 zeros."""
    one = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = math.log(members + R) + (members - 1) * math.log(R)
    assert float(log_det(gram([one * (i + 1) for i in range(members)]))) == pytest.approx(expected, rel=1e-2)


def test_a_gradient_of_zero_gives_a_finite_value() -> None:
    one = torch.ones(2, 1, 2, 2)
    assert float(log_det(gram([one, one * 0]))) == pytest.approx(math.log(1 + R) + math.log(R), abs=1e-4)


def test_it_is_a_float32_scalar_for_bf16_gradients_too() -> None:
    value = log_det(gram([g.bfloat16() for g in with_cosine(0.5)]))
    assert value.dtype == torch.float32
    assert value.shape == ()


def test_its_gradient_equals_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = [torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3)]

    def reference(gradients: list[Tensor]) -> float:
        total = 0.0
        for image in range(2):
            columns = torch.stack([g[image].flatten() / g[image].norm() for g in gradients])
            total += float(torch.logdet(columns @ columns.T + R * torch.eye(3, dtype=torch.float64)))
        return total / 2

    narrow = [g.float().requires_grad_() for g in wide]
    found = torch.autograd.grad(log_det(gram(narrow)), narrow)
    for member in range(3):
        for place in range(8):
            bump = torch.zeros(8, dtype=torch.float64)
            bump[place] = 1e-5
            moved = [
                reference([g + s * bump.view_as(g) if i == member else g for i, g in enumerate(wide)]) for s in (1, -1)
            ]
            numeric = (moved[0] - moved[1]) / 2e-5
            assert float(found[member].flatten()[place]) == pytest.approx(numeric, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e-30, 1e20])
def test_the_cosine_and_its_gradient_hang_on_no_length(scale: float) -> None:
    """The derivative by a gradient of length s is that by one of length 1, over s."""
    exact = 2.0 ** round(math.log2(scale))  # keeps every digit of a float32
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    found = []
    for factor in (1.0, exact):
        short = (one * factor).requires_grad_()
        value = log_det(gram([short, other]))
        (slope,) = torch.autograd.grad(value, short)
        found.append((value.detach(), slope * factor))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-7, rtol=1e-5)


def test_a_gradient_of_zero_is_pulled_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    zero, other = torch.zeros(2, 1, 3, 3, requires_grad=True), torch.randn(2, 1, 3, 3, generator=generator)
    (slope,) = torch.autograd.grad(log_det(gram([zero, other])), zero)
    assert torch.equal(slope, torch.zeros_like(zero))
