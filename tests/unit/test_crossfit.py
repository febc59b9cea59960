"""Thresholds of one model that has no mock targets: nobody judges himself, and the false-positive rate is the one that was aimed at."""

from __future__ import annotations

import numpy as np
import pytest

from memleak.metrics import crossfit
from memleak.metrics.calibration import rates_at_thresholds
from memleak.metrics.intervals import clopper_pearson

N_WORLDS = 300


def achieved(draw, n: int, alpha: float, *, per_group: int = 1, members: int = 0) -> float:
    """The share of non-members accused in one world of normal scores; records of a group have nearly one score."""
    group = np.arange(n + members) // per_group
    scores = draw.normal(size=group.max() + 1)[group] + 0.01 * draw.normal(size=n + members)
    is_member = np.arange(n + members) >= n
    scores[is_member] += 1.0
    cuts, _ = crossfit.cuts(scores, is_member, group, alpha)
    return float((scores > cuts)[~is_member].mean())


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.05), (100, 0.1), (400, 0.01), (400, 0.05)])
def test_the_mean_false_positive_rate_is_at_most_the_one_aimed_at(rng, n, alpha):
    """k = floor(alpha (m + 1)) of m others are beyond, so a fresh one is with probability k / (m + 1): never above alpha, less by 1 / (m + 1) at most."""
    found = np.array([achieved(rng, n, alpha, members=n) for _ in range(N_WORLDS)])
    error = found.std() / np.sqrt(N_WORLDS)

    assert found.mean() <= alpha + 3 * error
    assert found.mean() >= alpha - 1.5 / (0.75 * n) - 3 * error  # the smallest training part has about four fifths


def test_records_of_one_group_do_not_judge_each_other(rng):
    """Twenty groups of ten equal records: a group in both parts would set its own threshold, and never be beyond it."""
    found = np.array([achieved(rng, 200, 0.1, per_group=10) for _ in range(N_WORLDS)])
    error = found.std() / np.sqrt(N_WORLDS)

    assert abs(found.mean() - 0.1) < 3 * error + 0.06  # 16 groups set a threshold: one of them, .06, more or less
    assert found.mean() > 0.03


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_interval_of_the_achieved_rate_holds_the_rate_aimed_at(rng, alpha):
    covered = 0
    for _ in range(N_WORLDS):
        scores, truth = rng.normal(size=400), np.arange(400) < 200
        cuts, _ = crossfit.cuts(scores, truth, np.arange(400), alpha)
        rate = rates_at_thresholds(scores[None], cuts[None], truth[None], alpha)["achieved_fpr"]
        covered += rate["low"] <= alpha <= rate["high"]

    assert clopper_pearson(covered, N_WORLDS, 0.99)[1] >= 0.95


def test_members_set_no_threshold(rng):
    scores, truth = rng.normal(size=300), np.arange(300) < 100
    moved = np.where(truth, scores + 1000 * rng.random(300), scores)

    assert np.array_equal(crossfit.cuts(scores, truth, np.arange(300), 0.05)[0], crossfit.cuts(moved, truth, np.arange(300), 0.05)[0])


def test_no_score_has_a_part_in_its_own_threshold(rng):
    """Move one non-member out of sight: its own threshold stays."""
    scores, truth, group = rng.normal(size=100), np.arange(100) < 50, np.arange(100)
    before, _ = crossfit.cuts(scores, truth, group, 0.1)
    for i in (50, 71, 99):
        moved = scores.copy()
        moved[i] = 100.0
        after, _ = crossfit.cuts(moved, truth, group, 0.1)
        assert after[i] == before[i] and (after != before).any()


def test_a_fold_is_drawn_from_the_group_alone(rng):
    """Whoever else is audited: a record keeps its fold, and records of one group share it."""
    group = rng.integers(0, 500, 2000)
    fold = crossfit.fold_of(group)

    assert np.array_equal(fold[::3], crossfit.fold_of(group[::3]))
    assert len(set(zip(group.tolist(), fold.tolist(), strict=True))) == len(set(group.tolist()))
    assert set(fold.tolist()) == set(range(crossfit.N_FOLDS))
    counts = np.bincount(crossfit.fold_of(np.arange(10_000)))
    assert counts.min() > 1800 and counts.max() < 2200


def test_too_few_others_accuse_nobody():
    scores, truth = np.arange(20.0), np.arange(20) < 5
    cuts, n_fitted = crossfit.cuts(scores, truth, np.arange(20), 0.01)

    assert np.isinf(cuts).all() and 0 < n_fitted < 15


def test_the_fewest_that_set_a_threshold_are_told(rng):
    truth = np.arange(200) < 80
    fold = crossfit.fold_of(np.arange(200))
    expected = min(int((~truth & (fold != k)).sum()) for k in range(crossfit.N_FOLDS))

    assert crossfit.cuts(rng.normal(size=200), truth, np.arange(200), 0.1)[1] == expected


def test_many_ties_accuse_no_more_than_was_aimed_at(rng):
    """Right or wrong, as correctness has it: nobody lies strictly beyond the largest score."""
    scores, truth = (rng.random(400) < 0.9).astype(float), np.arange(400) < 200
    cuts, _ = crossfit.cuts(scores, truth, np.arange(400), 0.05)

    assert not (scores > cuts).any()
