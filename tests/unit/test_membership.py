"""P(member), p-values, flags and the maximum over attacks, in worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import special

from memleak.metrics import membership


def world(n: int, separation: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [n] of two unit Gaussians so far apart, who is a member, and the P(member) that the score truly stands for."""
    draw, truth = np.random.default_rng(seed), np.arange(n) % 2 == 0
    scores = draw.normal(size=n) + separation * truth
    return scores, truth, special.expit(separation * scores - separation**2 / 2)


@pytest.mark.parametrize(("n", "separation", "most"), [(40, 0.0, 0.10), (200, 0.0, 0.03), (40, 2.5, 0.12), (200, 2.5, 0.04), (1000, 2.5, 0.02)])
def test_probabilities_are_near_the_true_ones(n, separation, most):
    worlds = [world(n, separation, seed) for seed in range(12 if n < 1000 else 3)]

    errors = [np.abs(membership.membership(s, truth, seed=i).probability - p).mean() for i, (s, truth, p) in enumerate(worlds)]

    assert np.mean(errors) < most


def test_intervals_hold_the_true_probability():
    worlds = [world(200, 1.5, seed) for seed in range(20)]

    found = [(membership.membership(s, truth, seed=i), p) for i, (s, truth, p) in enumerate(worlds)]

    assert np.mean([((one.low <= p) & (p <= one.high)).mean() for one, p in found]) > 0.9
    assert all((one.low <= one.probability).all() and (one.probability <= one.high).all() for one, _ in found)


def test_a_reversed_score_says_nothing_instead_of_the_opposite():
    scores, truth, _ = world(200, 2.0, 0)

    assert membership.membership(-scores, truth).probability == approx(0.5, abs=1e-9)


def test_a_perfect_separation_stays_short_of_certainty():
    truth = np.arange(40) < 20

    found = membership.membership(truth * 10.0 + np.arange(40) * 1e-3, truth).probability

    assert (found[truth] > 0.85).all() and (found[~truth] < 0.15).all() and found.min() > 0 and found.max() < 1


def test_copies_of_a_text_do_not_tell_about_each_other():
    """20 pairs of copies with the same score, each pair of one side: where copies fall into several folds, noise is learned by heart."""
    draw = np.random.default_rng(0)
    group, truth = np.repeat(np.arange(40), 2), np.repeat(np.arange(40) % 2 == 0, 2)
    scores = np.repeat(draw.normal(size=40), 2)

    found = membership.membership(scores, truth, group)

    assert (found.probability[::2] == found.probability[1::2]).all()


@pytest.mark.parametrize(("n_members", "n_others"), [(1, 1), (1, 5), (3, 2)])
def test_a_few_texts_do_not_crash(n_members, n_others):
    truth = np.arange(n_members + n_others) < n_members

    found = membership.membership(np.arange(len(truth), dtype=float), truth)

    assert ((found.probability > 0) & (found.probability < 1)).all() and (found.low <= found.high).all()


def test_a_text_without_a_score_has_no_probability():
    scores, truth, _ = world(60, 1.0, 0)
    scores[3] = np.nan
    found = membership.membership(scores, truth)

    assert np.isnan(found.probability[3]) and np.isfinite(np.delete(found.probability, 3)).all()


def test_a_prior_moves_the_log_odds_by_its_own():
    scores, truth, _ = world(100, 1.5, 0)
    even = membership.membership(scores, truth)
    rare = even.with_prior(0.01)

    assert special.logit(rare.probability) - special.logit(even.probability) == approx(np.log(0.01 / 0.99))
    assert rare.with_prior(0.5).probability == approx(even.probability)
    with pytest.raises(ValueError, match="prior is 1, expected more than 0 and less than 1"):
        even.with_prior(1)


def test_p_values_are_counted_by_hand():
    scores, truth = np.array([5.0, 2.0, 3.0, 1.0, np.nan]), np.array([True, True, False, False, False])

    assert membership.p_values(scores, truth) == approx([1 / 3, 2 / 3, 1 / 2, 1.0, np.nan], nan_ok=True)


def test_p_values_of_strangers_are_uniform():
    p = np.concatenate([membership.p_values(*world(100, 0.0, seed)[:2]) for seed in range(60)])

    for level in (0.05, 0.1, 0.5):
        assert np.mean(p <= level) < level + 0.015


def test_flags_are_rarely_wrong_and_find_those_known_by_heart():
    """A tenth of the members is known by heart; the others are like strangers."""
    wrong, found = [], []
    for seed in range(40):
        scores, truth, _ = world(400, 0.0, seed)
        known = truth & (np.arange(400) % 20 == 0)
        flagged = membership.flags(membership.p_values(scores + 8 * known, truth), truth)
        wrong.append((flagged & ~known).sum() / max(flagged.sum(), 1))
        found.append(flagged[known].mean())
        assert not flagged[~truth].any()
    assert np.mean(wrong) < 0.08 and np.mean(found) > 0.8


def test_reliability_is_perfect_where_said_is_found_and_bad_where_it_is_not():
    truth = np.arange(1000) % 2 == 0
    believed, boasting = np.full(1000, 0.5), np.where(truth, 0.05, 0.95)

    assert (membership.reliability(believed, truth)["error"], membership.reliability(believed, truth)["brier"]) == (0.0, approx(0.25))
    assert membership.reliability(boasting, truth)["error"] == approx(0.95)


def test_the_best_of_many_attacks_on_noise_is_no_finding():
    found = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        found.append(membership.family_wise(draw.normal(size=(12, 60)), np.arange(60) < 30, seed=seed, n=200))

    assert np.mean([one["p"] <= 0.05 for one in found]) < 0.15
    assert np.mean([one["auc"] for one in found]) > 0.58  # which a plain maximum would call a leak
    assert abs(np.mean([one["excess"] for one in found])) < 0.02


def test_the_null_maximum_is_that_of_the_reference():
    """500 and 500 texts, 12 attacks: .529 on average."""
    found = membership.family_wise(np.random.default_rng(0).normal(size=(12, 1000)), np.arange(1000) < 500, n=300)

    assert found["null_mean"] == approx(0.529, abs=0.005)


def test_one_attack_that_works_is_found_among_many_that_do_not():
    draw, truth = np.random.default_rng(0), np.arange(200) < 100
    scores = draw.normal(size=(12, 200))
    scores[7] += 1.0 * truth
    scores[2, :20] = np.nan
    found = membership.family_wise(scores, truth)

    assert (found["which"], found["n_attacks"]) == (7, 12) and found["p"] < 0.01
