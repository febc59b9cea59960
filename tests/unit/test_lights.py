"""The controls as traffic lights: what was measured, what alarms, and why something is not known."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import tested

from memleak.report import lights


def by_name(found):
    return {light.name: light for light in found}


def test_a_pairs_audit_has_its_four_controls(walk):
    found = by_name(lights.of(walk.metrics))

    assert list(found) == ["Fits and learns", "Positive control", "False accusations", "Null"]
    assert found["Null"].state == ("alarm" if walk.metrics["controls"]["null"]["alarm"] else "fine")
    assert f"promised {100 * walk.metrics['alpha']:.0f} %" in found["False accusations"].says


def test_a_positive_control_that_was_missed_alarms(walk):
    metrics = copy.deepcopy(walk.metrics)
    metrics["controls"]["positive"]["mislabelled00"]["found"] = False

    light = by_name(lights.of(metrics))["Positive control"]

    assert light.state == "alarm" and "NOT found" in light.says and "add rounds" in light.detail


def test_a_control_that_was_not_asked_for_says_what_would_measure_it(walk):
    metrics = copy.deepcopy(walk.metrics)
    metrics["controls"]["positive"] = {}
    del metrics["controls"]["level"]

    found = by_name(lights.of(metrics))

    assert found["Positive control"].state == found["False accusations"].state == "unknown"
    assert "mislabelled: 1" in found["Positive control"].detail and "holdout_rounds" in found["False accusations"].detail


def test_a_pool_has_null_count_blind_and_certified(pool_walk):
    found = by_name(lights.of(pool_walk.metrics))

    assert list(found) == ["Fits and learns", "Blind", "Null", "Count", "Certified"]
    assert found["Blind"].says == "members were drawn at random"


@pytest.mark.parametrize("control", ["null", "count"])
def test_an_alarm_of_a_pool_is_an_alarm_of_its_light(pool_walk, control):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["controls"][control] = {"p": 1e-9, "alarm": True, "attacks": {}}

    assert by_name(lights.of(metrics))[control.capitalize()].state == "alarm"


def test_too_few_records_are_not_known_rather_than_an_alarm(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics) | {"alpha": 0.001}

    light = by_name(lights.of(metrics))["Certified"]

    assert light.state == "unknown" and "takes 3,000" in light.detail


@pytest.mark.parametrize(
    ("accuracy", "value", "words"), [("test_accuracy", 0.1, "at chance or little better"), ("train_accuracy", 0.6, "does not fit its data")]
)
def test_a_model_that_learnt_nothing_alarms(pool_walk, accuracy, value, words):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["models"][accuracy]["value"] = value

    light = lights.of(metrics)[0]

    assert light.state == "alarm" and light.says.startswith(words)


def test_of_a_defended_training_a_bad_fit_is_the_price_and_no_alarm(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["models"]["train_accuracy"]["value"], metrics["models"]["loosened_by"] = 0.6, ["dropout"]

    assert lights.of(metrics)[0].state == "fine" and "Trained with dropout" in lights.of(metrics)[0].detail


def test_where_nobody_knows_what_is_right_the_fit_is_not_known(pool_walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    metrics["models"] |= {"train_accuracy": None, "test_accuracy": None}

    assert lights.of(metrics)[0].state == "unknown" and "labels" in lights.of(metrics)[0].detail


def test_a_given_model_is_held_against_the_lists_and_its_references(given_walk, given_alone):
    with_references, alone = by_name(lights.of(given_walk.metrics)), by_name(lights.of(given_alone.metrics))

    assert "References fit" in with_references and "References fit" not in alone
    assert {"Blind", "Arithmetic", "Certified"} <= set(alone)
    assert alone["Null"].state == "unknown" and "references in the design" in alone["Null"].detail


def test_what_the_tester_did_not_measure_says_so():
    found = tested.found()
    found["controls"] = {name: None for name in found["controls"]}

    told = lights.of_tester(found)

    assert {light.state for light in told} == {"unknown"} and all(light.detail for light in told)


@pytest.mark.parametrize("name", ["blind", "length", "form", "placebo"])
def test_an_alarm_of_the_tester_is_an_alarm_of_its_light(name):
    found = tested.found()
    found["controls"][name]["alarm"] = True

    told = by_name(lights.of_tester(found))

    assert [light.name for light in told.values() if light.state == "alarm"] == [name.capitalize()]
    assert "0." in told[name.capitalize()].says


def test_repeated_texts_are_counted():
    found = tested.found()
    found["n"] |= {"overlap": 2, "near": 1}

    assert by_name(lights.of_tester(found))["Overlap"].says == "3 repeated texts, left out"


def test_every_light_says_something_short_and_something_whole(walk, pool_walk, coins, given_walk, given_alone):
    for done in (walk, pool_walk, coins, given_walk, given_alone):
        for light in lights.of(done.metrics):
            assert len(light.says) < 90 and light.detail.endswith("."), dataclasses.asdict(light)


@pytest.mark.parametrize(("p", "says"), [(0.4, "no sign that the lists differ"), (0.004, "a hint, too weak for an alarm")])
def test_what_is_seen_and_alarms_nobody_is_not_called_nothing(given_alone, p, says):
    metrics = copy.deepcopy(given_alone.metrics)
    metrics["controls"]["blind"] = {"auc": {"value": 0.58, "low": 0.53, "high": 0.63}, "p": p, "alarm": False, "why": None}

    light = by_name(lights.of(metrics))["Blind"]

    assert light.state == "fine" and light.says.startswith(says) and "[0.53, 0.63]" in light.says


def test_a_given_model_at_chance_that_knows_its_members_is_judged_and_alarms_nobody(given_alone):
    metrics = copy.deepcopy(given_alone.metrics)
    metrics["models"]["train_accuracy"] = {"value": 1.0, "low": 1.0, "high": 1.0}
    metrics["models"]["test_accuracy"] = {"value": 0.1, "low": 0.1, "high": 0.1}

    light = lights.of(metrics)[0]

    assert light.state == "unknown" and "may be memory alone" in light.detail


def test_gradients_stand_at_no_false_positive_rate(coins):
    metrics = copy.deepcopy(coins.metrics)
    metrics["design"] |= {"space": "gradient"}

    assert "Certified" not in by_name(lights.of(metrics)) and "Certified" in by_name(lights.of(coins.metrics))
