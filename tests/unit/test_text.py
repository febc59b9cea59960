"""The one-page text report: its shape, its corrected figures, and levels that no share of accusations can fake."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from memleak.metrics import calibration, pooled
from memleak.report import text as texts
from memleak.report.text import text
from memleak.report.verdict import verdict

N = 4000  # members, and as many non-members
TRUTH = np.arange(2 * N) < N


def measured(scores, name="top_k", cut=None, options=None):
    """An attack's metrics from its scores [2 N], thresholds as given."""
    found = {"name": name, "options": options or {}, "n_references": 1, "n_queries": 1.0, **pooled.measure(scores[None], TRUTH[None])}
    if options == {"signal": "correctness"}:
        found["natural"] = calibration.rates_of_decisions(scores[None] > 0.5, TRUTH[None]) | {"is_only": True}
    return found | {"calibrated": [] if cut is None else [calibration.rates_at_thresholds(scores[None], np.array([cut]), TRUTH[None], 0.01)]}


def right(train, test):
    """1 where a model of these accuracies is right."""
    return np.concatenate([np.arange(N) < train * N, np.arange(N) < test * N]).astype(float)


def shifted(by, seed=0):
    return np.random.default_rng(seed).normal(size=2 * N) + by * TRUTH


def metrics(attacks, headline=None, train=1.0, test=0.6, **changes):
    """Metrics of a given model."""
    accuracy = {f"{part}_accuracy": {"value": value, "low": value, "high": value} for part, value in (("train", train), ("test", test))}
    return {
        "audit": "mine", "kind": "given", "alpha": 0.01, "headline": headline or next(iter(attacks)), "attacks": attacks,
        "models": {"n": 1, "chance": 0.1, "mixed": [], "given": {"name": "my_model.py:get_model"}, "references": None, **accuracy},
        "parts": [{"name": "members", "is_member": True, "length": N}, {"name": "non-members", "is_member": False, "length": N}],
        "thresholds_from": "other non-members", "controls": {"null": None}, "design": {"kind": "given"}, "epsilon": None, "n_samples": 2 * N,
        **changes,
    }  # fmt: skip


def baseline(train, test):
    return measured(right(train, test), "threshold", cut=1.0, options={"signal": "correctness"})  # strictly beyond 1: nobody


def flat(page):
    """The page as one line."""
    return " ".join(page.split())


def strong(seed=0):
    return measured(shifted(3.0, seed), cut=2.326)


def quiet(seed=1):
    return measured(shifted(0.0, seed), cut=2.326)


def test_the_page_has_its_classic_shape():
    lines = text(metrics({"baseline": baseline(1.0, 0.6), "ml-leak": strong()}, "ml-leak"), {}).splitlines()

    assert lines[0] == "Model Privacy Leakage Analysis Report" and [line for line in lines if line in ("Models:", "Datasets:", "Attacks:", "Summary:")] == [
        "Models:", "Datasets:", "Attacks:", "Summary:",
    ]  # fmt: skip
    assert "- name: my_model.py:get_model, train_acc: 1.000, test_acc: 0.600" in lines
    assert (
        "- name: members, is_member_dataset: true, length: 4000" in lines and "- name: non-members, is_member_dataset: false, length: 4000" in lines
    )
    assert sum(line.startswith("    acc = ") and "auc = " in line for line in lines) == 2
    assert sum(line.startswith("    precision = ") and "recall = " in line for line in lines) == 2
    assert max(map(len, lines)) <= 120


def test_the_auc_of_correctness_is_that_of_train_and_test_accuracy():
    """(.82344 + 1 - .5927) / 2 = .615, where a known tool printed .595; precision is that of balanced sets, and recall the train accuracy."""
    attack = measured(right(0.8235, 0.5925), "threshold", options={"signal": "correctness"})
    found = texts._at_thresholds(metrics({"baseline": attack}, train=0.8235, test=0.5925), "baseline")[0]

    assert attack["auc"]["value"] == approx((0.8235 + 1 - 0.5925) / 2) == found.accuracy.value
    assert found.recall.value == 0.8235 and found.precision.value == approx(0.8235 / (0.8235 + 0.5925))
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high and "natural threshold" in found.where


def test_an_attack_that_says_member_of_everybody_is_low():
    everybody = calibration.rates_of_decisions(np.ones((1, 2 * N)), TRUTH[None]) | {"is_only": True}
    found = metrics({"baseline": baseline(1.0, 1.0) | {"natural": everybody}}, test=1.0)
    page = text(found, {})

    assert "acc = 0.500" in page and "recall = 1.000" in page and "precision = 0.500" in page
    assert "baseline: LOW" in page and "Good news" in page and "WARNING" not in page and "differential privacy" not in page


def test_a_baseline_that_is_the_headline_is_graded_at_its_own_threshold():
    """At a false-positive rate of 1 % correctness accuses nobody; that a third of the non-members are wrong tells a lot all the same."""
    page = text(metrics({"baseline": baseline(1.0, 0.6)}), {})

    assert "headline attack baseline: HIGH, risk 40 of 100 [" in page and "1, baseline (HIGH risk)" in page and "acc = 0.700 [" in page


def test_unequal_sets_do_not_make_an_attack_look_better():
    """50,000 members, 10,000 others: always "member" is right in 83 % of the cases, and its balanced accuracy is one half."""
    truth = np.arange(60_000) < 50_000
    everybody = calibration.rates_of_decisions(np.ones((1, 60_000)), truth[None])

    assert texts._balanced("", everybody).accuracy.value == 0.5 and texts._balanced("", everybody).advantage[1] < 0.03


def test_balanced_accuracy_and_its_interval_come_from_both_rates():
    rates = {"tpr": {"value": 0.3, "low": 0.2, "high": 0.4}, "achieved_fpr": {"value": 0.02, "low": 0.01, "high": 0.03}, "ppv": []}
    found = texts._balanced("", rates)

    assert str(found.accuracy) == "0.640 [0.585, 0.695]" and found.advantage == approx((0.17, 0.39)) and found.precision is None


def test_a_leak_is_warned_of_with_what_may_be_done_and_what_it_costs():
    page = text(metrics({"ml-leak": strong(), "label-only": quiet()}), {})

    assert "WARNING! Your model has risk of membership inference attacks, they are:\n  1, ml-leak (HIGH risk)" in page and "LOW: label-only." in page
    for name in ("Hold the release", "Train with differential privacy", "Fit the training data less closely", "Train reference models"):
        assert f"- {name}" in page
    assert page.count("cost") >= 4 and "Nothing here is a promise" in page and "    snakemake --cores all" in page


def test_the_headline_has_the_verdict_of_the_audit():
    found = metrics({"ml-leak": strong(), "label-only": quiet()})

    assert f"ml-leak: {verdict(found).state}, risk {verdict(found).risk:g} of 100" in text(found, {})


def test_a_quiet_model_is_good_news_but_no_proof():
    page = text(metrics({"ml-leak": quiet(2)}), {})

    assert "Good news" in page and "no proof" in page and "WARNING" not in page and "- Fit the training" not in page


def test_an_interval_across_a_limit_is_undecided_and_says_what_is_missing():
    wide = quiet()
    wide["calibrated"][0]["tpr"] |= {"value": 0.05, "low": 0.01, "high": 0.2}
    page = flat(text(metrics({"ml-leak": quiet(), "label-only": wide}), {}))

    assert "Undecided: label-only." in page and "more members and non-members decide it" in page and "Good news" not in page
    assert "LOW: ml-leak." in page


def test_no_attack_is_graded_where_the_model_is_at_chance():
    page = flat(text(metrics({"ml-leak": strong(), "baseline": baseline(0.1, 0.1)}, train=0.1, test=0.1), {}))

    assert "Undecided: ml-leak, baseline." in page and "says nothing" in page and "WARNING" not in page and "cannot be believed" in page


def test_sets_that_differ_are_an_alarm():
    blind = {"alarm": True, "auc": {"value": 0.9, "low": 0.88, "high": 0.92}, "p": 1e-9}
    page = text(metrics({"ml-leak": strong()}, controls={"null": None, "blind": blind}), {})

    assert page.count("ALARM") >= 1 and "ALARM" not in text(metrics({"ml-leak": strong()}), {})


def test_every_attack_that_is_built_in_has_a_description_of_one_sentence():
    from memleak import plugins

    names = set(plugins.BUILT_IN["attacks"]) - {"single_point"}  # of pairs

    assert names <= set(texts.DESCRIPTIONS)
    for name in names:
        sentence = texts._description({"name": name, "options": {"k": 5, "signal": "modified_entropy"}})
        assert sentence.endswith(".") and sentence.count(". ") == 0 and "{" not in sentence
    assert "5 largest" in texts._description({"name": "top_k", "options": {"k": 5}})
    assert "user's own (mine.py:score)" in texts._description({"name": "mine.py:score", "options": {}})


def test_an_audit_of_a_pool_has_a_page_too(pool_walk):
    found = pool_walk.metrics
    page = text(found, {})

    assert "- name: 12 models (" in page and "length: 150" in page and max(map(len, page.splitlines())) <= 120
    assert all(f"- name: {name}" in page for name in found["attacks"]) and "mock targets set for a false-positive rate of 5 %" in page


def test_pairs_have_no_such_page():
    with pytest.raises(ValueError, match=r"see report\.html"):
        text({"kind": "pairs"}, {})
