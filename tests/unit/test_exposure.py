"""Exposure of single samples: exact counts and intervals, and winners of noise that are not flagged."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics.exposure import benjamini_hochberg, beta_of_rates, exposure
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
