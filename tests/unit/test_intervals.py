"""Intervals of proportions and corrections for many tests, against hand values and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics.intervals import clopper_pearson, clustered_proportion, holm, level_p, models_for_level, proportion


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 16), (3, 16), (16, 16), (50, 1000), (7, 25_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.9995])
def test_clopper_pearson_is_scipys(k, n, confidence):
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="exact")

    assert clopper_pearson(k, n, confidence) == approx((expected.low, expected.high))


def test_clopper_pearson_by_hand():
    """None of n: the upper end u has (1 - u)^n = 0.025."""
    assert clopper_pearson(0, 16) == approx((0.0, 1 - 0.025 ** (1 / 16)))
    assert clopper_pearson(16, 16) == approx((0.025 ** (1 / 16), 1.0))


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_counts_that_cannot_be_are_refused(k, n):
    with pytest.raises(ValueError, match="expected 0 <= k <= n and n >= 1"):
        clopper_pearson(k, n)


def test_a_proportion_is_never_without_width():
    for outcomes in (np.ones(5, bool), np.zeros(5, bool)):
        found = proportion(outcomes)
        assert found.low < found.high and found.low <= found.value <= found.high


CLUSTERS = {
    "independent": (lambda g, n, t: g.random((n, t)) < 0.3, 0.3),
    "all alike": (lambda g, n, t: np.repeat(g.random((n, 1)) < 0.3, t, axis=1), 0.3),
    "half alike": (lambda g, n, t: g.random((n, t)) < g.beta(0.3, 0.7, (n, 1)), 0.3),
    "rare, all alike": (lambda g, n, t: np.repeat(g.random((n, 1)) < 0.05, t, axis=1), 0.05),
    "exactly one each": (lambda g, n, t: np.arange(t)[None] == g.integers(0, t, (n, 1)), None),
}


@pytest.mark.parametrize("world", CLUSTERS)
@pytest.mark.parametrize(("n", "t"), [(8, 6), (40, 3)])
def test_the_clustered_interval_covers_however_members_depend(world, n, t):
    sample, truth = CLUSTERS[world]
    draw = np.random.default_rng(0)
    found = [clustered_proportion(sample(draw, n, t)) for _ in range(500)]
    truth = 1 / t if truth is None else truth

    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.95 - 0.02


def test_one_cluster_member_gives_the_plain_interval():
    outcomes = np.array([True, False, False, True, False])

    assert clustered_proportion(outcomes[:, None]).as_dict() == approx(proportion(outcomes).as_dict())


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04; none may be below an earlier one."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == approx([1.0, 1.0])
    assert holm([0.02]) == approx([0.02])


def test_holm_keeps_the_error_of_all_tests_together():
    draw = np.random.default_rng(0)
    wrong = [holm(draw.random(20)).min() <= 0.05 for _ in range(4000)]

    assert np.mean(wrong) <= 0.05 + 0.014


def test_fifty_nine_models_promise_five_percent():
    """.95^59 < .05 < .95^58."""
    assert models_for_level(0.05) == 59
    assert models_for_level(0.1) == 29
    assert models_for_level(0.5, 0.75) == 2


def test_the_levels_p_value_is_beta_binomial():
    assert level_p(3, 16, 24, 0.05) == approx(stats.betabinom(16, 1.25, 23.75).sf(2))
    assert level_p(0, 16, 24, 0.05) == approx(1.0)


@pytest.mark.parametrize("level", [0.001, 0.01, 0.05])
def test_a_rule_that_keeps_alpha_over_fits_is_rarely_called_broken(level):
    """Order statistic of 19: the rate of one fit is Beta(1, 19); a binomial test would call 7 % of them broken at 1 %."""
    draw = np.random.default_rng(0)
    counts = (draw.normal(size=(4000, 16)) > draw.normal(size=(4000, 19)).max(axis=1)[:, None]).sum(axis=1)
    p = np.array([level_p(k, 16, 19, 0.05) for k in range(17)])[counts]

    assert np.mean(p <= level) <= level + 4 * np.sqrt(level / 4000)
    assert level_p(16, 16, 19, 0.05) < 1e-6
