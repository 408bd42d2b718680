"""Intervals and tests against scipy, closed forms, published examples, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, t, ttest_1samp

from advss.reports.statistics import (
    CROSSED,
    MCNEMAR,
    differ,
    holm,
    mcnemar,
    mean_sd,
    over_both,
    over_images,
    student,
    tango,
    wilson,
)


def answers(only: int, other: int, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two rows' answers, of which ``only`` and ``other`` are right of one alone."""
    one, two = np.zeros(count, bool), np.zeros(count, bool)
    one[:only], two[only : only + other] = True, True
    return one, two


def test_mean_and_deviation() -> None:
    mean, sd = mean_sd([0.1, 0.2, 0.6])
    assert (mean, sd) == pytest.approx((0.3, math.sqrt(0.07)))
    assert mean_sd([0.5]) == (0.5, None)


def test_students_interval_is_scipys() -> None:
    values = [0.51, 0.49, 0.53, 0.5]
    assert student(values) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval(0.95)))
    assert student([0.5]) is None


@pytest.mark.parametrize(("right", "of"), [(0, 50), (1, 7), (25, 50), (50, 50), (4722, 10000)])
def test_wilsons_interval_is_scipys(right: int, of: int) -> None:
    found = binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right / of, of) == pytest.approx((found.low, found.high), abs=1e-12)


def test_over_images_of_one_seed_is_wilsons() -> None:
    assert over_images(np.arange(40) < 13) == pytest.approx(wilson(13 / 40, 40))


def test_over_images_of_alike_seeds_is_that_of_one() -> None:
    right_N = np.arange(40) < 13
    assert over_images(np.stack([right_N] * 3)) == pytest.approx(wilson(13 / 40, 40))


def test_over_images_counts_half_right_images_as_less_uncertain() -> None:
    """Each image right of one seed of two: half with no variance but that of other images, which is none."""
    right_SN = np.stack([np.arange(40) % 2 == 0, np.arange(40) % 2 == 1])
    low, high = over_images(np.vstack([right_SN, right_SN[:1]]))  # shares 2/3 and 1/3: variance 1/36, not 1/4
    assert (low, high) == pytest.approx(wilson(0.5, 40 * 9))


@pytest.mark.parametrize(("only", "other"), [(5, 0), (9, 2), (3, 3), (0, 6)])
def test_mcnemar_is_the_exact_binomial_test(only: int, other: int) -> None:
    found = mcnemar(*answers(only, other, 60))
    assert found.p == pytest.approx(binomtest(only, only + other, 0.5).pvalue)
    assert (found.difference, found.only, found.test) == ((only - other) / 60, (only, other), MCNEMAR)


def test_rows_are_told_apart_just_where_p_says_so() -> None:
    for only in range(13):
        for other in range(13 - only):
            found = mcnemar(*answers(only, other, 12))
            assert found.told_apart == (found.p <= 0.05)
            assert found.interval[0] <= found.difference <= found.interval[1]


def test_tangos_interval_is_the_published_one() -> None:
    """Of the airway data in Fagerland, Lydersen and Laake (2014): 1 and 7 of 21, -0.517 to -0.026."""
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tangos_interval_of_no_difference_is_a_closed_form() -> None:
    z2 = 1.959963984540054**2
    assert tango(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))


def test_over_both_without_variance_between_images_is_a_t_test_over_seeds() -> None:
    """Each seed's difference lies on images of its own, alike in number: what is left is the seeds'."""
    right_SN = np.zeros((3, 60), bool)
    right_SN[0, :6], right_SN[1, 20:32], right_SN[2, 40:49] = True, True, True
    found = over_both(right_SN, np.zeros((3, 60), bool))
    of_seeds = [6 / 60, 12 / 60, 9 / 60]
    assert found.p == pytest.approx(ttest_1samp(of_seeds, 0).pvalue)
    assert found.interval == pytest.approx(tuple(ttest_1samp(of_seeds, 0).confidence_interval(0.95)))


def test_over_both_is_the_formula_of_hillis() -> None:
    """By mean squares of tests x readers x cases, written as in the literature."""
    generator = np.random.default_rng(0)
    y = (generator.random((2, 4, 90)) < generator.random((1, 1, 90)) * np.array([0.9, 0.6])[:, None, None]) * 1.0
    readers, cases = 4, 90
    m = y.mean()
    tr = y.mean(2) - y.mean((1, 2))[:, None] - y.mean((0, 2))[None] + m
    tc = y.mean(1) - y.mean((1, 2))[:, None] - y.mean((0, 1))[None] + m
    ms_tr = cases * (tr**2).sum() / (readers - 1)
    ms_tc = readers * (tc**2).sum() / (cases - 1)
    trc = y - y.mean(2)[..., None] - y.mean(1)[:, None] - y.mean(0)[None]
    trc += y.mean((1, 2))[:, None, None] + y.mean((0, 2))[None, :, None] + y.mean((0, 1))[None, None] - m
    ms_trc = (trc**2).sum() / ((readers - 1) * (cases - 1))
    whole = max(ms_tr + max(0.0, ms_tc - ms_trc), ms_tc)  # no variance of seeds is below 0
    error = math.sqrt(2 / (readers * cases) * whole)
    freedom = whole**2 / (ms_tr**2 / (readers - 1))
    d = y[0].mean() - y[1].mean()
    reach = t.ppf(0.975, freedom) * error
    found = over_both(y[0].astype(bool), y[1].astype(bool))
    assert found.interval == pytest.approx((d - reach, d + reach))
    assert found.p == pytest.approx(2 * t.sf(abs(d) / error, freedom))


def test_seeds_that_happen_to_be_alike_do_not_make_it_sure() -> None:
    """One image of 100 more in each of three seeds, never the same: the interval is that over images, with 0 in it."""
    right_SN, other_SN = np.zeros((3, 100), bool), np.zeros((3, 100), bool)
    for seed in range(3):
        right_SN[seed, 10 * seed : 10 * seed + 4] = True
        other_SN[seed, 50 + 10 * seed : 53 + 10 * seed] = True
    d_N = (right_SN * 1.0 - other_SN).mean(0)
    reach = 1.959964 * d_N.std(ddof=1) / 10
    found = over_both(right_SN, other_SN)
    assert found.interval == pytest.approx((0.01 - reach, 0.01 + reach), rel=1e-6)
    assert not found.told_apart


def test_over_both_holds_the_true_difference_as_often_as_it_says() -> None:
    """300 pairs of rows, 3 seeds and 200 images each, seeds and images drawn: 95 % of the intervals, 92 at least."""
    generator, held = np.random.default_rng(1), 0
    for _ in range(300):
        image_N, seed_RS = generator.normal(0, 1, (2, 200)), generator.normal(0, 0.3, (2, 3))
        logit_RSN = image_N[:, None] * 0.5 + image_N[:1, None] + seed_RS[..., None]
        right_RSN = generator.random((2, 3, 200)) < 1 / (1 + np.exp(-logit_RSN))
        low, high = over_both(*right_RSN).interval  # both rows are drawn alike: the true difference is 0
        held += low <= 0 <= high
    assert 0.92 * 300 <= held < 300


def test_seeds_decide_what_is_tested() -> None:
    one, other = answers(9, 2, 60)
    assert differ(one, other).test == MCNEMAR
    assert differ(np.stack([one, one]), np.stack([other, other])).test == CROSSED


def test_rows_without_difference_are_not_told_apart() -> None:
    right_SN = np.ones((2, 30), bool)
    assert not differ(right_SN, right_SN).told_apart
    assert differ(right_SN, right_SN).p == 1


def test_holm_is_its_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_other_seeds_or_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 3\) and \(1, 4\)"):
        differ(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="no values"):
        mean_sd([])
    with pytest.raises(ValueError, match="share 1"):
        wilson(1.5, 10)
