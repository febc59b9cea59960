"""What to do about an audit: fired by what was measured, most urgent first, with lines that a params.yaml takes."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import tested
import yaml

from memleak import params
from memleak.report import recommendations, words
from memleak.report.parts import Action
from memleak.report.verdict import Limits, Verdict, verdict

RECIPE = {"architecture": "mlp", "hidden": [32], "epochs": 25, "batch_size": 16, "learning_rate": 0.1}
GOOD = {"test_accuracy": {"value": 0.95, "low": 0.9, "high": 1.0}}  # of models that learnt their task
LINES = re.compile(r"# params\.yaml, in ([a-z.-]+):\n(.*?)\n# then:", re.DOTALL)


def of(walk: Any, **changes: Any) -> list[Action]:
    """What is recommended for a walk's metrics, some of them changed."""
    return recommendations.of(copy.deepcopy(walk.metrics) | changes, json.loads(walk.planned.page_json()))


def rate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def at_alpha(metrics: dict[str, Any], tpr: dict[str, float], fpr: dict[str, float]) -> dict[str, Any]:
    """The attacks with other rates of the headline at its threshold."""
    attacks = copy.deepcopy(metrics["attacks"])
    for found in attacks[metrics["headline"]]["calibrated"]:
        found["tpr"] |= tpr
        found["achieved_fpr"] |= fpr
    return attacks


def titles(actions: list[Action]) -> list[str]:
    return [one.title for one in actions]


def config_with(walk: Any, command: str) -> dict[str, Any]:
    """The params.yaml of a walk, into which the lines of a command were written."""
    shown = json.loads(walk.planned.page_json())
    entry = {key: value for key, value in shown["entry"].items() if value is not None and key != "epsilon"}
    config: dict[str, Any] = {"datasets": {"digits": {"name": "digits"}}, "recipes": {"tiny": RECIPE}, "audits": {"small": entry}}
    for section, lines in LINES.findall(command):
        entry = config
        for key in section.split("."):
            entry = entry.setdefault(key, {})
        entry |= yaml.safe_load(lines) or {}
    return config


@pytest.mark.parametrize("name", ["walk", "pool_walk"])
def test_the_lines_of_every_command_are_taken_by_params(name, request):
    walk = request.getfixturevalue(name)
    said = of(walk, models=walk.metrics["models"] | GOOD)

    assert any(LINES.search(one.command) for one in said)
    for one in said:
        config = config_with(walk, one.command)
        assert params.validate(config) and ("params.yaml, in" not in one.command or config != config_with(walk, ""))


@pytest.mark.parametrize("name", ["walk", "pool_walk", "coins", "given_walk", "given_alone"])
def test_at_most_six_actions_each_with_a_figure_an_effect_and_a_command(name, request):
    said = of(request.getfixturevalue(name))

    assert 1 <= len(said) <= 6 and len(set(titles(said))) == len(said)
    for one in said:
        assert re.search(r"\d", one.because) and one.because.endswith((".", "!")) and one.effect.endswith(".") and one.command


@pytest.mark.parametrize("control", ["null", "count"])
def test_where_a_control_alarms_nothing_else_is_recommended(pool_walk, control):
    controls = copy.deepcopy(pool_walk.metrics["controls"])
    controls[control] |= {"p": 1e-9, "alarm": True}
    (said,) = of(pool_walk, controls=controls)

    assert (
        said.title == recommendations.MENDED[control][0] and "p = 1e-09" in said.because and "no figure of this audit can be believed" in said.effect
    )


@pytest.mark.parametrize(("audit", "control"), [("walk", "level"), *(("given_alone", name) for name in ("blind", "length", "form", "placebo"))])
def test_the_alarm_of_a_control_is_told_in_the_words_of_the_verdict(audit, control, request):
    """A note that was worded anew would not be found, and its figures would be missing in silence."""
    metrics = request.getfixturevalue(audit).metrics
    known = metrics["controls"].get(control) or tested.found()["controls"][control]
    controls = metrics["controls"] | {control: known | {"p": 1e-9, "alarm": True}}
    said = of(request.getfixturevalue(audit), controls=controls)[0]

    assert said.title == recommendations.MENDED[control][0] and re.search(r"\d", said.because) and not said.because.startswith("The control")


def test_a_leak_is_answered_by_the_release_the_records_and_the_training(pool_walk):
    attacks = at_alpha(pool_walk.metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))
    exposure = pool_walk.metrics["exposure"] | {"n_flagged": 12}
    said = of(pool_walk, attacks=attacks, exposure=exposure)

    assert titles(said)[:4] == [
        "Hold the release until this risk is accepted or lowered", "Look at the 12 exposed records",
        "Train with differential privacy, at two or three values of epsilon", "Fit the training data less closely",
    ]  # fmt: skip
    assert said[0].because == "Risk 47 of 100 [42, 53], which is HIGH." and said[0].command == "memleak gate small --max-risk 3"
    assert "12 of 150 records are recognised in more models than luck explains" in said[1].because


def test_of_more_than_half_of_the_records_no_list_is_looked_through(pool_walk):
    attacks = at_alpha(pool_walk.metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))

    assert not any("exposed" in one for one in titles(of(pool_walk, attacks=attacks, exposure=pool_walk.metrics["exposure"] | {"n_flagged": 100})))


def test_what_a_sweep_measured_comes_before_what_it_might(pool_walk):
    attacks = at_alpha(pool_walk.metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))
    shown = json.loads(pool_walk.planned.page_json()) | {"sweep": {"name": "defences", "label": "none"}}
    said = recommendations.of(copy.deepcopy(pool_walk.metrics) | {"attacks": attacks}, shown)

    assert "Choose a defence by what the sweep defences measured" in titles(said)
    assert not any(one.startswith(("Train with", "Fit the")) for one in titles(said))


def test_low_is_held_by_a_gate_and_no_training_is_changed(pool_walk):
    attacks = at_alpha(pool_walk.metrics, rate(0.05, 0.045, 0.055), rate(0.05, 0.045, 0.055))
    said = of(pool_walk, attacks=attacks)

    assert titles(said)[:2] == ["Audit again at every release, with a gate", "Try a stronger attacker before relying on it"]
    assert "10 reference models" in said[1].because and not any("differential" in one for one in titles(said))


@pytest.mark.parametrize(
    ("left", "p_holm", "title"),
    [(rate(0.55, 0.52, 0.58), 0.001, "Give away less than all probabilities"), (rate(0.8, 0.75, 0.85), 0.7, "Do not rely on hiding probabilities")],
)
def test_masking_is_recommended_only_where_labels_alone_tell_less(pool_walk, left, p_holm, title):
    metrics = pool_walk.metrics
    attacks = at_alpha(metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))
    attacks["labels"] = attacks["loss"] | {"auc": left, "options": {"signal": "correctness"}}
    comparison = metrics["comparison"] | {"labels": {"auc": {"difference": -0.2, "low": -0.3, "high": -0.1, "p_holm": p_holm}}}
    said = of(pool_walk, attacks=attacks, comparison=comparison, exposure=None)
    (one,) = [one for one in said if "probabilities" in one.title]

    assert one.title == title and f"[{left['low']:.3f}, {left['high']:.3f}]" in one.because


def test_an_interval_across_a_limit_is_told_how_many_models_decide_it(pool_walk):
    """The middle is 2 points below the limit and the half width 4: four times as many models halve it."""
    found = Verdict("UNDECIDED", 1.0, 0.0, 5.0, "", ())

    assert recommendations._enough(found, Limits(0.03, 0.10), 12) == 48
    assert recommendations._enough(Verdict("UNDECIDED", 2.99, 0.0, 6.0, "", ()), Limits(0.03, 0.10), 12) is None

    attacks = at_alpha(pool_walk.metrics, rate(0.06, 0.05, 0.09), rate(0.05, 0.045, 0.055))
    (one,) = [one for one in of(pool_walk, attacks=attacks) if one.title == "Audit with more models"]
    assert "where there are 12 now" in one.effect and "memleak budget params.yaml" in one.command


def test_a_promise_that_could_not_have_been_refuted_takes_more_canaries(coins):
    found = coins.metrics["epsilon"]
    dp = {"epsilon": 40.0, "delta": 1e-5}
    epsilon = found | {"claimed": 40.0, "p": 1.0, "alarm": False, "claim_note": None}
    said = of(coins, epsilon=epsilon, models=coins.metrics["models"] | GOOD | {"dp": dp, "loosened_by": ["dp"]})

    (one,) = [one for one in said if one.title == "Audit the promise with more canaries"]
    assert "below the claim of 40.00: this audit could not have refuted it" in one.because and "canaries: 600" in one.command


def test_a_refuted_promise_comes_before_all_else(coins):
    epsilon = coins.metrics["epsilon"] | {"epsilon": 2.0, "claimed": 1.0, "p": 1e-6, "alarm": True, "claim_note": None}
    (said,) = of(coins, epsilon=epsilon, models=coins.metrics["models"] | GOOD | {"loosened_by": ["dp"]})

    assert said.title == "Find what breaks the promise" and "at least 2.00" in said.because and "the claim is 1.00" in said.because


def test_pairs_without_a_positive_control_are_told_to_add_one(walk):
    controls = walk.metrics["controls"] | {"positive": {}}
    (one,) = [one for one in of(walk, controls=controls) if one.title == "Add a positive control"]

    assert "None of the 2 audited records" in one.because and "mislabelled: 1" in one.command


def test_a_missed_positive_control_takes_more_rounds_and_nothing_else(walk):
    controls = walk.metrics["controls"] | {"positive": {"mislabelled00": {"found": False, "p_holm": 0.5, "state": "no evidence"}}}

    assert titles(of(walk, controls=controls)) == ["Add rounds"]


def test_a_given_model_without_references_is_told_to_train_some(given_alone, given_walk):
    assert "Train reference models" in titles(of(given_alone)) and "Train reference models" not in titles(of(given_walk))


def test_the_app_may_ask_without_params(pool_walk, walk):
    for one in (pool_walk, walk):
        assert recommendations.of(copy.deepcopy(one.metrics))


def test_more_models_are_more_than_there_are(pool_walk):
    """An interval that ends on the limit crosses it by nothing, and the same models again would not decide it."""
    assert recommendations._enough(Verdict("UNDECIDED", 6.8, 4.0, 10.0, "", ()), Limits(0.03, 0.10), 16) == 18
    assert recommendations._enough(Verdict("UNDECIDED", 6.8, 4.0, 10.0, "", ()), Limits(0.03, 0.10), 15) == 16


def test_labels_that_tell_more_are_not_said_to_tell_as_much(pool_walk):
    metrics = pool_walk.metrics
    attacks = at_alpha(metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))
    attacks["labels"] = attacks["loss"] | {"auc": rate(0.9, 0.85, 0.95), "options": {"signal": "correctness"}}
    comparison = metrics["comparison"] | {"labels": {"auc": {"difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.001}}}
    (one,) = [one for one in of(pool_walk, attacks=attacks, comparison=comparison, exposure=None) if "probabilities" in one.title]

    assert one.title == "Do not rely on hiding probabilities" and "labels tell more" in one.because and "no difference" not in one.because


def test_of_nearly_equal_texts_none_is_counted_twice_and_units_are_no_duplicates(pool_walk):
    attacks = at_alpha(pool_walk.metrics, rate(0.5, 0.45, 0.55), rate(0.05, 0.04, 0.06))
    data = pool_walk.metrics["data"] | {"n": 100, "n_groups": 90, "n_near_duplicates": 3}

    def duplicates(**more: Any) -> list[str]:
        said = of(pool_walk, attacks=attacks, exposure=None, comparison={}, data=data | more)
        return [one.because for one in said if one.title == "Deduplicate the training data"]

    assert duplicates() == ["7 of 100 records repeat another's content, and 3 nearly do."]
    assert duplicates(unit={"column": "patient", "n": 90, "n_joined": 0}) == []


def test_a_pool_that_the_data_do_not_have_is_not_asked_for(pool_walk):
    said = {n: of(pool_walk, alpha=0.001, data=pool_walk.metrics["data"] | {"n": n}) for n in (1797, 10_000)}
    few, many = (next(one for one in said[n] if one.title == "Audit 3,000 records or more").command for n in (1797, 10_000))

    assert "pool:" not in few and "pool: 3000" in many


def test_an_accuracy_of_one_model_has_the_interval_of_its_records(given_alone):
    found = recommendations._accuracy({"n": 1, "n_test": 100, "test_accuracy": rate(0.9, 0.9, 0.9)}, "test")

    assert found["low"] == pytest.approx(0.824, abs=1e-3) and found["high"] == pytest.approx(0.951, abs=1e-3)


def test_too_few_models_for_a_threshold_are_told_with_the_rate_of_the_control(walk):
    attacks = copy.deepcopy(walk.metrics["attacks"])
    attacks[walk.metrics["headline"]] |= {"n_fitted": 4, "models_for_level": 59}
    (one,) = [one for one in of(walk, attacks=attacks) if one.title == "Raise rounds to 59"]

    assert words.rate(walk.metrics["controls"]["level"]) in one.because and "whatever its distribution" in one.effect


def test_metrics_that_find_something_on_shuffled_labels_are_mended_first(given_alone):
    controls = given_alone.metrics["controls"] | {"permuted": {"n": 100, "share_covered": 0.7, "low": 0.6, "high": 0.79, "alarm": True}}
    metrics = copy.deepcopy(given_alone.metrics) | {"controls": controls}
    (said,) = recommendations.of(metrics)

    assert verdict(metrics).is_refused and any("70% leave 0.5" in note for note in verdict(metrics).notes)
    assert said.title == "Find what is wrong with the scores" and "shuffled labels" in said.because
