"""The share of a set that was used to train: known shares are found, and what cannot be told is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from memleak.metrics.usage import best_threshold, estimate, share_used

from .test_pooled import halves


def test_the_share_by_hand():
    """Half of the set accused, TPR .8, FPR .2: (.5 - .2) / .6."""
    found = share_used(np.arange(1000) < 500, (800, 1000), (200, 1000))

    assert found.value == approx(0.5) and found.low < 0.5 < found.high and (found.tpr, found.fpr, found.n) == (0.8, 0.2, 1000)


def test_the_interval_shrinks_with_the_set_and_with_the_references():
    width = [share_used(np.arange(n) < n // 2, (8 * k, 10 * k), (2 * k, 10 * k)) for n, k in ((100, 10), (1000, 10), (1000, 1000))]

    assert np.all(np.diff([one.high - one.low for one in width]) < -0.02)


@pytest.mark.parametrize(("k_in", "k_out"), [(300, 300), (300, 310), (310, 300), (200, 400), (0, 0)])
def test_an_attack_that_tells_nothing_is_refused(k_in, k_out):
    found = share_used(np.arange(500) < 200, (k_in, 1000), (k_out, 1000))

    assert found.value is None and (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("n", "share", "tpr", "fpr", "k"),
    [(1000, 0.3, 0.6, 0.3, 1000), (200, 0.0, 0.5, 0.4, 500), (500, 1.0, 0.7, 0.2, 300), (500, 0.5, 0.52, 0.48, 1000), (300, 0.4, 0.3, 0.0, 200)],
)
def test_the_interval_covers_though_tpr_and_fpr_are_estimates(n, share, tpr, fpr, k):
    draw, held, used = np.random.default_rng(0), [], int(n * share)
    for _ in range(400):
        says = np.append(draw.random(used) < tpr, draw.random(n - used) < fpr)
        found = share_used(says, (draw.binomial(k, tpr), k), (draw.binomial(k, fpr), k))
        held.append(found.low <= share <= found.high and 0 <= found.low <= found.high <= 1)

    assert np.mean(held) >= 0.93


def test_the_best_threshold_has_the_largest_advantage():
    draw = np.random.default_rng(0)
    scores, truth = np.append(draw.normal(2, 1, 5000), draw.normal(size=5000)), np.arange(10_000) < 5000

    assert best_threshold(scores, truth) == approx(1.0, abs=0.15)


def world(share, mocks=16, samples=500, seed=0, of_unit=0.1, distance=1.5):
    """A target that used the first `share` of a set, and mocks that used halves of it."""
    scores, truth, unit = halves(mocks + 2, samples, distance, of_unit=of_unit, of_sample=0.5, seed=seed)
    used = np.arange(samples) < share * samples
    return scores[0] - distance * truth[0] + distance * used, scores[2:], truth[2:], unit[2:]


def test_the_estimate_comes_close_to_the_truth():
    for share in (0.0, 0.3, 1.0):
        values = [estimate(*world(share, seed=seed)).value for seed in range(20)]
        assert np.mean(values) == approx(share, abs=0.08)


@pytest.mark.parametrize(("share", "of_unit"), [(0.0, 0.0), (0.3, 0.2), (1.0, 0.2)])
def test_the_estimates_interval_covers_though_models_differ(share, of_unit):
    held, width = [], []
    for seed in range(100):
        found = estimate(*world(share, seed=seed, of_unit=of_unit))
        held.append(found.low <= share <= found.high)
        width.append(found.high - found.low)

    assert np.mean(held) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / 100) and np.mean(width) < 0.8


def test_noise_tells_no_share():
    refused = [estimate(*world(0.5, seed=seed, distance=0.0)).value is None for seed in range(40)]

    assert np.mean(refused) >= 0.9


def test_counts_and_mocks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="tpr is 5 of 4"):
        share_used(np.ones(3), (5, 4), (0, 4))
    with pytest.raises(ValueError, match="the set is empty"):
        share_used(np.ones(0), (1, 4), (0, 4))
    with pytest.raises(ValueError, match="mocks of one unit only"):
        estimate(np.zeros(4), np.zeros((2, 4)), np.eye(2, 4), np.zeros(2))
    with pytest.raises(ValueError, match=r"5 scores, mock scores of shape \(2, 4\)"):
        estimate(np.zeros(5), np.zeros((2, 4)), np.eye(2, 4))
