"""ROC, AUC and TPR at low FPR: ties, intervals, and what cannot be certified."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from memleak.metrics import roc
from memleak.metrics.intervals import clopper_pearson
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
@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_interval_covers_the_tpr_at_the_true_threshold(n, f, n_worlds, distance):
    """At least 93 % (minus four standard errors of the simulation); Clopper-Pearson alone would cover 31 to 49 %."""
    truth = norm.sf(norm.isf(f) - distance)
    found = [roc.tpr_at_fpr(*two_gaussians(distance, n, seed), f) for seed in range(n_worlds)]

    assert np.mean([rate.low <= truth <= rate.high for rate in found]) >= 0.93 - 4 * np.sqrt(0.93 * 0.07 / n_worlds)


@pytest.mark.parametrize("f", [0.01, 0.001])
def test_the_interval_covers_where_the_scores_are_one_block_at_the_fpr_that_is_asked_for(f):
    """A yes or no: accused are 30 % of members, and of the non-members exactly f. Whether the block may be accused, chance decides."""
    found = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        scores = np.concatenate([draw.random(5000) < 0.3, draw.random(5000) < f]).astype(float)
        found.append(roc.tpr_at_fpr(scores, np.repeat([True, False], 5000), f))

    assert np.mean([rate.low <= 0.3 <= rate.high for rate in found]) >= 0.93 - 4 * np.sqrt(0.93 * 0.07 / 200)


@pytest.mark.parametrize("decimals", [0, 1, 2, 8])
def test_the_interval_of_rounded_scores_holds_that_of_the_exact_ones_nearly(decimals):
    """Rounding takes information: ends may move inwards by the width of a block at most, and never by chance alone."""
    scores, truth = two_gaussians(1.5, 2000)
    exact, rounded = roc.tpr_at_fpr(scores, truth, 0.05), roc.tpr_at_fpr(scores.round(decimals), truth, 0.05)

    assert rounded.low <= exact.low + 0.01 and rounded.low <= rounded.value <= rounded.high
    assert rounded.value <= exact.value + 0.01


def test_the_interval_at_a_fixed_threshold_is_clopper_pearsons():
    """No non-member lies between members' scores, wherever the threshold is: only the members' chance is left."""
    members, others = np.repeat([2.0, -2.0], [60, 140]) + 1e-4 * np.arange(200), np.linspace(-1, 1, 1000)
    rate = roc.tpr_at_fpr(np.concatenate([members, others]), np.repeat([True, False], [200, 1000]), 0.5)

    assert (rate.low, rate.high) == approx(clopper_pearson(60, 200), abs=1e-6)


def test_more_confidence_and_fewer_scores_give_wider_intervals():
    scores, truth = two_gaussians(1.0, 5000)
    rates = [roc.tpr_at_fpr(scores, truth, 0.01, confidence) for confidence in (0.5, 0.9, 0.95, 0.99, 0.9999)]
    fewer = roc.tpr_at_fpr(scores[::10], truth[::10], 0.01)

    assert (np.diff([rate.high for rate in rates]) > 0).all() and (np.diff([rate.low for rate in rates]) < 0).all()
    assert fewer.high - fewer.low > 2 * (rates[2].high - rates[2].low)


def test_twenty_five_thousand_scores_a_side_take_less_than_50_milliseconds():
    scores, truth = two_gaussians(1.0, 25_000)
    seconds = []
    for f in (0.5, 0.1, 0.01, 0.001, 0.0001, 0.0):
        start = time.process_time()
        roc.tpr_at_fpr(scores, truth, f)
        seconds.append(time.process_time() - start)

    assert np.median(seconds) < 0.05 and min(seconds) > 0


def test_a_tied_vector_keeps_the_points_that_scikit_learn_drops():
    """drop_intermediate leaves out points at which the curve does not bend; the best TPR at 20 % FPR then falls from .2 to .1."""
    scores, truth = np.repeat(np.arange(10.0), 20), np.tile([True, False], 100)
    fpr, tpr, _ = roc_curve(truth, scores)

    assert tpr[fpr <= 0.2 + 1e-12].max() == approx(0.1)
    assert roc.tpr_at_fpr(scores, truth, 0.2).value == approx(0.2) and len(roc.curve(scores, truth)[0]) == 11


def test_the_achieved_fpr_of_counts_that_tie_is_reported():
    """A score that counts up to 20: at 1 % nobody may be accused but those above the largest block that fits."""
    draw = np.random.default_rng(0)
    scores, truth = np.concatenate([draw.binomial(20, 0.7, 5000), draw.binomial(20, 0.5, 5000)]).astype(float), np.repeat([True, False], 5000)
    rate = roc.tpr_at_fpr(scores, truth, 0.01)
    cut = next(c for c in range(21) if np.mean(scores[~truth] >= c) <= 0.01)

    assert rate.achieved_fpr == np.mean(scores[~truth] >= cut) < 0.01 and rate.n_false_positives == np.sum(scores[~truth] >= cut)
    assert rate.value == np.mean(scores[truth] >= cut)


def test_scores_of_minus_infinity_are_accused_where_everybody_is():
    scores, truth = np.array([1.0, -np.inf, 0.0, -np.inf]), np.array([True, True, False, False])

    assert roc.tpr_at_fpr(scores, truth, 1.0).value == 1 and roc.tpr_at_fpr(scores, truth, 0.5).value == 0.5


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


UNLIKE = {  # how members' scores are drawn beside non-members' unit normals, and the true AUC
    "as wide": (lambda g, m: g.normal(1, 1, m), norm.cdf(1 / np.sqrt(2))),
    "wide": (lambda g, m: g.normal(0.5, 3, m), norm.cdf(0.5 / np.sqrt(10))),
    "narrow": (lambda g, m: g.normal(1, 0.2, m), norm.cdf(1 / np.sqrt(1.04))),
    "a few far": (lambda g, m: g.normal(size=m) + 6 * (g.random(m) < 0.7), 0.3 * 0.5 + 0.7 * norm.cdf(6 / np.sqrt(2))),
}


@pytest.mark.parametrize(("m", "n", "least"), [(16, 16, 0.90), (100, 100, 0.93), (500, 500, 0.93), (20, 1000, 0.91)])
@pytest.mark.parametrize("world", UNLIKE)
def test_the_aucs_interval_covers_where_members_are_spread_otherwise(world, m, n, least):
    draw_members, truth = UNLIKE[world]
    covers, truths = [], np.repeat([True, False], [m, n])
    for seed in range(250):
        draw = np.random.default_rng(seed)
        found = roc.auc_with_interval(np.concatenate([draw_members(draw, m), draw.normal(size=n)]), truths)
        covers.append(found.low <= truth <= found.high)

    assert np.mean(covers) >= least - 4 * np.sqrt(least * (1 - least) / 250)


def test_the_aucs_interval_is_delongs_where_scores_are_many():
    scores, truth = two_gaussians(1.0, 20_000)
    members, others = scores[truth], scores[~truth]
    variance = (
        np.var([np.mean(others < x) for x in members[:4000]], ddof=1) / 20_000
        + np.var([np.mean(members > x) for x in others[:4000]], ddof=1) / 20_000
    )
    found = roc.auc_with_interval(scores, truth)

    assert (found.value, found.n_members, found.n_non_members) == (roc.auc(scores, truth), 20_000, 20_000)
    assert (found.high - found.low) / (2 * 1.96) == approx(np.sqrt(variance), rel=0.03)


@pytest.mark.parametrize(("members", "others"), [([2.0, 3.0], [0.0, 1.0]), ([0.0, 1.0], [2.0, 3.0])])
def test_a_perfect_or_perfectly_wrong_auc_has_newcombes_interval(members, others):
    found = roc.auc_with_interval(np.array(members * 8 + others * 8), np.repeat([True, False], 16))

    assert (found.low, found.high) == roc.auc_interval(found.value, 16, 16) and found.high - found.low > 0.05


def test_the_aucs_interval_of_one_score_a_side_is_nearly_everything():
    found = roc.auc_with_interval(np.array([1.0, 0.0]), np.array([True, False]))

    assert found.value == 1 and found.low < 0.3 and found.as_dict()["high"] == 1


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


def test_ppv_by_hand():
    """Of 1,000 candidates 10 are members; at TPR 50 % and FPR 1 % five of 14.9 accusations are right."""
    assert roc.ppv(0.5, 0.01, 0.01) == approx(5 / 14.9)
    assert roc.ppv(0.9, 0.1, 0.01) == approx(9 / 108)  # of 1,000 people 10 are members; 9 of them and 99 others are accused
    assert roc.ppv(0.5, 0.01, 0.5) == roc.precision(0.5, 0.01)
    assert [roc.ppv(0.3, 0.3, prior) for prior in (0.0, 0.01, 0.1, 1.0)] == approx([0.0, 0.01, 0.1, 1.0])
    assert np.isnan(roc.ppv(0.0, 0.0, 0.5))
    with pytest.raises(ValueError, match="prior is 10, expected 0 to 1"):
        roc.ppv(0.5, 0.1, 10)


@pytest.mark.parametrize("decimals", [0, 8])
def test_balanced_accuracy_is_the_best_of_all_thresholds_and_says_so(decimals):
    scores, truth = two_gaussians(1.0, 60)
    scores = scores.round(decimals)
    best = roc.balanced_accuracy(scores, truth)

    assert best.value == approx(max(roc.balanced_accuracy_at(scores, truth, t).value for t in [*scores, np.inf]))
    assert best.value == approx(roc.balanced_accuracy_at(scores, truth, best.threshold).value)
    assert best.optimistic and best.low is None and best.high is None
    assert best.advantage == approx(best.tpr - best.fpr) and best.as_dict()["advantage"] == best.advantage
    assert (best.n_members, best.n_non_members) == (60, 60)


def test_on_noise_the_best_threshold_looks_better_than_chance_and_a_fixed_one_does_not():
    best, fixed = [], []
    for seed in range(200):
        scores, truth = two_gaussians(0.0, 1000, seed)
        best.append(roc.balanced_accuracy(scores, truth).value)
        fixed.append(roc.balanced_accuracy_at(scores, truth, 0.3).value)

    assert np.mean(best) == approx(0.5 + 0.44 / np.sqrt(1000), abs=0.002)
    assert np.mean(fixed) == approx(0.5, abs=0.003)


@pytest.mark.parametrize(("n", "distance", "threshold"), [(16, 1.0, 0.5), (16, 4.0, 1.0), (300, 0.0, 2.5), (300, 2.0, 1.0)])
def test_the_interval_of_balanced_accuracy_at_a_fixed_threshold_covers(n, distance, threshold):
    truth = (norm.sf(threshold - distance) + norm.cdf(threshold)) / 2
    found = [roc.balanced_accuracy_at(*two_gaussians(distance, n, seed), threshold) for seed in range(400)]

    assert np.mean([b.low <= truth <= b.high for b in found]) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 400)
    assert all(0 <= b.low <= b.value <= b.high <= 1 and b.high > b.low and not b.optimistic for b in found)


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
