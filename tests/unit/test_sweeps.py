"""Sweeps: one audit becomes a grid of ordinary ones; names are shared wherever recipe and query are the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from memleak import params, plan
from memleak.params import ParamsError

BASE: dict[str, Any] = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"cnn": {"preset": "digits-cnn", "dropout": 0.1}},
    "audits": {
        "defences": {
            "dataset": "digits", "recipe": "cnn", "design": {"kind": "halves", "models": 8, "pool": 1400},
            "attacks": {"loss": {"name": "threshold"}, "rmia": {"name": "rmia", "mode": "offline"}}, "headline": "rmia",
        }
    },
}  # fmt: skip


def swept(sweep: Any, **changes: Any) -> params.Params:
    config = copy.deepcopy(BASE)
    config["audits"]["defences"] |= {"sweep": sweep, **changes}
    return params.validate(config)


def test_every_variant_is_an_audit_of_its_own_and_the_first_has_no_changes():
    found = swept({"recipe": {"dropout": {"dropout": 0.5}}})

    assert list(found.audits) == ["defences-none", "defences-dropout"]
    assert list(found.sweeps["defences"]) == ["none", "dropout"]
    assert found.audits["defences-none"].recipe == "cnn" and found.recipes["cnn"].dropout == 0.1
    assert found.audits["defences-dropout"].recipe == "cnn-dropout" and found.recipes["cnn-dropout"].dropout == 0.5
    assert found.audits["defences-dropout"].sweep is None


def test_each_stands_for_several_variants_wherever_it_is_written():
    found = swept({"recipe": {"dp": {"dp": {"epsilon": {"each": [1, 8]}, "clip": {"each": [0.5, 2.0]}}}}})

    assert list(found.sweeps["defences"]) == ["none", "dp-1-0-5", "dp-1-2-0", "dp-8-0-5", "dp-8-2-0"]
    found_dp = found.recipes["cnn-dp-8-0-5"].dp
    assert found_dp is not None and (found_dp.epsilon, found_dp.clip) == (8, 0.5)


def test_a_sweep_over_both_axes_is_a_grid():
    found = swept({"recipe": {"dropout": {"dropout": 0.5}}, "release": {"top": [{"top_k": 3}], "labels": ["labels"]}})

    assert list(found.sweeps["defences"]) == ["none", "top", "labels", "dropout", "dropout-top", "dropout-labels"]
    assert found.audits["defences-dropout-labels"].recipe == "cnn-dropout"


def test_changes_inside_a_field_leave_the_rest_of_it():
    config = copy.deepcopy(BASE)
    config["recipes"]["cnn"]["dp"] = {"noise_multiplier": 1.0, "clip": 0.3}
    config["audits"]["defences"]["sweep"] = {"recipe": {"loud": {"dp": {"noise_multiplier": 4.0}}}}

    found = params.validate(config).recipes["cnn-loud"].dp

    assert found is not None and (found.noise_multiplier, found.clip) == (4.0, 0.3)


def test_a_release_trains_nothing_and_a_variant_without_changes_shares_the_models_of_other_audits():
    config = copy.deepcopy(BASE)
    config["audits"]["plain"] = copy.deepcopy(config["audits"]["defences"])
    config["audits"]["defences"]["sweep"] = {"release": {"top": [{"top_k": 3}], "labels": ["labels"]}}

    planned = plan.build(params.validate(config))

    (models,) = {tuple(audit.models()) for audit in planned.audits.values()}
    assert len(planned.recipes) == 1 and len(models) == 1
    assert planned.audits["defences-none"].signals() == planned.audits["plain"].signals()
    assert len({tuple(audit.signals()) for audit in planned.audits.values()}) == 3  # plain and none ask alike


def test_every_training_defence_has_models_of_its_own_and_all_have_the_same_members():
    planned = plan.build(swept({"recipe": {"dropout": {"dropout": 0.5}, "decay": {"weight_decay": 0.01}}}))

    assert len(set(planned.models())) == 3
    assert len({tuple(shard.name for shard, _ in audit.shards) for audit in planned.audits.values()}) == 1


def test_the_population_is_without_the_records_that_training_took():
    planned = plan.build(swept({"recipe": {"stop": {"early_stopping": {"records": 100}}}}))

    none, stop = (planned.audits[f"defences-{label}"].outside for label in ("none", "stop"))
    assert none is not None and stop is not None
    assert "reserve" not in none.facts and stop.facts["reserve"] == 100 and none.name != stop.name


def test_what_a_sweep_compares_is_listed_once():
    planned = plan.build(swept({"release": {"top": [{"top_k": 3}]}})).sweeps["defences"]

    inputs = planned.inputs()

    assert len(inputs) == len(set(inputs))
    assert "results/metrics/defences-top.json" in inputs and "results/audits/defences-none/scores/rmia.parquet" in inputs


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({}, "audits.defences.sweep: nothing varies; give recipe"),
        (3, "audits.defences.sweep: expected recipe and release, found 3"),
        ({"recepi": {}}, "audits.defences.sweep: unknown key 'recepi' (did you mean 'recipe'?)"),
        ({"recipe": {"none": {"dropout": 0.5}}}, "recipe.none: this is the variant without changes, and has some"),
        ({"recipe": {"a": {"dropout": {"each": 0.5}}}}, "expected {each: [value, value, ...]} and nothing beside it, found {'each': 0.5}"),
        ({"recipe": {"a": {"dropout": {"each": [0.5, 0.50]}}}}, "two variants would be called 'a-0-5'"),
        ({"recipe": {"a": {"dropot": 0.5}}}, "recipes.cnn-a: unknown key 'dropot' (did you mean 'dropout'?)"),
        ({"recipe": {"A": {"dropout": 0.5}}}, "small letters, digits and '-' only"),
        ({"recipe": {"a": {"early_stopping": {"records": 398}}}}, "takes 398 records outside the pool, which leaves 397"),
        ({"recipe": {"a": {"distillation": {"records": 200}, "selena": {}}}}, "distillation too is asked for"),
        ({"recipe": {"a": {"dp": {}}}}, "expected noise_multiplier or epsilon, neither is given"),
        ({"recipe": {"a": {"dp": {"epsilon": 1, "noise_multiplier": 1}}}}, "both are (1.0 and 1.0) given"),
        ({"recipe": {"a": {"dp": {"noise_multiplier": 0}}}}, "dp.noise_multiplier"),
        ({"recipe": {"a": {"dp": {"epsilon": 1, "clip": -1}}}}, "dp.clip"),
        ({"recipe": {"a": {"dp": {"epsilon": 1}, "mixup": 1.0}}}, "mixup does not go with it"),
        ({"recipe": {"a": {"dp": {"epsilon": 1}, "gradient_clip": 1.0}}}, "gradient_clip does not go with it"),
        ({"recipe": {"a": {"flooding": 0.1, "relaxed_loss": 0.1}}}, "leave one of them out"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_says_why(sweep, says):
    with pytest.raises(ParamsError) as error:
        swept(sweep)

    assert says in str(error.value)


def test_records_in_reserve_need_a_pool():
    with pytest.raises(
        ParamsError, match="distillation takes 100 records that are neither trained on nor audited, and the pool is the whole data set"
    ):
        swept(
            {"recipe": {"a": {"distillation": {"records": 100}}}},
            design={"kind": "halves", "models": 8},
            attacks={"loss": {"name": "threshold"}},
            headline="loss",
        )


def test_a_variant_that_is_called_as_another_audit_is_refused():
    config = copy.deepcopy(BASE)
    config["audits"]["defences-top"] = copy.deepcopy(config["audits"]["defences"])
    config["audits"]["defences"]["sweep"] = {"release": {"top": [{"top_k": 3}]}}

    with pytest.raises(ParamsError, match="its variant 'defences-top' is called as another entry"):
        params.validate(config)


def test_nobody_writes_the_list_of_sweeps():
    with pytest.raises(ParamsError, match="a sweep is part of an audit"):
        params.validate(BASE | {"sweeps": {}})


def test_a_defence_that_loosens_the_fit_is_told_to_whoever_measures():
    planned = plan.build(swept({"recipe": {"stop": {"early_stopping": {"records": 50}, "mixup": 0.5}, "drop": {"dropout": 0.5}}})).audits

    assert '"loosened_by":["early_stopping","mixup"]' in planned["defences-stop"].headline_json(False)
    assert "loosened_by" not in planned["defences-drop"].headline_json(False)
