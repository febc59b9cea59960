"""Whole audits whose truth is known: who is exposed, who is not, and what the controls say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pytest import approx
from worlds import audit_world

from memleak.metrics import audit

N_WORLDS = 80


def test_a_strong_leak_is_exposed_and_a_missing_one_is_not():
    found = audit_world({"random00": 0.0, "atypical00": 4.0})["targets"]

    assert found["atypical00"]["state"] == "exposed" and found["random00"]["state"] == "no evidence"
    assert list(found) == ["atypical00", "random00"]  # the most exposed first


def test_the_numbers_of_a_target_are_those_of_its_margins():
    target = audit_world({"random00": 3.0}, rounds=400, holdout=400)["targets"]["random00"]

    assert target["effect"]["mean_difference"] == approx(3.0, abs=0.15)
    assert target["effect"]["standardised"] == approx(3.0, rel=0.15)  # the halves of variance that arms do not share add up to 1
    assert target["auc"]["value"] == approx(0.983, abs=0.01)  # Phi(3 / sqrt 2)
    assert target["attacks"]["np"]["tpr"]["value"] == approx(0.912, abs=0.07)  # Phi(3 - 1.645)
    assert target["attacks"]["np"]["fpr"]["value"] == approx(0.05, abs=0.05)
    assert target["means"]["margin_in"] - target["means"]["margin_out"] == approx(3.0, abs=0.15)


def test_records_that_leak_nothing_show_evidence_in_few_worlds():
    """Over all targets of an audit together: at most 5 % for the paired tests and 2.5 % for the rates."""
    shifts = {f"random{i:02d}": 0.0 for i in range(6)}
    states = [{target["state"] for target in audit_world(shifts, seed=seed)["targets"].values()} for seed in range(N_WORLDS)]

    assert np.mean([state != {"no evidence"} for state in states]) <= 0.075 + 4 * np.sqrt(0.075 / N_WORLDS)
    assert np.mean(["exposed" in state for state in states]) <= 0.05


def test_many_targets_do_not_make_winners_of_noise():
    """Sixty records without any leak: some rate is high by chance, and its own interval may lie above alpha."""
    shifts = {f"random{i:02d}": 0.0 for i in range(60)}
    found = audit_world(shifts, rounds=24, holdout=16, seed=1)["targets"]

    assert max(target["exposure"] for target in found.values()) > 0.15
    assert {target["state"] for target in found.values()} == {"no evidence"}


@pytest.mark.parametrize("fit", ["normal", "kde", "empirical"])
def test_controls_do_not_alarm_on_good_audits(fit):
    shifts = {"random00": 0.0, "atypical00": 2.0, "mislabelled00": 5.0}
    alarms = [
        any(audit_world(shifts, seed=seed, fit=fit, rounds=20, holdout=12)["controls"][control]["alarm"] for control in ("null", "level"))
        for seed in range(60)
    ]

    assert sum(alarms) <= 1  # expected: 0.12


def test_the_null_control_sees_a_drift_between_early_and_late_rounds():
    assert audit_world({"random00": 0.0}, rounds=24, holdout=16, drift=3.0)["controls"]["null"]["alarm"]
    assert audit_world({"random00": 0.0}, rounds=24, holdout=16, drift=-3.0)["controls"]["null"]["alarm"]


def test_the_level_control_sees_a_threshold_that_does_not_hold():
    controls = audit_world({"random00": 0.0, "random01": 0.0}, unlike=4.0)["controls"]

    assert controls["level"]["alarm"] and controls["level"]["value"] > 0.5


def test_the_positive_control_is_found_where_it_leaks_and_only_there():
    assert audit_world({"mislabelled00": 5.0})["controls"]["positive"]["mislabelled00"]["found"]
    assert not audit_world({"mislabelled00": 0.0})["controls"]["positive"]["mislabelled00"]["found"]


def test_the_paired_test_is_refused_where_rounds_are_too_few_for_so_many_targets():
    """2^-6 = .0156 > .05 / 4; nine rounds would do for 25 targets."""
    effect = audit_world({f"random{i:02d}": 9.0 for i in range(4)}, rounds=4, holdout=2)["targets"]["random00"]["effect"]
    enough = audit_world({f"random{i:02d}": 9.0 for i in range(4)}, rounds=5, holdout=2)["targets"]["random00"]["effect"]

    assert not effect["testable"] and effect["least_rounds"] == 7
    assert enough["testable"]


def test_without_holdout_rounds_nothing_is_exposed_and_rates_are_called_optimistic():
    found = audit_world({"atypical00": 5.0}, holdout=0)

    assert found["targets"]["atypical00"]["state"] == "effect found"
    assert "tpr" not in found["targets"]["atypical00"]["attacks"]["np"] and "level" not in found["controls"]


def test_a_single_holdout_round_is_the_classic_two_model_check():
    found = audit_world({"atypical00": 6.0}, holdout=1)["targets"]["atypical00"]["attacks"]["np"]

    assert (found["tpr"]["k"], found["tpr"]["n"]) == (1, 1) and found["tpr"]["low"] == approx(0.025) and found["fpr"]["k"] == 0


def test_simultaneous_intervals_hold_those_of_each_target():
    for target in audit_world({f"random{i:02d}": 1.0 for i in range(5)})["targets"].values():
        tpr = target["attacks"]["np"]["tpr"]
        assert tpr["low_of_all"] <= tpr["low"] <= tpr["value"] <= tpr["high"] <= tpr["high_of_all"]


def test_the_order_in_which_targets_are_named_changes_no_ones_numbers():
    def p_values(names):
        return {name: target["p_holm"] for name, target in audit_world(dict.fromkeys(names, 0.0))["targets"].items()}

    assert sorted(p_values(["random00", "random01"]).values()) == sorted(p_values(["random01", "random00"]).values())


def test_all_numbers_can_be_written_as_json():
    for shifts in ({"random00": 0.0, "mislabelled00": 60.0}, {"atypical00": 1e6}):
        json.dumps(audit_world(shifts), allow_nan=False)


def test_models_of_two_devices_or_torch_versions_are_refused_unless_allowed():
    plan = {"data": {"n_classes": 10}}
    model = {
        "device": "cpu", "torch": "2.9.0+cpu", "engine": "sequential", "n_train": 5, "n_test": 5, "train_loss": 0.0, "test_loss": 1.0, "train_accuracy": 1.0,
        "test_accuracy": 0.9, "loss_curve": [1.0], "accuracy_curve": [1.0],
    }  # fmt: skip

    with pytest.raises(audit.AuditError, match="several devices"):
        audit.models_found(plan, [model, model | {"device": "NVIDIA H100"}], allow_mixed=False)
    with pytest.raises(audit.AuditError, match="several torch versions"):
        audit.models_found(plan, [model, model | {"torch": "2.10.0"}], allow_mixed=False)
    assert audit.models_found(plan, [model, model | {"torch": "2.9.1"}], allow_mixed=False)["n"] == 2
    assert audit.models_found(plan, [model, model | {"device": "NVIDIA H100"}], allow_mixed=True)["mixed"] == ["devices"]


def test_every_device_torch_and_engine_is_counted_and_engines_may_be_mixed():
    """An engine is no reason to refuse: it takes the same steps up to rounding."""
    cpu = {
        "device": "cpu", "torch": "2.9.0+cpu", "engine": "sequential", "n_train": 5, "n_test": 5, "train_loss": 0.0, "test_loss": 1.0,
        "train_accuracy": 1.0, "test_accuracy": 0.9, "loss_curve": [1.0], "accuracy_curve": [1.0],
    }  # fmt: skip
    ensemble = cpu | {"engine": "ensemble"}

    found = audit.models_found({"data": {"n_classes": 10}}, [cpu, ensemble, ensemble], allow_mixed=False)

    assert found["mixed"] == []
    assert [(one["n"], one["device"], one["torch"], one["engine"]) for one in found["trained_on"]] == [
        (2, "cpu", "2.9.0+cpu", "ensemble"), (1, "cpu", "2.9.0+cpu", "sequential"),
    ]  # fmt: skip
