"""The verdict: graded by the whole interval, silent where the audit is too weak, and 0 where there is no evidence."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from worlds import audit_world

from memleak.metrics import paired
from memleak.report import verdict as verdicts
from memleak.report.verdict import advantage, state_of, verdict


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (0.30, 0.9, "HIGH"), (0.299, 0.9, "UNDECIDED"), (0.0, 0.099, "LOW"), (0.0, 0.1, "UNDECIDED"),
        (0.1, 0.299, "MEDIUM"), (0.1, 0.3, "UNDECIDED"), (0.099, 0.2, "UNDECIDED"), (0.0, 1.0, "UNDECIDED"),
    ],
)  # fmt: skip
def test_the_grade_is_that_of_the_whole_interval(low, high, state):
    assert state_of(low, high) == state


def test_the_advantage_is_what_lies_beyond_guessing():
    assert advantage(0.05, 0.05) == 0 and advantage(0.01, 0.05) == 0 and advantage(1.0, 0.05) == 1
    assert advantage(0.525, 0.05) == approx(0.5)


def test_a_strong_leak_is_high_and_many_quiet_models_are_low():
    strong = verdict(audit_world({"random00": 0.0, "atypical00": 6.0}))
    quiet = verdict(audit_world({"random00": 0.0}, holdout=400, seed=3))

    assert strong.state == "HIGH" and strong.risk > 90 and "atypical00" in strong.sentence
    assert quiet.state == "LOW" and quiet.risk == 0 and "not shown to do better than guessing" in quiet.sentence


def test_an_unlucky_threshold_alone_is_no_evidence():
    """Of 24 fitted models the rule's true rate is easily 8 %, for IN as for OUT models: above alpha, and not a leak."""
    found = [verdict(audit_world({"random00": 0.0}, holdout=400, seed=seed)) for seed in range(30)]

    assert np.mean([one.risk == 0 for one in found]) >= 0.8
    assert all(one.low <= one.risk <= one.high for one in found)


def test_the_interval_holds_the_risk():
    for seed in range(30):
        found = verdict(audit_world({"random00": 0.0, "random01": 1.5, "atypical00": seed / 6}, seed=seed))
        assert 0 <= found.low <= found.risk <= found.high <= 100


def test_risk_is_zero_in_most_worlds_without_a_leak():
    """The largest of ten noisy rates is about 20 %: noise, not risk."""
    shifts = {f"random{i:02d}": 0.0 for i in range(10)}
    risks = [verdict(audit_world(shifts, seed=seed)).risk for seed in range(40)]

    assert np.mean([risk == 0 for risk in risks]) >= 0.85


def test_the_interval_of_the_most_exposed_record_covers_in_spite_of_the_search(monkeypatch):
    """Six records with the same leak, TPR Phi(1.5 - 1.645) = .442 for a known threshold; the largest observed rate is far above it."""
    monkeypatch.setattr(paired, "N_DRAWS", 999)  # p-values are not looked at
    truth = []
    for seed in range(30):
        metrics = audit_world({f"random{i:02d}": 1.5 for i in range(6)}, rounds=300, holdout=20, seed=seed)
        found = verdict(metrics)
        truth.append(found.low <= 100 * advantage(0.442, 0.05) <= found.high)
    assert np.mean(truth) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 30)


def test_a_canary_is_no_record_and_gets_no_verdict_alone():
    found = verdict(audit_world({"mislabelled00": 6.0}))

    assert (found.state, found.risk) == ("UNDECIDED", None) and "only canaries" in found.sentence
    assert verdict(audit_world({"mislabelled00": 6.0, "random00": 0.0}, holdout=200)).state == "LOW"


def test_without_holdout_rounds_there_is_no_verdict():
    found = verdict(audit_world({"atypical00": 6.0}, holdout=0))

    assert found.state == "UNDECIDED" and found.risk is None and "holdout_rounds" in found.sentence


def test_one_holdout_round_is_too_little_for_a_grade():
    found = verdict(audit_world({"atypical00": 6.0}, holdout=1))

    assert found.state == "UNDECIDED" and found.low == 0 and found.high == 100


def test_a_missed_positive_control_says_that_the_audit_is_too_weak():
    found = verdict(audit_world({"random00": 0.0, "mislabelled00": 0.0}))

    assert found.state == "UNDECIDED" and "too weak" in found.sentence and "mislabelled00" in found.sentence


@pytest.mark.parametrize(("accuracy", "words"), [({"test_accuracy": 0.1}, "is at chance"), ({"train_accuracy": 0.7}, "does not fit its data")])
def test_models_that_learn_nothing_get_no_verdict(accuracy, words):
    found = verdict(audit_world({"atypical00": 6.0}, **accuracy))

    assert found.state == "UNDECIDED" and found.risk is None and words in found.sentence and "says nothing" in found.sentence


@pytest.mark.parametrize("broken", [{"drift": 4.0}, {"unlike": 5.0}])
def test_an_alarm_of_a_control_takes_the_grade_away(broken):
    found = verdict(audit_world({"random00": 0.0, "atypical00": 6.0}, **broken))

    assert found.state == "UNDECIDED" and found.risk is None and any("ALARM" in note for note in found.notes)


def test_few_models_are_told_what_they_cannot_promise():
    notes = " ".join(verdict(audit_world({"random00": 0.0}, rounds=3, holdout=1)).notes)

    assert "takes 59" in notes and "refused" in notes


@pytest.mark.parametrize(
    ("n_classes", "accuracy", "learns"), [(100, 0.049, False), (100, 0.051, True), (10, 0.51, True), (2, 0.74, False), (2, 0.76, True)]
)
def test_learning_means_five_times_chance_or_half_way_to_one(n_classes, accuracy, learns):
    assert verdicts.learns({"chance": 1 / n_classes, "test_accuracy": {"value": accuracy}}) == learns
