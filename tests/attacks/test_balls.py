"""The ℓ1 ball cut by [0, 1]: its nearest point, its draws and its steps, against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, brentq, minimize
from torch import Tensor

from advss.attacks.balls import L1

Array = NDArray[np.float64]


def cases(count: int, dimensions: int, spread: float, seed: int) -> tuple[Array, Array]:
    """Clean images and points around them; every fourth image is black and white alone."""
    rng = np.random.default_rng(seed)
    clean = rng.random((count, dimensions))
    clean[::4] = clean[::4].round()
    return clean, clean + spread * rng.standard_normal((count, dimensions))


def nearest(x: Array, clean: Array, eps: float, *, box: bool = True) -> Array:
    """The nearest point of the ball of one image, and of [0, 1] unless ``box`` is false: a root of the norm in λ."""
    delta = x - clean
    size = np.abs(delta)
    room = np.where(delta > 0, 1 - clean, clean) if box else size

    def shrunk(least: float) -> Array:
        return np.minimum(np.maximum(size - least, 0), room)

    outside = shrunk(0).sum() > eps
    least = brentq(lambda at: shrunk(at).sum() - eps, 0, size.max(), xtol=1e-15, rtol=1e-15) if outside else 0.0
    return clean + np.sign(delta) * shrunk(least)


@pytest.mark.parametrize(
    ("count", "dimensions", "eps", "spread"),
    [(600, 8, 1.0, 1.0), (300, 8, 0.1, 0.1), (300, 8, 6.0, 2.0), (24, 3072, 12.0, 0.05), (24, 3072, 300.0, 1.0)],
)
def test_the_point_is_the_nearest_in_ball_and_box(count: int, dimensions: int, eps: float, spread: float) -> None:
    clean, x = cases(count, dimensions, spread, seed=dimensions)
    expected = torch.tensor(np.stack([nearest(*both, eps) for both in zip(x, clean, strict=True)]))
    ours = L1(torch.tensor(clean), eps, 1.0).inside(torch.tensor(x))
    torch.testing.assert_close(ours, expected, atol=1e-13, rtol=0)
    narrow = L1(torch.tensor(clean).float(), eps, 1.0).inside(torch.tensor(x).float())
    torch.testing.assert_close(narrow.double(), expected, atol=1e-6, rtol=0)
    moved = (ours - torch.tensor(x)).abs().amax(1) > 1e-6
    assert moved.double().mean() > 0.9


def test_a_solver_that_knows_no_threshold_finds_the_same_point() -> None:
    """δ as the difference of two vectors that are not negative, their sum at most eps: a quadratic program."""
    clean, x = cases(12, 8, 1.0, seed=1)
    ours = L1(torch.tensor(clean), 1.0, 1.0).inside(torch.tensor(x)).numpy()
    apart = np.hstack([np.eye(8), -np.eye(8)])
    for place in range(len(x)):
        delta = x[place] - clean[place]
        found = minimize(
            lambda both, delta=delta: ((apart @ both - delta) ** 2).sum(),
            np.zeros(16),
            jac=lambda both, delta=delta: 2 * apart.T @ (apart @ both - delta),
            bounds=[*((0, 1 - c) for c in clean[place]), *((0, c) for c in clean[place])],
            constraints=LinearConstraint(np.ones(16), -np.inf, 1.0),
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(ours[place], clean[place] + apart @ found.x, atol=1e-6)


def test_clamping_after_a_projection_onto_the_ball_is_far_off() -> None:
    """So the two sets are not projected onto one after the other."""
    clean, x = cases(600, 8, 1.0, seed=8)
    ours = L1(torch.tensor(clean), 1.0, 1.0).inside(torch.tensor(x)).numpy()
    clamped = np.stack([nearest(*both, 1.0, box=False) for both in zip(x, clean, strict=True)]).clip(0, 1)
    off = np.abs(ours - clamped).max(1)
    assert off.max() > 0.51
    further = ((clamped - x) ** 2).sum(1) - ((ours - x) ** 2).sum(1)
    assert (further > -1e-12).all()  # whatever else lies in both sets is no nearer
    assert (further[off > 1e-6] > 0).all()


def test_the_start_is_uniform_in_the_ball() -> None:
    """In d dimensions (‖δ‖₁ / eps)^d is uniform in [0, 1], and a coordinate's mean is 0, its size's 1/(d+1)."""
    clean, eps, count = torch.full((20_000, 1, 2, 2), 0.5), 0.3, 20_000
    delta = (L1(clean, eps, 1.0).start(torch.Generator().manual_seed(0)) - clean).double().flatten(1) / eps
    counts = torch.histc(delta.abs().sum(1) ** 4, bins=20, min=0, max=1)
    assert float(((counts - count / 20) ** 2 / (count / 20)).sum()) < 43.8  # chi², 19 degrees of freedom, p = .001
    torch.testing.assert_close(delta.mean(0), torch.zeros(4).double(), atol=0.008, rtol=0)
    torch.testing.assert_close(delta.abs().mean(0), torch.full((4,), 1 / 5).double(), atol=0.006, rtol=0)


@pytest.mark.parametrize(
    ("clean", "gradient", "top_share", "expected"),
    [
        ([0.5, 0.5, 0.5, 0.5], [3.0, -4.0, 1.0, 2.0], 0.25, [0.5, 0.3, 0.5, 0.5]),
        ([0.5, 0.5, 0.5, 0.5], [3.0, -4.0, 1.0, 2.0], 0.5, [0.6, 0.4, 0.5, 0.5]),
        ([0.5, 0.0, 1.0, 0.5], [3.0, -4.0, 5.0, 2.0], 0.5, [0.6, 0.0, 1.0, 0.6]),  # what cannot move is not chosen
        ([0.5, 0.5, 0.5, 0.5], [0.0, -4.0, 0.0, 0.0], 0.5, [0.5, 0.3, 0.5, 0.5]),  # nor what has no direction
        ([0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], 1.0, [0.5, 0.5, 0.5, 0.5]),
        ([0.5, 0.5, 0.5, 0.5], [float("nan"), 1.0, 0.0, 0.0], 0.25, [0.5, 0.7, 0.5, 0.5]),
    ],
)
def test_a_step_is_shared_by_the_coordinates_of_largest_gradient(
    clean: list[float], gradient: list[float], top_share: float, expected: list[float]
) -> None:
    x, way, wanted = (torch.tensor([row], dtype=torch.float64) for row in (clean, gradient, expected))
    moved = L1(x, 1.0, 0.2, top_share=top_share).ascend(x, way)
    torch.testing.assert_close(moved, wanted, atol=1e-12, rtol=0)


def test_what_is_in_the_ball_already_is_not_moved() -> None:
    clean = torch.rand(50, 20, generator=torch.Generator().manual_seed(0))
    x: Tensor = (clean + 0.02).clamp(max=1)
    torch.testing.assert_close(L1(clean, 0.5, 1.0).inside(x.clone()), x, atol=1e-7, rtol=0)
