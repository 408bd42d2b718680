"""The fast second derivative of batch normalisation against PyTorch's own and finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from advss.ensemble.second_order import FastSecondOrder

SHAPES = [(5, 3, 2, 2), (7, 3), (4, 3, 5)]


def drawn(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def fast(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    with FastSecondOrder():
        return F.batch_norm(x, None, None, weight, bias, True)


@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives_equal_finite_differences(shape: tuple[int, ...]) -> None:
    x, weight, bias = drawn(shape, (3,), (3,))
    assert gradcheck(fast, (x, weight, bias))
    assert gradgradcheck(fast, (x, weight, bias))


@pytest.mark.parametrize("shape", SHAPES)
def test_so_they_do_without_weight_and_bias(shape: tuple[int, ...]) -> None:
    (x,) = drawn(shape)
    assert gradgradcheck(fast, (x,))


def test_a_weight_of_0_is_no_special_case() -> None:
    x, bias = drawn((5, 3, 2, 2), (3,))
    weight = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(fast, (x, weight, bias))


def penalty_gradients(norm: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Gradients of a function of an input gradient, as the diversity term's are."""
    x, weight, bias, direction = drawn((6, 3, 4, 4), (3,), (3,), (6, 3, 4, 4), dtype=dtype)
    value = (norm(x, weight.float(), bias.float()).float().tanh() * direction.float()).sum()
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return list(torch.autograd.grad(gradient.float().square().sum() + value, [x, weight]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_it_gives_pytorchs_second_derivative(dtype: torch.dtype, tolerance: float) -> None:
    own = penalty_gradients(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), dtype)
    for mine, theirs in zip(penalty_gradients(fast, dtype), own, strict=True):
        assert mine.dtype == theirs.dtype
        scale = float(theirs.float().abs().max())
        torch.testing.assert_close(mine.float(), theirs.float(), atol=tolerance * scale, rtol=tolerance)


def test_running_statistics_move_as_they_do_without_it() -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain, inside = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    expected = plain(x)
    with FastSecondOrder():
        torch.testing.assert_close(inside(x), expected)
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(inside.named_buffers())[name]), name


def test_in_eval_mode_it_is_pytorchs_own() -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    norm = torch.nn.BatchNorm2d(3).eval()
    with FastSecondOrder():
        inside = norm(x)
    assert torch.equal(inside, norm(x))
