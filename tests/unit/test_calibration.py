"""Thresholds from other models, the null that must see nothing, and agreement between attacks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pytest import approx
from scipy import stats
from scipy.stats import norm

from memleak.metrics import calibration
from memleak.metrics.calibration import agreement, null, rates_at_thresholds, rates_of_decisions, threshold

from .test_pooled import halves


def test_the_threshold_by_hand():
    """19 scores at 5 %: k = floor(.05 * 20) = 1, the largest; 18 say nothing about 5 %; 39 allow one to lie beyond."""
    assert threshold(np.arange(19), 0.05) == 18
    assert threshold(np.arange(18), 0.05) == np.inf
    assert threshold(np.arange(39.0), 0.05) == 37
    assert threshold(np.append(np.arange(19.0), np.nan), 0.05) == 18
    assert threshold(np.array([]), 0.5) == np.inf and threshold(np.arange(5), 0) == np.inf


@pytest.mark.parametrize(("n", "fpr"), [(20, 0.05), (30, 0.1), (99, 0.01)])
def test_a_fresh_non_member_lies_strictly_beyond_the_threshold_at_most_that_often(n, fpr):
    draw = np.random.default_rng(0)
    beyond = [norm.sf(threshold(draw.normal(size=n), fpr)) for _ in range(3000)]

    assert np.mean(beyond) <= fpr + 4 * np.std(beyond) / np.sqrt(3000)


def test_ties_at_the_threshold_accuse_nobody():
    assert not (np.ones(50) > threshold(np.ones(100), 0.1)).any()


def cuts_of(scores, truth, unit, fpr, units_a_fold=4):
    """The threshold that the other units of its fold set for each target."""
    cuts = []
    for one, fold in zip(unit, unit // units_a_fold, strict=True):
        mocks = (unit // units_a_fold == fold) & (unit != one)
        cuts.append(threshold(scores[mocks][~truth[mocks]], fpr))
    return np.array(cuts)


def test_rates_at_thresholds_by_counting():
    scores, truth, unit = halves(16, 300)
    cuts = cuts_of(scores, truth, unit, 0.05)
    says, found = scores > cuts[:, None], rates_at_thresholds(scores, cuts, truth, 0.05, unit)

    assert found["achieved_fpr"]["value"] == approx(says[~truth].mean()) and found["tpr"]["value"] == approx(says[truth].mean())
    assert found["n_false_positives"] == (says & ~truth).sum()
    assert [one["prior"] for one in found["ppv"]] == [0.01, 0.1, 0.5]
    for one in (found["achieved_fpr"], found["tpr"], *found["ppv"]):
        assert one["low"] <= one["value"] <= one["high"]
    assert json.loads(json.dumps(found)) == found


def test_mocks_unlike_the_targets_show_in_the_achieved_rate():
    scores, truth, unit = halves(16, 500)
    found = rates_of_decisions(scores + 1 > threshold(scores[~truth], 0.05), truth, unit)

    assert found["achieved_fpr"]["low"] > 0.05


@pytest.mark.parametrize(("of_unit", "of_sample", "fpr"), [(0.0, 0.0, 0.1), (0.3, 0.5, 0.1), (0.3, 0.5, 0.01), (0.0, 0.7, 0.1), (0.0, 0.7, 0.01)])
def test_rates_at_thresholds_of_mock_targets_cover(of_unit, of_sample, fpr):
    """Within a fold all thresholds come from the same few units, and from the very samples that are judged."""
    truths, held = (fpr, norm.sf(norm.isf(fpr) - 1)), []
    for seed in range(100):
        scores, truth, unit = halves(32, 200, of_unit=of_unit, of_sample=of_sample, seed=seed)
        found = rates_at_thresholds(scores, cuts_of(scores, truth, unit, fpr), truth, fpr, unit)
        held.append([found[name]["low"] <= value <= found[name]["high"] for name, value in zip(("achieved_fpr", "tpr"), truths, strict=True)])

    assert (np.mean(held, axis=0) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / 100)).all()


def test_rates_of_decisions_have_the_interval_of_what_they_are_worth():
    scores, truth, unit = halves(16, 300, of_sample=0.9)
    found = rates_of_decisions(scores > 1.3, truth, unit)
    free_scores, free_truth, _ = halves(16, 300)
    free = rates_of_decisions(free_scores > 1.3, free_truth, unit)

    assert found["tpr"]["value"] == (scores[truth] > 1.3).mean() and found["n_false_positives"] == (scores[~truth] > 1.3).sum()
    assert found["tpr"]["high"] - found["tpr"]["low"] > 1.5 * (free["tpr"]["high"] - free["tpr"]["low"])
    nobody = rates_of_decisions(np.zeros_like(truth), truth, unit)
    assert nobody["achieved_fpr"]["low"] == 0 and nobody["achieved_fpr"]["high"] >= 3 / 300 and nobody["ppv"][0]["value"] is None


def test_rates_of_decisions_cover():
    held, truths = [], (0.1, norm.sf(norm.isf(0.1) - 1))
    for seed in range(100):
        scores, truth, unit = halves(16, 200, of_unit=0.3, of_sample=0.5, seed=seed)
        found = rates_of_decisions(scores > norm.isf(0.1), truth, unit)
        held.append([found[name]["low"] <= value <= found[name]["high"] for name, value in zip(("achieved_fpr", "tpr"), truths, strict=True)])

    assert (np.mean(held, axis=0) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / 100)).all()


def test_the_nulls_z_is_that_of_mann_whitney_with_ties():
    scores, truth, _ = halves(1, 60)
    scores = scores.round(0)
    found = null(scores, truth)["targets"][0]
    expected = stats.mannwhitneyu(scores[0][truth[0]], scores[0][~truth[0]], use_continuity=False, method="asymptotic")

    assert found["p"] == approx(expected.pvalue) and found["auc"] == approx(expected.statistic / (truth.sum() * (~truth).sum()))


def test_the_null_holds_its_level_where_groups_are_drawn_together():
    """Groups of eight with nearly equal scores: without groups the p-values would be far too small."""
    draw, group = np.random.default_rng(0), np.repeat(np.arange(50), 8)
    p, naive = [], []
    for _ in range(400):
        scores = draw.normal(size=50)[group] + 0.01 * draw.normal(size=400)
        truth = draw.permutation(np.arange(50) < 25)[group]
        p.append(null(scores, truth, group=group)["p"])
        naive.append(null(scores, truth)["p"])

    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 4 * np.sqrt(0.05 / 400) < np.mean(np.array(naive) <= 0.05)


def test_the_null_does_not_alarm_in_a_thousand_clean_worlds():
    draw, p = np.random.default_rng(0), []
    for _ in range(1000):
        scores = draw.normal(size=(4, 1)) + draw.normal(size=120) + 0.3 * draw.normal(size=(4, 120))  # targets share samples
        coin = draw.permuted(np.tile(np.arange(120) < 60, (2, 1)), axis=1)
        p.append(null(scores, np.concatenate([coin, ~coin]), np.array([0, 1, 0, 1]))["p"])

    assert np.sum(np.array(p) < calibration.ALARM) <= 5
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 4 * np.sqrt(0.05 / 1000)


def counts_of_in_references(leaves_out_complement: bool):
    """A "score" that is only the number of IN references, and the row of the model each target's null is judged against.

    Target 2k's null looks at the membership of model 2k + 2. That model is no reference of it; its complement must not
    be one either, since all other pairs add one IN to every sample.
    """
    _, is_member, unit = halves(8, 300, seed=3)
    scores, rows = [], []
    for target in range(0, 8, 2):
        other = (target + 2) % 8
        left_out = np.isin(unit, [unit[target]]) | (np.arange(8) == other)
        if leaves_out_complement:
            left_out |= unit == unit[other]
        scores.append(is_member[~left_out].sum(axis=0).astype(float))
        rows.append(is_member[other])
    return np.array(scores), np.array(rows)


def test_the_null_sees_a_leak_of_the_count_of_in_references():
    leaking = null(*counts_of_in_references(leaves_out_complement=False))
    sound = null(*counts_of_in_references(leaves_out_complement=True))

    assert leaking["alarm"] and leaking["p"] < 1e-30 and leaking["auc"] == approx(0.0)
    assert not sound["alarm"] and sound["p"] == 1.0 and sound["auc"] == 0.5


def test_the_null_is_corrected_for_the_number_of_targets():
    scores, truth, _ = halves(20, 100, distance=0.0)
    found = null(scores, truth)

    assert found["p"] == approx(min(1.0, 20 * min(one["p"] for one in found["targets"])))


def test_a_null_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="0 of 5 scored samples are members"):
        null(np.arange(5.0), np.zeros(5))
    with pytest.raises(ValueError, match="samples of one group differ"):
        null(np.arange(4.0), [1, 0, 1, 0], group=np.array([0, 0, 1, 2]))
    with pytest.raises(ValueError, match=r"scores of shape \(1, 4\) and membership of shape \(1, 5\)"):
        null(np.arange(4.0), np.zeros(5))


def test_agreement_by_hand():
    scores = np.random.default_rng(0).normal(size=(4, 300))
    same, opposite = agreement(scores, 3 * scores + 1), agreement(scores, -scores)
    tied = agreement(scores, np.ones_like(scores))

    assert same["spearman"]["value"] == approx(1) and same["jaccard"] == {"value": 1, "low": 1, "high": 1}
    assert opposite["spearman"]["value"] == approx(-1) and opposite["jaccard"]["value"] == 0
    assert tied["spearman"]["value"] == 0 and tied["jaccard"]["value"] == approx(3 / 300)
    rough = agreement(scores, (scores + np.random.default_rng(1).normal(size=scores.shape)).round(1), np.array([0, 0, 1, 1]))
    expected = [
        stats.spearmanr(a, b).statistic for a, b in zip(scores, (scores + np.random.default_rng(1).normal(size=scores.shape)).round(1), strict=True)
    ]
    assert (
        rough["spearman"]["value"] == approx(np.mean(expected)) and rough["spearman"]["low"] < rough["spearman"]["value"] < rough["spearman"]["high"]
    )
    assert agreement(scores[:1], scores[:1])["jaccard"]["low"] is None
