"""What a defence costs: accuracies of targets on samples, their gap, and differences that are paired."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics import utility

from .test_pooled import halves


def answers(targets=8, samples=400, train=0.95, test=0.8, of_unit=0.2, of_sample=0.7, seed=0):
    """Right answers with these probabilities on members and others, in a world where some models are better and some samples harder."""
    ease, truth, unit = halves(targets, samples, 0.0, of_unit, of_sample, seed)
    return ease < stats.norm.ppf(np.where(truth, train, test)), truth, unit


def test_accuracies_are_shares_of_right_answers_and_the_gap_their_difference():
    right, truth, unit = answers()
    found = utility.accuracies(right, truth, unit)

    assert found["utility"]["value"] == approx(right[~truth].mean()) and found["train_accuracy"]["value"] == approx(right[truth].mean())
    assert found["gap"]["value"] == approx(right[truth].mean() - right[~truth].mean())
    for one in found.values():
        assert -1 <= one["low"] < one["value"] < one["high"] <= 1


def test_independent_answers_of_one_target_have_the_interval_of_two_proportions():
    right, truth, _ = answers(targets=1, samples=3000, of_unit=0, of_sample=0)
    right, truth = right[:1], truth[:1]
    gap = utility.accuracies(right, truth)["gap"]
    error = np.sqrt(sum(right[side].var() / side.sum() for side in (truth, ~truth)))

    assert gap["high"] - gap["low"] == approx(2 * 1.96 * error, rel=0.01)


def test_the_gap_of_samples_that_are_alike_in_all_models_is_narrower_than_its_parts_tell():
    """Complementary halves: an easy sample helps one model as a member and the other as none."""
    found = utility.accuracies(*answers(targets=16, of_unit=0.0, of_sample=0.9, train=0.85))
    parts = np.hypot(*(found[name]["high"] - found[name]["low"] for name in ("utility", "train_accuracy")))

    assert found["gap"]["high"] - found["gap"]["low"] < 0.7 * parts


def test_models_that_know_all_their_members_still_have_an_interval_on_both_sides():
    right, truth, unit = answers()
    found = utility.accuracies(right | truth, truth, unit)
    perfect = utility.accuracies(np.ones_like(truth), truth, unit)

    assert found["train_accuracy"]["low"] < 1 == found["train_accuracy"]["high"]
    assert perfect["gap"]["low"] < 0 == perfect["gap"]["value"] < perfect["gap"]["high"]


def test_a_variant_does_not_differ_from_itself():
    right, truth, unit = answers()

    assert utility.difference(right, right, truth, unit, same_models=True) == {"difference": 0, "low": 0, "high": 0, "p": 1}
    retrained = utility.difference(right, right, truth, unit)  # other models that happened to be right alike show no more than that
    assert retrained["p"] == 1 and retrained["low"] < 0 < retrained["high"]


def test_independent_pairs_have_the_interval_and_test_of_mcnemar():
    right, truth, _ = answers(targets=1, samples=4000, of_unit=0, of_sample=0)
    other, _, _ = answers(targets=1, samples=4000, test=0.75, of_unit=0, of_sample=0, seed=1)
    found = utility.difference(other[:1], right[:1], truth[:1])
    d = (other[:1].astype(int) - right[:1])[~truth[:1]]
    error = d.std(ddof=1) / np.sqrt(len(d))

    assert found["difference"] == approx(d.mean())
    assert found["high"] - found["low"] == approx(2 * 1.96 * error, rel=0.01)
    assert found["p"] == approx(2 * stats.norm.sf(abs(d.mean()) / error), rel=0.05)


def test_a_small_loss_is_seen_in_pairs_that_no_two_intervals_show():
    right, truth, unit = answers(targets=16)
    worse = right & (np.random.default_rng(3).random(right.shape) > 0.02)
    found = utility.difference(worse, right, truth, unit)
    alone = [utility.accuracies(one, truth, unit)["utility"] for one in (worse, right)]

    assert found["p"] < 0.001 and found["high"] < 0 and found["difference"] == approx(-0.016, abs=0.006)
    assert alone[0]["high"] > alone[1]["value"]


def test_what_members_are_told_has_no_part_in_the_price():
    right, truth, unit = answers()
    other = np.where(truth, ~right, right)

    assert utility.difference(other, right, truth, unit, same_models=True)["p"] == 1


def test_few_answers_that_differ_are_no_proof():
    """Two of 200 non-members more are wrong: exactly, p is .5."""
    right, truth = np.ones((1, 400), dtype=bool), (np.arange(400) < 200)[None]
    worse = right.copy()
    worse[0, 200:202] = False

    assert utility.difference(worse, right, truth)["p"] > 0.1


def test_order_and_names_of_targets_and_samples_do_not_matter():
    right, truth, unit = answers()
    other, _, _ = answers(test=0.7, seed=1)
    rows, columns = np.random.default_rng(0).permutation(8), np.random.default_rng(1).permutation(400)
    before, after = utility.difference(other, right, truth, unit), utility.difference(
        *(x[rows][:, columns] for x in (other, right, truth)), 10 - unit[rows]
    )  # fmt: skip

    assert after == approx(before)


def test_answers_about_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"answers of shapes \(2, 3\) and \(2, 4\)"):
        utility.difference(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3)))


def test_accuracies_that_training_noted_spread_over_models_and_records():
    test, unit = np.array([0.8, 0.82, 0.78, 0.84]), np.arange(4)
    found = utility.of_models(np.ones(4), test, 500, 1000, unit)
    between = stats.t.ppf(0.975, 3) * test.std(ddof=1) / 2
    records = 1.96 * np.sqrt(0.81 * 0.19 / 1000)

    assert found["utility"]["value"] == approx(0.81)
    assert found["utility"]["high"] - 0.81 == approx(np.hypot(between, records), rel=0.01)
    assert found["train_accuracy"] == approx({"value": 1, "low": 0.025 ** (1 / 500), "high": 1})
    assert found["gap"]["value"] == approx(0.19) and found["gap"]["low"] < 0.19 < found["gap"]["high"]


def test_one_model_has_the_interval_of_its_records_and_no_test():
    found = utility.of_models(np.array([1.0]), np.array([0.8]), 500, 1000, np.zeros(1))
    exact = stats.binomtest(800, 1000).proportion_ci()

    assert (found["utility"]["low"], found["utility"]["high"]) == approx((exact.low, exact.high))
    assert utility.difference_of_models(np.array([0.7]), np.array([0.8]), np.zeros(1)) == {
        "difference": approx(-0.1),
        "low": None,
        "high": None,
        "p": None,
    }


def test_noted_accuracies_are_compared_model_by_model():
    first, second = np.array([0.7, 0.74, 0.72, 0.71, 0.7]), np.array([0.8, 0.85, 0.81, 0.82, 0.79])
    found = utility.difference_of_models(first, second, np.arange(5))
    expected = stats.ttest_rel(first, second)

    assert found["p"] == approx(expected.pvalue)
    assert (found["low"], found["high"]) == approx(tuple(expected.confidence_interval()))


def test_models_of_one_round_are_one_observation():
    first, second = np.array([0.7, 0.9, 0.72, 0.74]), np.array([0.8, 0.8, 0.8, 0.8])
    found = utility.difference_of_models(first, second, np.array(["a", "a", "b", "b"]))

    assert found["p"] == approx(stats.ttest_1samp([0.0, -0.07], 0).pvalue)
