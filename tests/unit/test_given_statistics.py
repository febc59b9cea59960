"""The figures of one given model: no rate where no threshold can be set, ties that hide nothing, a verdict that knows both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pytest import approx

from memleak.attacks.pools import Models
from memleak.metrics import crossfit, pooled
from memleak.metrics.audited import Audited
from memleak.params import attack_options
from memleak.report.verdict import verdict


def audited(truth: np.ndarray, group: np.ndarray | None = None) -> Audited:
    """One given model and its records."""
    models = Models(np.array(["mine"]), np.array([-1]), np.array([True]), truth[None], is_given=True)
    return Audited(models, pd.DataFrame({"group_id": np.arange(len(truth)) if group is None else group}))


def columns(scores: np.ndarray) -> dict[str, np.ndarray]:
    """What a score table of one given model holds: no mock target has a score."""
    return {
        "score": scores[None],
        "folded": np.full((1, len(scores)), np.nan),
        "odd": np.full((1, len(scores)), np.nan),
        "even": np.full((1, len(scores)), np.nan),
    }


def sides(n_members: int, n_others: int) -> np.ndarray:
    return np.repeat([True, False], [n_members, n_others])


def judged(scores: np.ndarray, truth: np.ndarray, alpha: float = 0.01):
    """The verdict on one model by these scores."""
    attack = {"name": "threshold", "alpha": alpha, "options": attack_options({"name": "threshold"}).model_dump()}
    facts = {"n_references": 0, "n_references_of_mocks": 0, "n_queries": 1.0}
    found = audited(truth).attack(columns(scores), attack, facts, is_headline=True)
    return verdict({
        "kind": "given", "headline": "a", "alpha": alpha, "attacks": {"a": found}, "epsilon": None, "design": {}, "thresholds_from": "other non-members",
        "models": {"train_accuracy": None, "test_accuracy": None, "chance": 0.1, "mixed": []}, "controls": {"null": None, "count": None},
    })  # fmt: skip


@pytest.mark.parametrize("n_others", [15, 60, 90, 110])
def test_a_perfect_leak_is_not_low_because_non_members_are_few(n_others):
    """At 1 % of 110 non-members no threshold can be set; to accuse nobody says nothing about the model."""
    truth = sides(2000, n_others)
    found = judged(np.where(truth, 5.0, 0.0) + 0.1 * np.random.default_rng(0).normal(size=len(truth)), truth)

    assert found.state == "UNDECIDED" and found.risk is None
    assert f"with {n_others} non-members" in found.sentence and "150 or more" in found.sentence


def test_as_many_non_members_as_the_verdict_asks_for_set_a_threshold():
    truth = sides(400, 150)
    found = judged(np.where(truth, 5.0, 0.0) + 0.1 * np.random.default_rng(0).normal(size=len(truth)), truth)

    assert found.state == "HIGH" and found.risk > 90


def test_a_false_positive_rate_without_a_threshold_has_no_rates():
    truth = sides(100, 90)
    scores = columns(np.random.default_rng(0).normal(size=190))

    assert audited(truth).calibrated(scores, 0.01) is None
    assert audited(truth).calibrated(scores, 0.1)["achieved_fpr"]["value"] == approx(0.1, abs=0.07)


def test_a_leak_is_seen_among_equal_scores():
    """A model that is sure of 80 % of its members and of 5 % of the others: a threshold strictly above that score accuses nobody."""
    truth, draw = sides(2000, 2000), np.random.default_rng(0)
    scores = np.where(draw.random(4000) < np.where(truth, 0.8, 0.05), 1.0, draw.random(4000))
    found = audited(truth).calibrated(columns(scores), 0.01)

    assert found["achieved_fpr"]["value"] == approx(0.01, abs=0.006)
    assert found["tpr"]["value"] == approx(0.8 * 0.01 / 0.05, abs=0.05)  # a fifth of those who share the score
    assert judged(scores, truth).state != "LOW" and judged(scores, truth).low > 3


@pytest.mark.parametrize("fpr", [0.02, 0.1])
def test_thresholds_keep_their_rate_on_average_where_scores_tie(fpr):
    truth, draw, rates = sides(50, 250), np.random.default_rng(1), []
    for world in range(200):
        scores = draw.integers(0, 3, 300).astype(float)
        found = audited(truth, world * 1000 + np.arange(300)).calibrated(columns(scores), fpr)
        rates.append(found["achieved_fpr"]["value"])
    error = np.std(rates) / np.sqrt(len(rates))

    assert fpr * 0.75 <= np.mean(rates) <= fpr + 3 * error  # k of n + 1 is rounded down, so a little below


def test_scores_keep_their_order_and_a_coin_orders_equal_ones():
    scores, group = np.array([2.0, 1.0, 1.0, np.nan, 3.0, 1.0]), np.array([7, 1, 1, 2, 3, 4])
    places = crossfit.places(scores, group)

    assert np.isnan(places[3]) and places[4] == np.nanmax(places) and places[0] == np.nanmax(places) - 1
    assert places[1] == places[2] != places[5]  # twins stay together
    order = np.array([5, 3, 0, 4, 2, 1])
    assert np.array_equal(crossfit.places(scores[order], group[order]), places[order], equal_nan=True)


def test_scores_without_ties_are_judged_as_they_stand():
    truth, scores = sides(200, 300), np.random.default_rng(2).normal(size=500)
    group = np.arange(500)
    cuts, n_fitted = crossfit.cuts(scores, truth, group, 0.05)
    one = audited(truth).judged(0, columns(scores), 0.05)

    assert np.array_equal(one.placed > one.cuts, scores > cuts) and one.n_fitted == n_fitted
    assert np.array_equal(one.scores, scores)


def test_a_score_that_everybody_shares_is_no_leak():
    truth = sides(3000, 3000)
    found = judged(np.ones(6000), truth)

    assert found.state == "LOW" and found.risk < 1


def test_a_verdict_needs_somebody_beyond_the_thresholds():
    """Mock targets set thresholds without a coin: where the highest score is shared nobody is accused, whatever the AUC."""
    nobody = {"value": 0.0, "low": 0.0, "high": 0.001}
    found = verdict({
        "kind": "halves", "headline": "a", "alpha": 0.01, "epsilon": None, "design": {}, "controls": {"null": None, "count": None},
        "models": {"train_accuracy": None, "test_accuracy": None, "chance": 0.1, "mixed": []},
        "attacks": {"a": {"n_references": 0, "auc": {"value": 0.9, "low": 0.89, "high": 0.91}, "advantage": {"value": 0.8, "low": 0.7, "high": 0.9}, "rates": [{"n_non_members": 5000}],
                          "calibrated": [{"at_fpr": 0.01, "tpr": nobody, "achieved_fpr": nobody}]}},
    })  # fmt: skip

    assert found.state == "UNDECIDED" and "tie" in found.sentence


def test_correctness_is_graded_by_both_rates_whatever_the_threshold():
    truth = sides(2000, 2000)
    attack = {"name": "threshold", "alpha": 0.01, "options": attack_options({"name": "threshold", "signal": "correctness"}).model_dump()}
    right = (np.random.default_rng(0).random(4000) < np.where(truth, 1.0, 0.7)).astype(float)
    found = audited(truth).attack(columns(right), attack, {"n_references": 0, "n_references_of_mocks": 0, "n_queries": 1.0}, is_headline=True)

    assert found["natural"]["is_only"] and found["natural"]["tpr"]["value"] == 1.0
    assert found["natural"]["achieved_fpr"]["low"] < 0.7 < found["natural"]["achieved_fpr"]["high"]


def test_an_interval_of_units_is_wider_than_one_that_takes_records_for_independent():
    draw, n_units = np.random.default_rng(3), 60
    code = np.repeat(np.arange(2 * n_units), draw.integers(1, 30, 2 * n_units))
    truth, scores = code < n_units, draw.normal(size=2 * n_units)[code] + 0.5 * draw.normal(size=len(code))
    by_record, by_unit = (pooled.auc(pooled.pool(scores, truth, group=group)) for group in (np.arange(len(code)), code))

    assert by_unit["high"] - by_unit["low"] > 1.5 * (by_record["high"] - by_record["low"])
