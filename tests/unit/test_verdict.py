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


def test_models_that_a_defence_keeps_from_fitting_are_judged_and_the_verdict_says_so():
    world = audit_world({"atypical00": 6.0}, train_accuracy=0.7)
    world["models"]["loosened_by"] = ["early_stopping", "mixup"]

    found = verdict(world)

    assert "says nothing" not in found.sentence and found.risk is not None
    assert any("Trained with early_stopping and mixup, the models are right on 70.0% of their training data alone" in note for note in found.notes)


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


def _pool(low=0.05, value=0.06, high=0.07, fpr=0.01, kind="halves", **changes):
    """The metrics of a pool audit whose headline finds so many members at the threshold of mock targets; intervals of the FPR have no width."""
    at_alpha = {"at_fpr": 0.01, "tpr": {"value": value, "low": low, "high": high}, "achieved_fpr": {"value": fpr, "low": fpr, "high": fpr}}
    rate = {"at_fpr": 0.01, "certified": True, "n_non_members": 1400}
    attack = {"name": "lira", "n_references": 62, "calibrated": [at_alpha], "auc": {"value": 0.64, "low": 0.63, "high": 0.65}, "rates": [rate]}
    attack["advantage"] = {"value": 0.04, "low": 0.02, "high": 0.06}
    models = {"chance": 0.1, "mixed": [], "train_accuracy": {"value": 1.0}, "test_accuracy": {"value": 0.95}}
    found = {
        "kind": kind, "alpha": 0.01, "headline": "lira", "design": {"kind": kind, "mislabelled": False}, "models": models, "epsilon": None,
        "attacks": {"lira": attack | changes.pop("attack", {})}, "controls": {"null": {"p": 0.5, "alarm": False}},
    }  # fmt: skip
    return found | changes


@pytest.mark.parametrize(
    ("low", "high", "state"), [(0.2, 0.3, "HIGH"), (0.05, 0.1, "MEDIUM"), (0.011, 0.03, "LOW"), (0.02, 0.05, "UNDECIDED"), (0.05, 0.2, "UNDECIDED")]
)
def test_the_average_record_is_graded_by_limits_of_its_own(low, high, state):
    assert verdict(_pool(low, (low + high) / 2, high)).state == state


def test_the_risk_of_the_average_record_is_what_lies_beyond_the_achieved_rate():
    found = verdict(_pool(low=0.10, value=0.12, high=0.14, fpr=0.02))

    assert found.risk == approx(100 * 0.10 / 0.98, abs=0.05)
    assert (found.low, found.high) == (approx(100 * 0.08 / 0.98, abs=0.05), approx(100 * 0.12 / 0.98, abs=0.05))
    assert "62 models" in found.sentence and "12.0 %" in found.sentence and "2.0 %" in found.sentence


def test_guessing_is_called_guessing():
    found = verdict(_pool(low=0.005, value=0.01, high=0.015))

    assert found.state == "LOW" and found.risk == 0 and "not shown to do better than guessing" in found.sentence


@pytest.mark.parametrize(("kind", "least"), [("halves", 8), ("canaries", 4)])
def test_without_mock_targets_there_is_no_verdict(kind, least):
    found = verdict(_pool(kind=kind, attack={"calibrated": []}))

    assert (found.state, found.risk) == ("UNDECIDED", None) and f"takes {least} models or more" in found.sentence


def test_a_pool_audit_obeys_the_same_refusals():
    chance = verdict(_pool(models={"chance": 0.1, "mixed": [], "train_accuracy": {"value": 1.0}, "test_accuracy": {"value": 0.1}}))
    alarm = verdict(_pool(controls={"null": {"p": 1e-8, "alarm": True}}))

    assert "is at chance" in chance.sentence and chance.risk is None
    assert "A control of the audit failed" in alarm.sentence and alarm.risk is None and any("ALARM" in note for note in alarm.notes)


def test_an_attack_with_the_wrong_sign_is_named():
    assert any("wrong sign" in note for note in verdict(_pool(attack={"auc": {"value": 0.4, "low": 0.38, "high": 0.42}})).notes)


def test_canaries_name_epsilon_and_that_they_are_no_natural_records():
    run = {"epsilon": 1.234, "delta": 1e-5, "confidence": 0.9875, "n_guesses": 10, "n_correct": 9}
    epsilon = {"epsilon": 1.234, "delta": 1e-5, "confidence": 0.95, "strategy": "split", "runs": [run]}
    found = verdict(_pool(kind="canaries", design={"kind": "canaries", "mislabelled": True}, epsilon=epsilon))

    assert "epsilon is at least 1.23 (delta 1e-05, 95 % confidence)" in found.sentence
    assert "canaries (records with a wrong label)" in found.sentence and any("natural records leak less" in note for note in found.notes)


def test_an_epsilon_of_zero_is_no_proof_of_privacy():
    found = verdict(_pool(kind="canaries", epsilon={"epsilon": 0.0, "delta": 0, "confidence": 0.95, "runs": []}))

    assert "not shown to have a privacy loss" in found.sentence


def test_a_leak_at_high_false_positive_rates_is_told_beside_a_low_verdict():
    """A model that is right about all members and 70 % of the others: nothing at 1 %, much where an attacker may be wrong often."""
    found = verdict(_pool(attack={"advantage": {"value": 0.3, "low": 0.27, "high": 0.33}}))

    assert sum("may be wrong more often" in note for note in found.notes) == 1
    assert not any("may be wrong more often" in note for note in verdict(_pool()).notes)


def test_a_model_that_answers_differently_each_time_is_named():
    models = _pool()["models"]
    found = [verdict(_pool(models=models | {"given": {"is_repeatable": known}})).notes for known in (False, True)]

    assert any("answers differently" in note for note in found[0]) and not any("answers differently" in note for note in found[1])
