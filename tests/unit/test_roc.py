"""ROC, AUC and TPR at low FPR: ties, intervals, and what cannot be certified."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from memleak.metrics import roc
from memleak.metrics.stage import roc_points


def two_gaussians(distance: float, n: int, seed: int = 0):
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.normal(distance, 1, n), draw.normal(size=n)]), np.repeat([True, False], n)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auc_and_curve_are_scikit_learns_with_any_ties(decimals):
    scores, truth = two_gaussians(1.0, 400)
    scores = scores.round(decimals)
    fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)

    assert roc.auc(scores, truth) == approx(roc_auc_score(truth, scores))
    assert [*map(np.asarray, roc.curve(scores, truth))] == [approx(fpr), approx(tpr), approx(thresholds)]


def test_auc_by_hand():
    """Members 3, 1; others 2, 1: pairs 3>2, 3>1, 1<2, 1=1: 2.5 of 4."""
    assert roc.auc(np.array([3, 1, 2, 1]), np.array([1, 1, 0, 0])) == 2.5 / 4
    assert roc.auc(np.ones(7), np.arange(7) < 3) == 0.5


def test_the_curve_goes_from_corner_to_corner_through_every_distinct_threshold():
    fpr, tpr, thresholds = roc.curve(np.array([3, 1, 2, 1]), np.array([True, True, False, False]))

    assert fpr.tolist() == [0, 0, 0.5, 1] and tpr.tolist() == [0, 0.5, 0.5, 1] and thresholds.tolist() == [np.inf, 3, 2, 1]


def test_tpr_at_fpr_is_the_best_point_of_the_curve_that_keeps_it():
    for seed, decimals in ((0, 0), (1, 1), (2, 6)):
        scores, truth = two_gaussians(1.5, 60, seed)
        scores = scores.round(decimals)
        fpr, tpr, _ = roc.curve(scores, truth)
        for level in (0.0, 0.01, 1 / 60, 0.1, 0.3, 1.0):
            rate = roc.tpr_at_fpr(scores, truth, level)
            assert rate.value == tpr[fpr <= level + 1e-12].max()
            assert rate.achieved_fpr <= level + 1e-12
            assert rate.low <= rate.value <= rate.high


def test_a_tied_block_is_taken_whole_or_not_at_all():
    """Ten non-members share the top score with all members: at 5 % nobody can be accused, and at 10 % everybody of the block."""
    scores = np.concatenate([np.ones(50), np.ones(10), np.zeros(90)])
    truth = np.repeat([True, False], [50, 100])

    assert roc.tpr_at_fpr(scores, truth, 0.05).value == 0
    assert roc.tpr_at_fpr(scores, truth, 0.10).value == 1
    assert roc.tpr_at_fpr(scores, truth, 0.05).achieved_fpr == 0


@pytest.mark.parametrize("f", [0.003, 0.01, 0.05, 0.1, 0.3])
def test_three_over_f_non_members_certify_an_fpr_and_fewer_do_not(f):
    least = round(3 / f)
    scores = np.arange(2.0 * least)

    assert roc.tpr_at_fpr(scores, scores < least, f).certified
    assert not roc.tpr_at_fpr(scores[:-1], scores[:-1] < least, f).certified


def test_an_fpr_of_zero_is_never_certified():
    scores, truth = two_gaussians(2, 5000)
    rate = roc.tpr_at_fpr(scores, truth, 0.0)

    assert not rate.certified and rate.low == 0 and rate.n_false_positives == 0


@pytest.mark.parametrize(("n", "f", "n_worlds"), [(500, 0.01, 200), (500, 0.001, 150), (5000, 0.01, 250), (5000, 0.001, 150)])
@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_the_interval_covers_the_tpr_at_the_true_threshold(n, f, n_worlds, distance):
    """At least 93 % (minus four standard errors of the simulation); Clopper-Pearson alone would cover 31 to 49 %."""
    truth = norm.sf(norm.isf(f) - distance)
    found = [roc.tpr_at_fpr(*two_gaussians(distance, n, seed), f) for seed in range(n_worlds)]

    assert np.mean([rate.low <= truth <= rate.high for rate in found]) >= 0.93 - 4 * np.sqrt(0.93 * 0.07 / n_worlds)


@pytest.mark.parametrize("extreme", [np.inf, 1e300])
def test_infinite_scores_are_like_very_large_ones(extreme):
    scores, truth = two_gaussians(1.0, 200)
    scores[:100], scores[200:205] = extreme, extreme  # 100 members, 5 non-members
    finite = np.where(np.isinf(scores), 1e9, scores)

    for level in (0.01, 0.05, 0.2):
        assert roc.tpr_at_fpr(scores, truth, level) == roc.tpr_at_fpr(finite, truth, level)
    assert roc.auc(scores, truth) == roc.auc(finite, truth)


@pytest.mark.parametrize(("n", "distance"), [(8, 0.0), (8, 2.0), (40, 0.5), (40, 3.0)])
def test_the_aucs_interval_covers(n, distance):
    truth = norm.cdf(distance / np.sqrt(2))
    found = [roc.auc_interval(roc.auc(*two_gaussians(distance, n, seed)), n, n) for seed in range(400)]

    assert np.mean([low <= truth <= high for low, high in found]) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 400)


def test_the_aucs_interval_has_width_at_the_ends():
    for value in (0.0, 1.0):
        low, high = roc.auc_interval(value, 16, 16)
        assert low <= value <= high and high - low > 0.05


@pytest.mark.parametrize("decimals", [0, 8])
def test_the_band_of_a_roc_rises_and_holds_the_curve(decimals):
    scores, truth = two_gaussians(1.5, 120)
    points = roc_points("x", scores[truth].round(decimals), scores[~truth].round(decimals))

    for column in ("fpr", "tpr", "low", "high"):
        assert (np.diff(points[column]) >= 0).all()
    assert ((points["low"] <= points["tpr"]) & (points["tpr"] <= points["high"])).all()


def test_the_band_over_rounds_is_wider_where_records_of_a_round_are_alike():
    draw = np.random.default_rng(0)
    inside, outside = draw.normal(1.5, 1, 16), draw.normal(size=16)
    alike = roc_points("x", np.repeat(inside[:, None], 20, axis=1) + 1e-3 * draw.normal(size=(16, 20)), np.repeat(outside[:, None], 20, axis=1))
    independent = roc_points("x", draw.normal(1.5, 1, (16, 20)), draw.normal(size=(16, 20)))

    widths = [np.interp(0.3, points["fpr"], points["high"] - points["low"]) for points in (alike, independent)]
    assert widths[0] > 2 * widths[1]


def test_precision_and_recall_by_hand():
    fpr, tpr, _ = roc.curve(np.array([3, 1, 2, 1]), np.array([True, True, False, False]))

    assert tpr[1:].tolist() == [0.5, 0.5, 1.0]
    assert [roc.precision(t, f) for t, f in zip(tpr[1:], fpr[1:], strict=True)] == approx([1.0, 0.5, 0.5])
    assert np.isnan(roc.precision(tpr[0], fpr[0]))


def test_the_precision_of_a_point_is_that_of_the_fpr_it_achieved():
    """At FPR 1 % five non-members allow no error: who is accused there is accused rightly."""
    points = roc_points("x", np.array([1.0, 5.0, 6.0]), np.arange(5) / 2)

    assert points.loc[points["fpr"] == 0.01, "precision"].item() == 1.0


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([1.0, np.nan], [1, 0], "1 of 2 scores are not a number"),
        ([1.0, 2.0], [1, 1], "2 members and 0 non-members"),
        ([1.0, 2.0], [1, 0, 1], "2 scores and 3 truth values"),
    ],
)
def test_scores_without_a_curve_are_refused(scores, truth, message):
    with pytest.raises(ValueError, match=message):
        roc.curve(np.array(scores), np.array(truth))
    with pytest.raises(ValueError, match="expected 0 to 1"):
        roc.tpr_at_fpr(np.array([1.0, 2.0]), np.array([1, 0]), 1.5)
