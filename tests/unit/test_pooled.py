"""Pooled figures over targets: exact values, intervals that know about clusters, and what cannot be certified."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm

from memleak.metrics import clusters, pooled, roc


def halves(targets: int, samples: int, distance: float = 1.0, of_unit: float = 0.0, of_sample: float = 0.0, seed: int = 0):
    """Unit normal scores moved by `distance` where a target holds a sample; a unit and a sample have levels of their own."""
    draw, units = np.random.default_rng(seed), np.arange(targets) // 2
    coin = draw.permuted(np.arange(samples) < samples // 2 + np.zeros((targets // 2 + 1, 1), int), axis=1)
    is_member = coin[units] ^ (np.arange(targets) % 2 == 1)[:, None]
    own = np.sqrt(1 - of_unit**2 - of_sample**2) * draw.normal(size=(targets, samples))
    level = of_unit * draw.normal(size=units.max() + 1)[units][:, None] + of_sample * draw.normal(size=samples)
    return own + level + distance * is_member, is_member, units


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_values_are_those_of_the_scores_in_one_row_whatever_the_ties(decimals):
    scores, truth, unit = halves(6, 200)
    scores = scores.round(decimals)
    found = pooled.measure(scores, truth, unit)

    assert found["auc"]["value"] == approx(roc.auc(scores.ravel(), truth.ravel()), abs=1e-12)
    for rate in found["rates"]:
        expected = roc.tpr_at_fpr(scores.ravel(), truth.ravel(), rate["at_fpr"])
        assert (rate["value"], rate["achieved_fpr"], rate["n_false_positives"]) == (expected.value, expected.achieved_fpr, expected.n_false_positives)
    fpr, tpr, _ = roc.curve(scores.ravel(), truth.ravel())
    assert found["advantage"]["value"] == approx(np.max(tpr - fpr))
    assert found["balanced_accuracy"]["value"] == approx((1 + np.max(tpr - fpr)) / 2)


def test_every_interval_holds_its_value_and_everything_is_json():
    for distance in (0.0, 1.0, 30.0):
        found = pooled.measure(*halves(8, 150, distance))
        for one in (found["auc"], found["advantage"], found["balanced_accuracy"], *found["rates"]):
            assert one["low"] <= one["value"] <= one["high"]
            assert one["low"] < one["high"]
        assert found["advantage"]["is_optimistic"] and found["balanced_accuracy"]["is_optimistic"]
        assert (found["n_targets"], found["n_units"], found["n_samples"]) == (8, 4, 150)
        assert json.loads(json.dumps(found)) == found


def test_scores_that_are_missing_are_left_out():
    scores, truth, unit = halves(4, 300)
    scores[:, 250:], scores[1, :20] = np.nan, np.nan
    there = ~np.isnan(scores)

    found = pooled.measure(scores, truth, unit)

    assert found["auc"]["value"] == approx(roc.auc(scores[there], truth[there]), abs=1e-12)
    assert found["rates"][0]["n_scores"] == (~truth[there]).sum()
    assert found["rates"][0]["n_non_members"] == np.any(~truth & there, axis=0).sum()


def test_one_target_has_the_interval_of_roc():
    scores, truth, _ = halves(1, 400)
    for rate in pooled.measure(scores, truth)["rates"]:
        alone = roc.tpr_at_fpr(scores[0], truth[0], rate["at_fpr"])
        assert (rate["low"], rate["high"]) == approx((alone.low, alone.high))


def test_distinct_samples_certify_an_fpr_and_scores_do_not():
    """32 targets of 250 samples give 4,000 scores of non-members, but only 250 non-members: 3 / .01 = 300 are needed."""
    scores, truth, unit = halves(32, 250)
    found = {rate["at_fpr"]: rate for rate in pooled.measure(scores, truth, unit)["rates"]}

    assert found[0.1]["certified"] and not found[0.01]["certified"] and not found[0.0]["certified"]
    assert (found[0.01]["n_scores"], found[0.01]["n_non_members"]) == (4000, 250)
    scores, truth, unit = halves(8, 300)
    assert [rate["certified"] for rate in pooled.measure(scores, truth, unit, levels=(0.01, 0.0099, 0))["rates"]] == [True, False, False]


def widths(found):
    return np.array([found["auc"]["high"] - found["auc"]["low"], *(rate["high"] - rate["low"] for rate in found["rates"][:2])])


def test_copies_of_a_sample_in_one_group_narrow_no_interval():
    scores, truth, unit = halves(16, 200, of_sample=0.5)
    once = widths(pooled.measure(scores, truth, unit))
    copies = widths(pooled.measure(np.tile(scores, 6), np.tile(truth, 6), unit, np.tile(np.arange(200), 6)))
    naive = widths(pooled.measure(np.tile(scores, 6), np.tile(truth, 6), unit))

    assert (copies > 0.85 * once).all() and naive[2] < 0.85 * copies[2]


def test_more_targets_with_the_same_samples_are_worth_less_than_more_samples():
    alike = widths(pooled.measure(*halves(32, 300, of_sample=0.95)))
    free = widths(pooled.measure(*halves(32, 300)))

    assert (alike[1:] > 1.4 * free[1:]).all()


def test_models_of_different_levels_widen_the_interval():
    assert (widths(pooled.measure(*halves(16, 500, of_unit=0.5))) > 1.5 * widths(pooled.measure(*halves(16, 500)))).all()


def test_the_interval_is_never_narrower_than_that_of_independent_scores():
    for seed in range(5):
        scores, truth, unit = halves(10, 400, seed=seed)
        found = pooled.measure(scores, truth, unit, levels=(0.1,))
        alone = roc.tpr_at_fpr(scores.ravel(), truth.ravel(), 0.1)
        assert found["rates"][0]["high"] - found["rates"][0]["low"] > 0.85 * (alone.high - alone.low)  # both are estimates
        assert widths(found)[0] >= np.ptp(roc.auc_interval(found["auc"]["value"], truth.sum(), (~truth).sum())) - 1e-12


@pytest.mark.parametrize(("of_unit", "of_sample"), [(0.0, 0.0), (0.3, 0.5)])
def test_the_intervals_cover(of_unit, of_sample, monkeypatch):
    monkeypatch.setattr(pooled, "N_DRAWS", (100, 100))
    n, levels = 60, (0.1, 0.01)
    truths = [norm.cdf(1 / np.sqrt(2)), *(norm.sf(norm.isf(f) - 1) for f in levels)]
    held = []
    for seed in range(n):
        found = pooled.measure(*halves(16, 300, 1.0, of_unit, of_sample, seed), levels=levels)
        held.append([one["low"] <= truth <= one["high"] for one, truth in zip((found["auc"], *found["rates"]), truths, strict=True)])

    assert (np.mean(held, axis=0) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / n)).all()


def one_target(samples: int, distance: float, seed: int):
    draw, is_member = np.random.default_rng(seed), (np.arange(2 * samples) < samples)[None]
    return draw.normal(size=is_member.shape) + distance * is_member, is_member


@pytest.mark.parametrize(("distance", "world"), [
    *((distance, lambda seed, d=distance, n=n: one_target(n, d, seed)) for n in (250, 2500) for distance in (0.0, 1.0, 4.0)),
    *((distance, lambda seed, d=distance: halves(16, 300, d, 0.3, 0.5, seed)) for distance in (0.0, 1.0)),
])  # fmt: skip
def test_the_interval_of_the_advantage_covers_though_the_threshold_is_chosen(distance, world):
    """The best threshold lies midway: advantage 2 Phi(d / 2) - 1. On noise an interval at the threshold as given misses 0 in 13-26 %."""
    truth, n, held = 2 * norm.cdf(distance / 2) - 1, 200, []
    for seed in range(n):
        accuracy, advantage = pooled.best_threshold(clusters.pool(*world(seed)))
        held.append(advantage["low"] <= truth <= advantage["high"])
        assert (accuracy["low"], accuracy["high"]) == approx(((1 + advantage["low"]) / 2, (1 + advantage["high"]) / 2))

    assert np.mean(held) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / n)


def test_the_excess_of_the_best_threshold_by_hand():
    """On noise Smirnov's bound; of two values the one threshold as given; of a large leak less than the bound."""
    draw, n = np.random.default_rng(0), 2000
    found, bound = [], np.sqrt(-np.log(0.025) / 2) * np.sqrt(2 / n)
    for distance, decimals in ((0.0, 8), (4.0, 8)):
        scores, truth = one_target(n, distance, 0)
        one = clusters.pool(scores.round(decimals), truth)
        found.append(pooled.excess(one, one.members_above / n - one.others_above / n, 1.0, 0.95))
    truth = (np.arange(2 * n) < n)[None]
    accuracy = pooled.best_threshold(clusters.pool((draw.random((1, 2 * n)) < 0.6 + 0.2 * truth).astype(float), truth))[1]

    assert found[0] == approx(bound, rel=0.01) and 0.2 * bound < found[1] < 0.5 * bound
    assert accuracy["value"] - accuracy["low"] == approx(accuracy["high"] - accuracy["value"])
    assert pooled.excess(one, one.members_above / n - one.others_above / n, 4.0, 0.95) >= 2 * found[1]


def test_the_variance_of_a_mean_by_hand():
    """2 units x 2 groups, influences 1, 1, -1, -1 by unit: units add 2 * 2^2 * 2 / 1, groups nothing, cells 4 * 4 / 3."""
    by_unit, by_group, by_cell = np.array([2.0, -2.0]), np.array([0.0, 0.0]), np.array([1.0, 1.0, -1.0, -1.0])

    assert clusters.sums([by_unit, by_group, by_cell]) == approx([16.0, 0.0, 16 / 3])
    assert clusters.half_width([16.0, 0.0, 16 / 3], 2, 0.95) == approx(12.706 * 4, rel=1e-3)
    assert clusters.half_width([16.0, 4.0, 16 / 3], 1, 0.95, independent=1.0) == approx(1.96 * 2, rel=1e-3)


def test_auc_influences_are_delongs():
    scores, truth, _ = halves(2, 80)
    value, influence = pooled.auc_influence(clusters.pool(scores.round(1), truth))
    s, m = scores.round(1).ravel(), truth.ravel()
    beats = (s[m][:, None] > s[~m]).astype(float) + 0.5 * (s[m][:, None] == s[~m])

    assert value == approx(beats.mean()) and influence.sum() == approx(0, abs=1e-12)
    assert np.sum(influence**2) == approx(beats.mean(axis=1).var() / m.sum() + beats.mean(axis=0).var() / (~m).sum())


@pytest.mark.parametrize("which", [0, 1, 2])
def test_resampling_counts_clusters_as_if_they_were_repeated(which):
    scores, truth, unit = halves(6, 60)
    one = clusters.pool(scores.round(1), truth, unit, np.arange(60) // 3)
    own = one.clusterings[which]
    weights = np.random.default_rng(0).integers(0, 3, len(own.members))
    times = weights[own.code]
    levels = np.array([0.0, 0.01, 0.1, 0.4])

    found = pooled._weighted_tpr(one, own, weights, levels, one.prefix(10))

    expected = [roc.tpr_at_fpr(np.repeat(one.scores, times), np.repeat(one.is_member, times), f).value for f in levels]
    assert found == approx(expected)


@pytest.mark.parametrize("decimals", [0, 8])
def test_the_band_of_the_curve_rises_and_holds_it(decimals, monkeypatch):
    monkeypatch.setattr(pooled, "N_DRAWS", (50, 50))
    scores, truth, unit = halves(8, 150, of_sample=0.5)
    points = pooled.curve_band(scores.round(decimals), truth, unit)

    assert (
        list(points.columns) == ["fpr", "tpr", "low", "high", "certified"] and len(points) == pooled.N_POINTS - 1 + 20
    )  # even on a log scale, on a linear one
    for column in ("fpr", "tpr", "low", "high"):
        assert (np.diff(points[column]) >= 0).all()
    assert ((points["low"] <= points["tpr"]) & (points["tpr"] <= points["high"])).all()
    assert not points["certified"].iloc[0] and points["certified"].iloc[-1]


def test_each_target_has_its_own_figures_and_their_spread():
    scores, truth, _ = halves(4, 200)
    found = pooled.per_target(scores, truth)

    assert [one["auc"]["value"] for one in found["targets"]] == approx([roc.auc(s, t) for s, t in zip(scores, truth, strict=True)])
    assert found["targets"][2]["tpr"] == roc.tpr_at_fpr(scores[2], truth[2], 0.01).as_dict()
    values = [one["auc"]["value"] for one in found["targets"]]
    assert found["spread"]["auc"]["std"] == approx(np.std(values, ddof=1)) and found["spread"]["auc"]["lowest"] == min(values)


def test_a_class_that_leaks_is_seen_and_one_without_members_has_no_figure(monkeypatch):
    monkeypatch.setattr(pooled, "N_DRAWS", (50, 50))
    scores, truth, unit = halves(16, 900, distance=0.0)
    labels = np.arange(900) % 3
    scores[:, labels == 1] += 3 * truth[:, labels == 1]
    truth[:, labels == 2] = False
    found = pooled.per_class(scores, truth, labels, unit)

    assert [one["class"] for one in found] == [0, 1, 2] and [one["n_samples"] for one in found] == [300, 300, 300]
    assert found[1]["auc"]["low"] > 0.9 > 0.6 > found[0]["auc"]["high"] and found[1]["tpr"]["low"] > found[0]["tpr"]["high"]
    assert found[2]["auc"] is None and found[2]["tpr"] is None


def test_what_cannot_be_pooled_is_refused():
    scores, truth, unit = halves(4, 50)
    with pytest.raises(ValueError, match=r"scores of shape \(4, 50\) and truth of shape \(3, 50\)"):
        pooled.measure(scores, truth[:3])
    with pytest.raises(ValueError, match="0 scores of members and 200 of non-members"):
        pooled.measure(scores, np.zeros_like(truth))
    with pytest.raises(ValueError, match=r"unit has shape \(3,\); expected one value for each of 4 targets"):
        pooled.measure(scores, truth, unit[:3])
    with pytest.raises(ValueError, match="expected 0 to 1"):
        pooled.measure(scores, truth, levels=(1.5,))
    with pytest.raises(ValueError, match="labels have shape"):
        pooled.per_class(scores, truth, np.zeros(3))
