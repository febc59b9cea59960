"""Exposure of single samples: exact counts and intervals, and winners of noise that are not flagged."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics.exposure import benjamini_hochberg, beta_of_rates, exposure, p_of_beta, p_of_mixture
from memleak.metrics.intervals import clopper_pearson

from .test_pooled import halves


def test_counts_and_interval_by_hand():
    is_member = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    says = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    found = exposure(says, is_member, np.arange(4) // 2)

    assert found[["n_holding", "n_detected", "n_others", "n_false_alarms"]].to_numpy().tolist() == [[2, 2, 2, 0], [2, 1, 2, 0], [0, 0, 4, 1]]
    assert (found["low"][0], found["high"][0]) == clopper_pearson(2, 2) and found["rate"][1] == 0.5
    assert np.isnan(found["rate"][2]) and found["p"][2] == 1 and not found["bh"][2]


def test_samples_without_a_leak_are_rarely_flagged_though_the_luckiest_has_a_high_rate():
    flagged, luckiest, draw = 0, [], np.random.default_rng(0)
    for seed in range(100):
        _, is_member, unit = halves(16, 400, seed=seed)
        found = exposure(draw.random(is_member.shape) < 0.01, is_member, unit)
        flagged += found["bh"].any()
        luckiest.append(found["rate"].max())

    assert flagged <= 5 + 4 * np.sqrt(5) and np.mean(luckiest) > 0.2


def test_samples_that_are_accused_whether_held_or_not_are_not_exposed():
    """One in fifty has a rate of false alarms of .6, .01 on average over all: a binomial test against that would flag all of them."""
    draw, wrong, binomial = np.random.default_rng(0), 0, 0
    for seed in range(50):
        _, is_member, unit = halves(32, 500, seed=seed)
        own = np.where(np.arange(500) < 10, 0.5, 0.0)
        found = exposure(draw.random(is_member.shape) < own, is_member, unit)
        wrong += found["bh"].any()
        p = stats.binom.sf(found["n_detected"] - 1, found["n_holding"], 0.01)
        binomial += benjamini_hochberg(p, 0.05).any()

    assert wrong <= 8 and binomial == 50


def always_high(targets: int, leak: float, seed: int):
    """Noise, but 8 of 1,000 samples are high under every model; the last 30 leak. Decisions at a FPR of 1 %, membership, unit."""
    _, is_member, unit = halves(targets, 1000, seed=seed)
    scores = np.random.default_rng(seed).normal(size=is_member.shape) + 20 * (np.arange(1000) < 8) + leak * is_member * (np.arange(1000) >= 970)
    return scores > np.quantile(scores[~is_member], 0.99), is_member, unit


@pytest.mark.parametrize("targets", [16, 32, 64])
def test_a_few_samples_that_are_always_high_get_none_flagged(targets):
    """No Beta distribution has 0.8 % of its mass at 1 and the rest at .2 %: by it alone nearly all worlds of 64 targets have a false flag."""
    worlds = [always_high(targets, 0.0, seed) for seed in range(30)]
    wrong = [exposure(*world)["bh"].any() for world in worlds]
    by_beta = [_by_beta(*world).any() for world in worlds]

    assert sum(wrong) <= 4 and (targets < 64 or sum(by_beta) > 20)


def _by_beta(says, is_member, unit):
    counts = (says & is_member).sum(0), is_member.sum(0), (says & ~is_member).sum(0), (~is_member).sum(0)
    return benjamini_hochberg(np.where(counts[0] > 0, p_of_beta(*counts, 0.01), 1), 0.05)


@pytest.mark.parametrize("targets", [16, 64])
def test_beside_samples_that_are_always_high_those_that_leak_are_flagged_and_few_others(targets):
    leaks, found, wrong, by_beta = np.arange(1000) >= 970, [], [], []
    for seed in range(20):
        world = always_high(targets, 6.0, seed)
        flagged, of_beta = exposure(*world)["bh"].to_numpy(), _by_beta(*world)
        found.append(flagged[leaks].mean())
        wrong.append(flagged[~leaks].sum() / flagged.sum())
        by_beta.append(of_beta[~leaks].sum() / of_beta.sum())

    assert np.mean(found) > 0.98 and np.mean(wrong) < 0.05 and np.mean(by_beta) > 0.2


def test_where_all_samples_have_one_rate_the_mixture_gives_the_binomial_p():
    n_others = np.full(20_000, 100)
    n_false = np.random.default_rng(0).binomial(n_others, 0.05)
    n_detected = np.arange(20_000) % 12
    p = p_of_mixture(n_detected, n_others, n_false, n_others)

    assert p == approx(stats.binom.sf(n_detected - 1, 100, 0.05), abs=0.12)


def test_the_mixture_finds_two_rates():
    """1 % of the samples have the rate .9, the others .01: three alarms of eight are of the second kind, eight of the first."""
    draw = np.random.default_rng(0)
    rate = np.where(np.arange(50_000) < 500, 0.9, 0.01)
    n_false, eight = draw.binomial(8, rate), np.full(50_000, 8)
    n_false[-2:] = 0, 8
    p = p_of_mixture(np.full(50_000, 3), eight, n_false, eight)

    # a spread around .01 fits eight trials as well as .01 itself: the p-value errs to the safe side
    assert stats.binom.sf(2, 8, 0.01) < p[-2] < 6 * stats.binom.sf(2, 8, 0.01) and p[-1] == approx(1, abs=0.01)


def test_samples_that_no_target_left_out_get_the_spread_of_all():
    n_others = np.append(np.full(5000, 20), 0)
    n_false = np.append(np.random.default_rng(0).binomial(20, 0.1, 5000), 0)
    p = p_of_mixture(np.full(5001, 4), np.full(5001, 10), n_false, n_others)

    assert p[-1] == approx(stats.binom.sf(3, 10, 0.1), rel=0.3)


def test_exposed_samples_are_flagged():
    draw = np.random.default_rng(0)
    _, is_member, unit = halves(16, 400)
    leaks = np.arange(400) < 20
    found = exposure(draw.random(is_member.shape) < np.where(is_member & leaks, 0.8, 0.01), is_member, unit)

    assert found["bh"][leaks].all() and found["bh"][~leaks].mean() < 0.02


def test_the_beta_distribution_of_rates_is_found():
    draw = np.random.default_rng(0)
    k = draw.binomial(16, draw.beta(0.5, 20, 40_000))

    assert beta_of_rates(k, np.full(40_000, 16)) == approx((0.5, 20), rel=0.1)
    a, b = beta_of_rates(draw.binomial(16, 0.02, 4000), np.full(4000, 16), at_least=0.05)
    assert a / (a + b) == approx(0.05)


def test_benjamini_hochberg_by_hand():
    """Sorted .001, .02, .03, .9 against .0125, .025, .0375, .05."""
    assert benjamini_hochberg(np.array([0.9, 0.03, 0.001, 0.02]), 0.05).tolist() == [False, True, True, True]
    assert not benjamini_hochberg(np.array([0.06, 0.9]), 0.05).any()
    assert benjamini_hochberg(np.array([0.0, 0.04]), 0.05, np.array([False, True])).tolist() == [False, True]


def test_targets_without_a_score_do_not_count():
    is_member, has_score = np.ones((3, 2), bool), np.array([[1, 1], [1, 0], [0, 0]], bool)

    assert exposure(is_member, is_member, has_score=has_score)["n_holding"].tolist() == [2, 1]


def test_targets_of_a_unit_that_hold_the_same_sample_are_refused():
    with pytest.raises(ValueError, match="unit 7: sample 1 is held by several targets"):
        exposure(np.zeros((2, 2)), np.array([[0, 1], [1, 1]]), np.array([7, 7]))
    with pytest.raises(ValueError, match="one shape is expected"):
        exposure(np.zeros((2, 2)), np.zeros((2, 3)))
