"""The auditor's combination of attacks: honest on noise, better than its parts where they add up."""

from __future__ import annotations

import numpy as np
import pytest

from memleak.metrics import combined, roc


def noise(n: int, n_attacks: int, separation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw, truth = np.random.default_rng(seed), np.arange(n) % 2 == 0
    return draw.normal(size=(n_attacks, n)) + separation * truth, truth


@pytest.mark.parametrize("n", [40, 200])
def test_twenty_scores_of_pure_noise_give_no_auc(n):
    found = [roc.auc(combined.combine(*noise(n, 20, 0.0, seed), seed=seed), np.arange(n) % 2 == 0) for seed in range(12)]

    assert abs(np.mean(found) - 0.5) < 0.05  # in-sample it is .88 of 50 texts


def test_the_interval_holds_one_half_on_noise():
    held = []
    for seed in range(25):
        scores, truth = noise(60, 12, 0.0, seed)
        auc = combined.auc(combined.combine(scores, truth, seed=seed), truth)
        held.append(auc["low"] <= 0.5 <= auc["high"])

    assert np.mean(held) >= 0.9


def test_weak_attacks_add_up():
    scores, truth = noise(400, 12, 0.4, 0)
    alone = [roc.auc(one, truth) for one in scores]

    assert roc.auc(combined.combine(scores, truth), truth) > max(alone) + 0.08


def test_a_missing_score_and_an_attack_without_any_do_not_matter():
    scores, truth = noise(100, 4, 1.0, 0)
    scores[1, ::3] = np.nan
    scores[3] = np.nan
    found = combined.combine(scores, truth)

    assert np.isfinite(found).all() and roc.auc(found, truth) > 0.75


def test_too_few_texts_are_not_combined():
    scores, truth = noise(18, 4, 1.0, 0)

    assert np.isnan(combined.combine(scores, truth)).all()


def test_copies_are_judged_by_others():
    """Noise in which every text stands four times: only a fold that divides copies could learn anything."""
    draw = np.random.default_rng(0)
    group, truth = np.repeat(np.arange(60), 4), np.repeat(np.arange(60) % 2 == 0, 4)
    scores = np.repeat(draw.normal(size=(30, 60)), 4, axis=1)

    assert abs(roc.auc(combined.combine(scores, truth, group), truth) - 0.5) < 0.2
    assert roc.auc(combined.combine(scores, truth), truth) > 0.8  # what it would be
