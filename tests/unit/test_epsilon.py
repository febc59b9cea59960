"""Lower bounds of epsilon: golden values, closed forms, exact error rates, and searches that are paid for."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from memleak.metrics import epsilon
from memleak.metrics.epsilon import Counts, audit_one_run, audit_pairs, one_run_lower_bound, pairs_lower_bound


def coins(n: int, seed: int):
    draw = np.random.default_rng(seed)
    return draw, draw.random(n) < 0.5


def randomised_response(true_epsilon: float, n: int, seed: int):
    """Every canary's membership is told truly with chance e^epsilon / (1 + e^epsilon): one bit a canary, so all scores tie."""
    draw, is_member = coins(n, seed)
    told_truly = draw.random(n) < 1 / (1 + np.exp(-true_epsilon))
    return np.where(told_truly, is_member, ~is_member).astype(float), is_member


def slow_p_value(e, n_canaries, n_guesses, n_correct, delta):
    """Theorem 5.2 word for word: i runs over all canaries, P(W >= v - i) is one where v - i is not above zero."""
    w = stats.binom(n_guesses, 1 / (1 + np.exp(-e)))
    reached = w.sf(n_correct - 1)
    return reached + 2 * n_canaries * delta * max((w.sf(n_correct - i - 1) - reached) / i for i in range(1, n_canaries + 1))


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "golden"),
    [
        (1000, 132, 86, 0, 0.3122), (1000, 132, 86, 1e-5, 0.3103), (1000, 200, 150, 0, 0.8214), (1000, 200, 150, 1e-5, 0.8200),
        (100, 100, 100, 0, 3.4930), (1000, 100, 100, 1e-5, 3.4654), (1000, 1000, 500, 0, 0.0),
    ],
)  # fmt: skip
def test_the_one_run_bound_has_the_published_values(m, r, v, delta, golden):
    assert round(one_run_lower_bound(m, r, v, delta), 4) == golden


@pytest.mark.parametrize("r", [5, 6, 100, 5000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_all_guesses_right_have_a_closed_form(r, confidence):
    """P(all r right) = q^r = p, so epsilon is the log-odds of p^(1/r)."""
    q = (1 - confidence) ** (1 / r)

    assert one_run_lower_bound(r, r, r, 0, confidence) == approx(max(0, np.log(q / (1 - q))))


@pytest.mark.parametrize(("m", "r", "v"), [(40, 40, 33), (60, 30, 26), (60, 30, 30), (200, 25, 25), (30, 30, 14)])
@pytest.mark.parametrize("delta", [0, 1e-4, 1e-3, 0.02])
def test_at_the_one_run_bound_a_slow_oracle_has_the_p_value(m, r, v, delta):
    """5 % at the bound; where it is 0, already more than that at epsilon 0."""
    bound = one_run_lower_bound(m, r, v, delta)

    if bound > 0:
        assert slow_p_value(bound, m, r, v, delta) == approx(0.05, abs=1e-6)
    else:
        assert slow_p_value(0.0, m, r, v, delta) >= 0.05


@pytest.mark.parametrize(("m", "r", "v"), [(1000, 132, 86), (100, 100, 100), (60, 30, 26), (50, 40, 22)])
def test_a_larger_epsilon_is_never_refuted_where_a_smaller_one_is_not(m, r, v):
    for delta in (0, 1e-5, 1e-3):
        p_value = epsilon._one_run_p_value(m, r, v, delta)
        p = np.array([p_value(e) for e in np.linspace(0, 6, 200)])
        refuted = p <= 0.05

        assert (np.diff(refuted.astype(int)) <= 0).all() and p[-1] > 0.05


def test_the_one_run_bound_moves_with_its_counts_as_it_must():
    by_correct = one_run_lower_bound(1000, 200, np.arange(201), 1e-5)
    by_guesses = one_run_lower_bound(1000, np.arange(150, 1001, 50), 150, 1e-5)
    by_canaries = one_run_lower_bound(np.array([200, 1000, 10_000, 100_000]), 200, 180, 1e-4)
    by_delta = [one_run_lower_bound(1000, 200, 180, delta) for delta in (0, 1e-8, 1e-5, 1e-3, 0.1)]
    by_confidence = [one_run_lower_bound(1000, 200, 180, 1e-5, confidence) for confidence in (0.5, 0.9, 0.95, 0.999)]

    assert (np.diff(by_correct) >= 0).all() and by_correct[-1] > 3
    for falling in (by_guesses, by_canaries, by_delta, by_confidence):
        assert (np.diff(falling) <= 0).all() and falling[0] > falling[-1]


@pytest.mark.parametrize("delta", [0, 1e-5])
def test_no_more_than_half_of_the_guesses_right_is_no_evidence(delta):
    for r in (0, 1, 2, 10, 501, 100_000):
        assert one_run_lower_bound(100_000, r, r // 2, delta) == 0.0


def test_counts_in_arrays_give_the_bounds_one_by_one():
    correct = np.array([[60, 80], [90, 100]])

    bounds = one_run_lower_bound(1000, 100, correct, 1e-5)

    assert bounds.shape == (2, 2)
    assert bounds.ravel().tolist() == [one_run_lower_bound(1000, 100, v, 1e-5) for v in (60, 80, 90, 100)]
    assert isinstance(one_run_lower_bound(1000, 100, 90, 1e-5), float)


def test_a_hundred_thousand_canaries_take_no_time():
    start = time.process_time()
    bounds = [one_run_lower_bound(100_000, 100_000, v, 1e-7) for v in (50_500, 70_000, 99_999, 100_000)]

    assert (np.diff(bounds) > 0).all() and bounds[-1] == approx(-np.log(-np.log(0.05) / 1e5), abs=0.1)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("m", "r", "v"), [(10, 11, 5), (10, 5, 6), (10, 5, -1), (10, -1, -1), (10, 5, 2.5)]
)  # fmt: skip
def test_impossible_counts_are_refused(m, r, v):
    with pytest.raises(ValueError, match="expected whole numbers, 0 <= correct <= guesses <= canaries"):
        one_run_lower_bound(m, r, v, 0)


@pytest.mark.parametrize(
    ("delta", "confidence", "message"), [(1, 0.95, "delta is 1"), (-1e-9, 0.95, "delta is"), (0, 1, "confidence is 1"), (0, 0, "confidence is 0")]
)
def test_a_level_that_is_none_is_refused(delta, confidence, message):
    for bound in (lambda *level: one_run_lower_bound(10, 5, 5, *level), lambda *level: pairs_lower_bound(5, 5, 0, 5, *level)):
        with pytest.raises(ValueError, match=message):
            bound(delta, confidence)


@pytest.mark.parametrize("true_epsilon", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 0.002])
@pytest.mark.parametrize("r", [20, 500])
def test_the_one_run_bound_is_exceeded_by_the_truth_of_randomised_response_in_95_percent(true_epsilon, delta, r):
    """Exact, no simulation: W right answers are binomial, delta of the answers being betrayed outright."""
    right = delta + (1 - delta) / (1 + np.exp(-true_epsilon))
    bounds = one_run_lower_bound(r, r, np.arange(r + 1), delta)

    assert stats.binom.pmf(np.arange(r + 1), r, right)[bounds > true_epsilon].sum() <= 0.05 + 1e-12


@pytest.mark.parametrize("strategy", ["split", "bonferroni"])
@pytest.mark.parametrize("decimals", [0, 8])
def test_on_the_null_epsilon_is_zero_after_the_search(strategy, decimals):
    """Scores that know nothing, heavily tied or not: at most 5 % of worlds, plus four standard errors of 300 worlds."""
    found = []
    for seed in range(300):
        draw, is_member = coins(400, seed)
        found.append(audit_one_run(draw.normal(size=400).round(decimals), is_member, delta=1e-5, strategy=strategy).epsilon)

    assert np.mean(np.array(found) > 0) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


def test_a_search_that_is_not_paid_for_finds_leaks_in_noise():
    """The trap that the strategies are there for: the best of many numbers of guesses, at the confidence of one."""
    found = []
    for seed in range(200):
        draw, is_member = coins(400, seed)
        pairs = epsilon._pairs_to_try(400, "split", None)
        correct = epsilon._correct(draw.normal(size=400), is_member, pairs)
        found.append((epsilon._log_odds_bound(pairs.sum(axis=1), correct, 0.05) > 0).any())

    assert np.mean(found) > 0.2


@pytest.mark.parametrize("strategy", ["split", "bonferroni"])
@pytest.mark.parametrize("true_epsilon", [0.5, 1.5, 4.0])
def test_the_one_run_audit_stays_below_the_truth_and_comes_near_it(strategy, true_epsilon):
    found = [audit_one_run(*randomised_response(true_epsilon, 2000, seed), delta=0, strategy=strategy).epsilon for seed in range(100)]

    assert np.mean(np.array(found) > true_epsilon) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean(found) > (0.75 if strategy == "bonferroni" else 0.6) * true_epsilon


@pytest.mark.parametrize("strategy", ["split", "bonferroni"])
def test_equal_scores_are_not_ordered_by_the_truth(strategy):
    """Members come first in the table and all scores are equal: guesses are right as often as a coin is."""
    shares = []
    for seed in range(100):
        is_member = np.sort(coins(200, seed)[1])[::-1]
        found = audit_one_run(np.zeros(200), is_member, delta=0, strategy=strategy, guesses=[(50, 50)], seed=seed)
        shares.append(found.n_correct / found.n_guesses)

    assert np.mean(shares) == approx(0.5, abs=0.03)


def test_a_one_run_audit_says_what_it_rests_on():
    draw, is_member = coins(1000, 0)
    scores = is_member + 0.1 * draw.normal(size=1000)  # a perfect attack

    split = audit_one_run(scores, is_member, delta=1e-5, strategy="split")
    shared = audit_one_run(scores, is_member, delta=1e-5, guesses=[(10, 10), (100, 0), (100, 100)])

    assert (split.strategy, split.n_canaries, split.n_tried, split.delta, split.confidence) == ("split", 500, 1, 1e-5, 0.95)
    assert split.n_correct == split.n_guesses == split.k_plus + split.k_minus and split.epsilon == split.attainable > 3
    assert (shared.n_canaries, shared.n_guesses, shared.k_plus, shared.k_minus, shared.n_tried) == (1000, 200, 100, 100, 3)
    assert shared.epsilon == one_run_lower_bound(1000, 200, 200, 1e-5, 1 - 0.05 / 3)
    assert shared.as_dict()["epsilon"] == shared.epsilon
    assert audit_one_run(scores, is_member, delta=1e-5, strategy="split") == split


def test_infinite_scores_are_the_surest_guesses():
    draw, is_member = coins(400, 0)
    scores = draw.normal(size=400)
    scores[is_member], scores[~is_member] = np.inf, -np.inf

    found = audit_one_run(scores, is_member, delta=0, strategy="bonferroni", guesses=[(150, 150)])

    assert found.n_correct == 300


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("strategy", ["split", "bonferroni"])
def test_a_handful_of_canaries_proves_nothing_and_breaks_nothing(n, strategy):
    assert audit_one_run(np.arange(n), np.arange(n) >= n // 2, delta=0, strategy=strategy).epsilon == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full(100, np.nan)}, "100 of 100 scores are not a number"),
        ({"scores": np.zeros(99)}, "99 scores and 100 truth values"),
        ({"is_member": np.arange(100) < 90}, "90 of 100 canaries are members, which fair coins do not give"),
        ({"strategy": "best"}, 'strategy is "best", expected "split" or "bonferroni"'),
        ({"guesses": [(51, 0)]}, "whose sum is 1 to 50"),
        ({"guesses": [(0, 0)]}, "whose sum is 1 to 50"),
        ({"guesses": []}, "expected pairs"),
        ({"delta": 2}, "delta is 2"),
    ],
)
def test_a_one_run_audit_that_would_not_hold_is_refused(change, message):
    asked = {"scores": np.arange(100.0), "is_member": np.arange(100) % 2 == 0, "delta": 0, "strategy": "split"} | change
    with pytest.raises(ValueError, match=message):
        audit_one_run(asked.pop("scores"), asked.pop("is_member"), **asked)


@pytest.mark.parametrize("n", [8, 24, 1000])
def test_a_record_that_is_always_recognised_has_a_closed_form(n):
    """TPR >= q and FPR <= 1 - q with q = 0.025^(1/n): half of the error for each."""
    q = 0.025 ** (1 / n)

    assert pairs_lower_bound(n, n, 0, n, 0) == approx(np.log(q / (1 - q)))
    assert pairs_lower_bound(n, n, 0, n, 0.01) == approx(np.log((q - 0.01) / (1 - q)))


def test_a_rule_that_seldom_accuses_is_judged_by_its_other_side_too():
    """TPR 99.9 %, FPR 50 %: nearly every OUT training that is cleared is one; the accusations alone show log 2 at most."""
    bound = pairs_lower_bound(9990, 10_000, 5000, 10_000, 0)

    assert bound > 5 and pairs_lower_bound(5000, 10_000, 10, 10_000, 0) == approx(bound)


@pytest.mark.parametrize("true_epsilon", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_the_pairs_bound_exceeds_the_truth_of_randomised_response_in_at_most_5_percent(true_epsilon, delta):
    """Exact, no simulation: over all counts of true and false positives of 40 + 40 trainings."""
    n, counts = 40, np.arange(41)
    tpr = delta + (1 - delta) / (1 + np.exp(-true_epsilon))
    chance = stats.binom.pmf(counts, n, tpr)[:, None] * stats.binom.pmf(counts, n, 1 - tpr)
    bounds = np.array([[pairs_lower_bound(k, n, j, n, delta) for j in counts] for k in counts])

    assert chance[bounds > true_epsilon].sum() <= 0.05
    assert bounds.max() > 2


@pytest.mark.parametrize("true_epsilon", [0.5, 1.0, 3.0])
def test_the_pairs_bound_comes_near_the_truth_with_many_trainings(true_epsilon):
    n = 100_000
    right = round(n / (1 + np.exp(-true_epsilon)))

    assert 0.95 * true_epsilon < pairs_lower_bound(right, n, n - right, n, 0) < true_epsilon


def test_the_largest_of_many_targets_bounds_still_holds():
    """Fifty records that leak nothing: the largest of their bounds is above zero in at most 5 % of worlds, the uncorrected one in more."""
    found, uncorrected = [], []
    for seed in range(200):
        k = np.random.default_rng(seed).binomial(100, 0.5, (50, 2))
        counts = {f"t{i:02d}": Counts(int(a), 100, int(b), 100) for i, (a, b) in enumerate(k)}
        found.append(audit_pairs(counts, delta=0).epsilon)
        uncorrected.append(max(pairs_lower_bound(c.n_true_positives, 100, c.n_false_positives, 100, 0) for c in counts.values()))

    assert np.mean(np.array(found) > 0) <= 0.05 < np.mean(np.array(uncorrected) > 0)


def test_an_audit_of_pairs_names_the_target_that_leaks_most():
    counts = {"weak": Counts(20, 40, 8, 40), "strong": Counts(40, 40, 0, 40), "none": Counts(4, 40, 4, 40)}

    found = audit_pairs(counts, delta=1e-5)

    assert found.target == "strong" and found.epsilon == found.attainable == found.lower_bounds["strong"]
    assert found.epsilon == pairs_lower_bound(40, 40, 0, 40, 1e-5, 1 - 0.05 / 3) and found.lower_bounds["none"] == 0
    assert found.as_dict()["lower_bounds"] == found.lower_bounds


def test_counts_that_are_no_counts_are_refused():
    with pytest.raises(ValueError, match="expected 0 <= k <= n"):
        pairs_lower_bound(5, 4, 0, 4, 0)
    with pytest.raises(ValueError, match="no target has counts"):
        audit_pairs({}, delta=0)
