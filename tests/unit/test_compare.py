"""Which attack is better: DeLong's test, the paired bootstrap over clusters, and Holm over attacks."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy.stats import norm

from memleak.metrics import compare, pooled, roc
from memleak.metrics.compare import against_headline, delong, paired_bootstrap

from .test_pooled import halves


def two_attacks(targets=8, samples=300, a=1.0, b=1.0, alike=0.8, seed=0, **levels):
    """Scores of two attacks with correlated noise, a and b apart."""
    first, truth, unit = halves(targets, samples, 0.0, seed=seed, **levels)
    second, _, _ = halves(targets, samples, 0.0, seed=seed + 10_000, **levels)
    return first + a * truth, alike * first + np.sqrt(1 - alike**2) * second + b * truth, truth, unit


def test_attacks_that_are_resampled_together_have_the_numbers_of_each_pair_alone(monkeypatch):
    a, b, truth, unit = two_attacks(4, 60)
    gaps = np.where(np.arange(60) < 5, np.nan, a)
    scores = {"a": a, "b": b, "mean": a + b, "gaps": gaps}
    found = against_headline(scores, "b", truth, unit)
    monkeypatch.setattr(compare, "AT_ONCE", 1)

    assert found == against_headline(scores, "b", truth, unit)
    for name in ("a", "mean", "gaps"):
        alone = paired_bootstrap(scores[name], b, truth, unit)
        for measure in ("auc", "tpr"):
            assert {key: value for key, value in found[name][measure].items() if key != "p_holm"} == alone[measure]


def test_delong_is_the_slow_formula_ties_included():
    a, b, truth, _ = two_attacks(1, 60, 1.0, 0.5)
    a, b, truth = a[0].round(1), b[0].round(0), truth[0]
    found = delong(a, b, truth)
    above = [(s[truth][:, None] > s[~truth]) + 0.5 * (s[truth][:, None] == s[~truth]) for s in (a, b)]
    difference = above[0] - above[1]
    error = np.sqrt(difference.mean(axis=1).var(ddof=1) / truth.sum() + difference.mean(axis=0).var(ddof=1) / (~truth).sum())

    assert found["difference"] == approx(roc.auc(a, truth) - roc.auc(b, truth))
    assert found["high"] - found["low"] == approx(2 * norm.isf(0.025) * error)
    assert found["p"] == approx(2 * norm.sf(abs(found["difference"]) / error))


def test_an_attack_does_not_differ_from_itself_or_from_a_rising_function_of_itself():
    a, _, truth, unit = two_attacks()
    assert delong(a[0], np.exp(a[0]), truth[0]) == approx({"auc_a": roc.auc(a[0], truth[0]), "auc_b": roc.auc(a[0], truth[0]), "difference": 0, "low": 0, "high": 0, "p": 1})  # fmt: skip
    found = paired_bootstrap(a, np.exp(a), truth, unit)
    assert found["auc"]["p"] == found["tpr"]["p"] == 1 and found["tpr"]["difference"] == 0


def test_delongs_p_is_uniform_under_the_null():
    p = np.array([delong(*(x[0] for x in two_attacks(1, 200, seed=seed)[:3]))["p"] for seed in range(500)])

    assert np.mean(p <= 0.05) == approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 500))


@pytest.mark.parametrize(("of_unit", "of_sample", "b"), [(0.0, 0.0, 1.0), (0.3, 0.5, 1.0), (0.3, 0.5, 1.4)])
def test_paired_intervals_cover(of_unit, of_sample, b, monkeypatch):
    monkeypatch.setattr(pooled, "N_DRAWS", (80, 80))
    truths = (norm.cdf(1 / np.sqrt(2)) - norm.cdf(b / np.sqrt(2)), norm.sf(norm.isf(0.05) - 1) - norm.sf(norm.isf(0.05) - b))
    held = []
    for seed in range(60):
        found = paired_bootstrap(*two_attacks(b=b, seed=seed, of_unit=of_unit, of_sample=of_sample), fpr=0.05)
        held.append([found[name]["low"] <= truth <= found[name]["high"] for name, truth in zip(("auc", "tpr"), truths, strict=True)])

    assert (np.mean(held, axis=0) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / 60)).all()


def test_pairing_tells_apart_what_separate_intervals_do_not():
    a, b, truth, unit = two_attacks(16, 300, 1.0, 1.15, alike=0.98, of_sample=0.6)
    found = paired_bootstrap(a, b, truth, unit)
    alone = [pooled.measure(s, truth, unit)["auc"] for s in (a, b)]

    assert found["auc"]["p"] < 1e-6 and found["auc"]["high"] < 0
    assert found["auc"]["high"] - found["auc"]["low"] < 0.6 * min(one["high"] - one["low"] for one in alone)


def test_swapping_the_attacks_turns_the_difference_round():
    a, b, truth, unit = two_attacks(b=1.3)
    there, back = paired_bootstrap(a, b, truth, unit), paired_bootstrap(b, a, truth, unit)

    for name in ("auc", "tpr"):
        assert there[name]["difference"] == approx(-back[name]["difference"]) and there[name]["low"] == approx(-back[name]["high"])


def test_scores_that_one_attack_lacks_count_for_neither():
    a, b, truth, unit = two_attacks()
    a[:, :50], b[:, 250:] = np.nan, np.nan
    found, expected = paired_bootstrap(a, b, truth, unit), paired_bootstrap(a[:, 50:250], b[:, 50:250], truth[:, 50:250], unit)

    assert found["auc"] == approx(expected["auc"]) and found["tpr"]["difference"] == approx(expected["tpr"]["difference"])


def test_holm_over_attacks_against_the_headline():
    a, b, truth, unit = two_attacks(b=1.5)
    c = two_attacks(seed=5)[1] * 0 + a + 0.5 * np.random.default_rng(0).normal(size=a.shape)
    found = against_headline({"lira": a, "rmia": b, "loss": c}, "lira", truth, unit)

    assert set(found) == {"rmia", "loss"} and found["rmia"]["auc"]["difference"] > 0 > found["loss"]["auc"]["difference"]
    p = sorted((one["auc"]["p"], one["auc"]["p_holm"]) for one in found.values())
    assert p[0][1] == approx(min(1, 2 * p[0][0])) and p[1][1] == approx(max(p[0][1], p[1][0]))
    with pytest.raises(ValueError, match="headline base has no scores; there are lira, loss, rmia"):
        against_headline({"lira": a, "rmia": b, "loss": c}, "base", truth)
    assert against_headline({"lira": a}, "lira", truth) == {}


def test_attacks_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="3 and 2 scores, 3 truth values"):
        delong(np.arange(3), np.arange(2), [1, 0, 1])
    with pytest.raises(ValueError, match="1 members and 2 non-members; two or more"):
        delong(np.arange(3.0), np.arange(3.0), [1, 0, 0])
    with pytest.raises(ValueError, match="not a number"):
        delong([np.nan, 1.0, 2, 3], np.arange(4.0), [1, 0, 0, 1])
    with pytest.raises(ValueError, match="same targets and samples"):
        paired_bootstrap(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3)))
