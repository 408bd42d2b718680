"""The certificate of randomized smoothing, on linear classifiers whose smoothed distance to the boundary is known.

Proposition 3 of Cohen, Rosenfeld and Kolter 2019: smoothing leaves a linear classifier of two classes as it is, and
with exact probabilities its radius is the distance to the boundary. So p_A = Φ(distance/σ) and no radius may exceed it.
"""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from scipy.stats import beta, binom
from torch import Generator, Tensor, nn

from advss.measuring import Victim
from advss.models.smoothed import (
    ABSTAIN,
    SmoothedClassifier,
    fewest_copies,
    largest_radius,
    lower_bound,
)

SIGMA = 0.25
NORMAL = NormalDist()


class Halfspace(nn.Module):
    """Class 1 where the first pixel is at least ``boundary``, else class 0; it keeps the sizes of its batches."""

    def __init__(self, boundary: float) -> None:
        super().__init__()
        self.boundary, self.sizes = boundary, list[int]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.sizes.append(len(x_BCHW))
        score_B = x_BCHW[:, 0, 0, 0] - self.boundary
        return torch.stack([-score_B, score_B], 1)


class Recorder(nn.Module):
    """Class 0 of any image; keeps the images, and has room for ``room`` of them at once."""

    def __init__(self, room: int = 10**9) -> None:
        super().__init__()
        self.room, self.seen = room, list[Tensor]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if len(x_BCHW) > self.room:
            raise torch.OutOfMemoryError
        self.seen.append(x_BCHW.clone())
        return torch.tensor([1.0, 0.0]).expand(len(x_BCHW), 2)


def at(distance: float, classes: int = 2) -> SmoothedClassifier:
    """A half-space whose boundary is so far from :data:`IMAGE`."""
    return SmoothedClassifier(Halfspace(0.5 - distance), classes=classes, sigma=SIGMA)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


IMAGE = torch.full((1, 2, 2), 0.5)


# ---------------------------------------------------------------- what is promised
def test_radius_exceeds_the_distance_as_seldom_as_alpha_allows() -> None:
    n, alpha, trials, distance = 100, 0.1, 1500, 0.5 * SIGMA
    smoothed = at(distance)
    radii = [
        smoothed.certify(IMAGE, n0=100, n=n, alpha=alpha, generator=seeded(i), batch_size=100)[1] for i in range(trials)
    ]
    too_large = sum(radius > distance for radius in radii) / trials
    # counts are whole: the bound fails from the first count on whose bound exceeds p_A, a share of at most alpha
    p_A = NORMAL.cdf(distance / SIGMA)
    first = next(hits for hits in range(1, n + 1) if beta.ppf(alpha, hits, n - hits + 1) > p_A)
    share = float(binom.sf(first - 1, n, p_A))
    assert share <= alpha
    assert abs(too_large - share) < 4 * (share * (1 - share) / trials) ** 0.5
    assert share > 0.05  # else the comparison would not tell


def test_radius_gets_tight_as_the_copies_grow() -> None:
    smoothed = at(SIGMA)
    few, many = (
        smoothed.certify(IMAGE, n0=100, n=n, alpha=0.001, generator=seeded(0), batch_size=10_000)[1]
        for n in (100, 200_000)
    )
    assert few < 0.9 * SIGMA
    assert 0.98 * SIGMA < many < SIGMA


def test_the_class_is_the_side_that_the_image_lies_on() -> None:
    classes = [at(d).certify(IMAGE, n0=50, n=200, alpha=0.01, generator=seeded(0), batch_size=50)[0] for d in (0.5, -1)]
    assert classes == [1, 0]


def test_it_abstains_on_the_boundary() -> None:
    found = {
        at(0.0).certify(IMAGE, n0=100, n=1000, alpha=0.001, generator=seeded(i), batch_size=1000) for i in range(30)
    }
    assert found == {(ABSTAIN, 0.0)}


def test_it_abstains_where_the_first_copies_chose_a_class_that_the_rest_do_not() -> None:
    class Turncoat(nn.Module):
        """Class 1 of the first ten images, class 0 of all later ones."""

        seen = 0

        def forward(self, x_BCHW: Tensor) -> Tensor:
            self.seen += len(x_BCHW)
            return torch.tensor([0.0, 1.0] if self.seen <= 10 else [1.0, 0.0]).expand(len(x_BCHW), 2)

    smoothed = SmoothedClassifier(Turncoat(), classes=2, sigma=SIGMA)
    assert smoothed.certify(IMAGE, n0=10, n=100, alpha=0.01, generator=seeded(0), batch_size=50) == (ABSTAIN, 0.0)


def test_a_constant_classifier_has_the_largest_radius() -> None:
    smoothed = SmoothedClassifier(Recorder(), classes=2, sigma=SIGMA)
    found, radius = smoothed.certify(IMAGE, n0=10, n=1000, alpha=0.001, generator=seeded(0), batch_size=1000)
    exact = SIGMA * NORMAL.inv_cdf(0.001 ** (1 / 1000))
    assert found == 0
    assert radius == pytest.approx(exact, rel=1e-9)
    assert largest_radius(SIGMA, 1000, 0.001) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.001, 10), (0.25, 3), (0.4, 2), (1e-6, 20)])
def test_one_copy_fewer_certifies_nothing(alpha: float, fewest: int) -> None:
    smoothed = SmoothedClassifier(Recorder(), classes=2, sigma=SIGMA)
    few, enough = (
        smoothed.certify(IMAGE, n0=1, n=n, alpha=alpha, generator=seeded(0), batch_size=50)[0]
        for n in (fewest - 1, fewest)
    )
    assert (few, enough, fewest_copies(alpha)) == (ABSTAIN, 0, fewest)


def test_a_bound_of_exactly_one_half_is_not_enough() -> None:
    assert fewest_copies(0.5**10) == 11


# ---------------------------------------------------------------- the bound
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize(("hits", "n"), [(1, 10), (9, 10), (60, 100), (99_000, 100_000)])
def test_bound_is_the_quantile_of_a_beta_distribution(hits: int, n: int, alpha: float) -> None:
    assert lower_bound(hits, n, alpha) == pytest.approx(float(beta.ppf(alpha, hits, n - hits + 1)), abs=1e-9)


def test_bound_of_no_hit_is_zero_and_of_all_hits_is_the_root_of_alpha() -> None:
    assert lower_bound(0, 10, 0.05) == 0
    assert lower_bound(10, 10, 0.05) == pytest.approx(0.05**0.1, abs=1e-9)


# ---------------------------------------------------------------- counting
@pytest.mark.parametrize(("n", "batch_size"), [(1, 1000), (49, 50), (1000, 1000), (1234, 64), (130, 7)])
def test_counts_sum_to_n_in_batches_that_are_no_larger(n: int, batch_size: int) -> None:
    smoothed = at(0.1, classes=5)
    counts = smoothed.count(IMAGE, n, generator=seeded(0), batch_size=batch_size)
    assert (len(counts), int(counts.sum()), int(counts[2:].sum())) == (5, n, 0)
    assert isinstance(smoothed.base, Halfspace)
    assert max(smoothed.base.sizes) <= batch_size


def test_counts_are_those_of_noise_of_standard_deviation_sigma() -> None:
    n, p = 40_000, NORMAL.cdf(0.7)
    hits = int(at(0.7 * SIGMA).count(IMAGE, n, generator=seeded(3), batch_size=1000)[1])
    assert abs(hits / n - p) < 4 * (p * (1 - p) / n) ** 0.5


def noisy(n: int, batch_size: int) -> Tensor:
    """The copies that are drawn."""
    recorder = Recorder()
    SmoothedClassifier(recorder, classes=2, sigma=SIGMA).count(IMAGE, n, generator=seeded(1), batch_size=batch_size)
    return torch.cat(recorder.seen)


def test_noise_is_normal_unclamped_and_centred_on_the_image() -> None:
    copies = noisy(20_000, 1000)
    noise = ((copies - IMAGE) / SIGMA).double()
    assert copies.min() < 0
    assert copies.max() > 1
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.pow(2).mean()) == pytest.approx(1, abs=4 * (2 / noise.numel()) ** 0.5)
    assert float(noise.pow(4).mean()) == pytest.approx(3, abs=4 * (96 / noise.numel()) ** 0.5)


def test_no_two_copies_are_alike() -> None:
    assert len({tuple(copy.flatten().tolist()) for copy in noisy(500, 64)}) == 500


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64, 150])
def test_batch_size_does_not_change_the_noise(batch_size: int) -> None:
    assert torch.equal(noisy(230, batch_size), noisy(230, 1000))


def test_small_memory_does_not_change_the_copies() -> None:
    recorder = Recorder(room=13)
    smoothed = SmoothedClassifier(Victim(recorder, classes="ab"), classes=2, sigma=SIGMA)
    assert smoothed.count(IMAGE, 230, generator=seeded(1), batch_size=100).tolist() == [230, 0]
    assert torch.equal(torch.cat(recorder.seen), noisy(230, 100))


class Nan(nn.Module):
    """Class 0 where the first pixel is at least ½, and no number at all elsewhere: the copies are halved by noise."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        known_B = x_BCHW[:, 0, 0, 0] >= 0.5
        return torch.tensor([1.0, 0.0]).where(known_B[:, None], torch.nan)


def test_copies_without_finite_logits_are_of_no_class() -> None:
    smoothed = SmoothedClassifier(Nan(), classes=2, sigma=SIGMA)
    counts = smoothed.count(IMAGE, 2000, generator=seeded(0), batch_size=300)
    assert counts[1] == 0
    assert 900 < counts[0] < 1100
    assert smoothed.certify(IMAGE, n0=50, n=2000, alpha=0.01, generator=seeded(0), batch_size=300) == (ABSTAIN, 0.0)
