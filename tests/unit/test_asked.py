"""What is asked of whom: the queries of a plan and their names, and what is noted of a model's answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pytest import approx

from memleak import artefacts, data, params, plan
from memleak.designs import Audited
from memleak.models import ModelError
from memleak.signals import SignalError, outputs, stage, tables

SHADOW = {"kind": "shadow", "models": 3}
RECIPE = {"architecture": "mlp", "hidden": [8], "epochs": 1, "batch_size": 8, "learning_rate": 0.1}
MY_DATA = """
import numpy as np
def rows(seed, n):
    return np.random.default_rng(seed).normal(size=(n, 4)), np.arange(n) % 4
def get_train():
    return rows(0, 20)
def get_test():
    return rows(1, 30)
def get_shadow():
    return rows(2, 40)
"""
MY_MODEL = """
import numpy as np
def get_model():
    return lambda x: np.asarray(x, dtype=np.float64)  # four features, four logits
def get_labels():
    return lambda x: np.asarray(x).argmax(axis=1)
def get_three():
    return lambda x: np.asarray(x, dtype=np.float64)[:, :3]
"""
MY_SIGNALS = """
import numpy as np
from memleak.params import Frozen
class Options(Frozen):
    times: int = 1
    queries: int = 2
def depth(asked, options):
    for _ in range(options.times):
        said = asked.answer(asked.inputs)
    return said.max(axis=1)
def short(asked, options):
    return np.zeros(3)
def nan(asked, options):
    return np.where(asked.sample_id < 2, np.nan, 1.0)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a data set of three parts (20, 30, 40 records of 4 classes), prepared, models and signals of the user's."""
    for name, text in (("my_data.py", MY_DATA), ("my_model.py", MY_MODEL), ("my_signals.py", MY_SIGNALS), ("mine.safetensors", "weights")):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    data.prepare(params.Dataset(**dataset()), tmp_path / "dataset.json")
    return tmp_path


def dataset() -> dict[str, Any]:
    return {
        "parts": {part: {"name": f"my_data.py:get_{name}"} for part, name in (("members", "train"), ("non-members", "test"), ("shadow", "shadow"))}
    }


def build(
    attacks: dict[str, Any] | None = None, references: dict[str, Any] | None = SHADOW, model: dict[str, Any] | None = None, **audit: Any
) -> plan.Plan:
    """The plan of one given audit; two where `second` are the attacks of another."""
    design = {"kind": "given", "model": model or {"name": "my_model.py:get_model"}, **({"references": references} if references else {})}
    second = audit.pop("second", None)
    entry = {"dataset": "mine", "design": design, **({"recipe": "r"} if references else {}), **audit}
    audits = {"a": entry | {"attacks": attacks or {"loss": {"name": "threshold"}}}} | ({"b": entry | {"attacks": second}} if second else {})
    return plan.build(params.validate({"datasets": {"mine": dataset()}, "recipes": {"r": RECIPE}, "audits": audits}))


# -- names ---------------------------------------------------------------------------------------------------------

OLD = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"cnn": {"architecture": "small_cnn", "epochs": 40, "batch_size": 64, "learning_rate": 0.05}},
    "audits": {
        "pairs": {
            "dataset": "digits", "recipe": "cnn", "attacks": {"np": {"name": "single_point"}},
            "design": {"kind": "pairs", "targets": {"mislabelled": 1}, "rounds": 4, "subset_size": 500},
        },
        "halves": {
            "dataset": "digits", "recipe": "cnn", "views": ["identity", "flip"], "attacks": {"rmia": {"name": "rmia", "a": 0.3}},
            "design": {"kind": "halves", "models": 4, "pool": 1400},
        },
        "coins": {
            "dataset": "digits", "recipe": "cnn", "attacks": {"loss": {"name": "threshold"}},
            "design": {"kind": "canaries", "canaries": 100, "subset_size": 500},
        },
    },
}  # fmt: skip
OLD_PATHS = [
    "results/signals/cnn-2dac9e6b/targets-8046d877/base-n500-s0-m0000-0004.parquet",
    "results/signals/cnn-2dac9e6b/targets-8046d877/with-mislabelled00-n500-s0-m0000-0004.parquet",
    "results/signals/cnn-2dac9e6b/pool-e0021d79/halves-p1400-s0-m0000-0004.parquet",
    "results/signals/cnn-2dac9e6b/population-fe3deaab/halves-p1400-s0-m0000-0004.parquet",
    "results/signals/cnn-2dac9e6b/canaries-abe71725/canaries-c100-n500-s0-m0000-0001.parquet",
]


def test_what_was_made_before_there_were_given_models_is_still_found():
    """These paths were noted then: who updates retrains nothing and asks nobody again."""
    found = plan.build(params.validate(OLD))

    assert list(found.datasets) == ["digits-efd7bdb5"]
    assert [path for audit in found.audits.values() for path in (*audit.signals(), *audit.population_signals())] == OLD_PATHS


def test_the_given_model_and_its_references_are_asked_the_same(folder):
    found = build().audits["a"]

    assert {query for _, query in found.all_asked()} == {found.query}
    assert next(shard for shard, _ in found.all_asked()) is None and len(found.all_asked()) == 2
    assert found.signals()[0].startswith("results/signals/given/my-model-")


def test_references_are_not_asked_for_an_attack_that_does_not_compare_with_them(folder):
    """A label-only attack of 200 queries a record would ask every reference as often, for nothing."""
    found = build({"loss": {"name": "threshold"}, "noise": {"name": "label_only", "method": "noise"}, "offline": {"name": "lira", "mode": "offline"}})

    assert found.audits["a"].signals("loss") == found.audits["a"].signals()[:1] and len(found.audits["a"].signals("noise")) == 1
    assert found.audits["a"].signals("offline") == found.audits["a"].signals() and len(found.audits["a"].signals()) == 2
    assert sum(bool(query.signals) for _, query in found.audits["a"].all_asked()) == 1


def test_a_query_is_read_back_from_its_json_and_says_nothing_empty(folder):
    query = build({"top": {"name": "top_k"}}).audits["a"].all_asked()[-1][1]
    facts = json.loads(query.canonical_json())

    assert facts == query.facts and facts["logits"] is True and facts["others"] == ["shadow"]
    assert all(value not in (None, [], ()) for value in facts.values())


def test_an_attack_that_reads_logits_asks_everybody_again_and_trains_nothing(folder):
    before, after = build(), build({"loss": {"name": "threshold"}, "top": {"name": "top_k"}})

    assert after.models() == before.models()
    assert set(before.queries) < set(after.queries) and len(after.queries) == 2
    assert after.audits["a"].signals("loss") == before.audits["a"].signals("loss")
    assert len(after.audits["a"].signals("top")) == 2 and not set(after.audits["a"].signals("top")) & set(after.audits["a"].signals("loss"))


def test_attacks_that_want_the_same_ask_once_within_an_audit_and_across_audits(folder):
    found = build(
        {"loss": {"name": "threshold"}, "top": {"name": "top_k"}, "shokri": {"name": "shadow"}}, second={"salem": {"name": "top_k", "k": 1}}
    )

    assert len(found.queries) == 2
    assert found.audits["a"].signals("top") == found.audits["a"].signals("shokri") == found.audits["b"].signals("salem")


def test_an_attack_with_views_of_its_own_leaves_those_of_the_audit_to_the_others(folder):
    attacks = {"loss": {"name": "threshold"}, "moved": {"name": "label_only", "views": ["identity", "shift-2"]}}
    found = build(attacks, views=["identity", "flip"]).audits["a"]

    assert found.asked_by("loss", found.query).views == ("identity", "flip")
    assert found.asked_by("moved", found.query).views == ("identity", "shift-2")
    assert found.asked_by(None, found.query) == found.query


def test_a_signal_that_takes_queries_of_its_own_is_measured_in_one_view(folder):
    attacks = {"loss": {"name": "threshold"}, "noise": {"name": "label_only", "method": "noise", "queries": 50}}
    found = build(attacks, views=["identity", "flip"]).audits["a"]
    asked = found.asked_by("noise", found.query).facts

    assert asked["views"] == ["identity"]
    assert [(one["column"], one["options"]["queries"]) for one in asked["signals"]] == [("noise_robustness", 50)]
    assert "signals" not in found.query.facts


def test_a_gradient_is_asked_for_by_whoever_reads_it(folder):
    found = build({"g": {"name": "threshold", "signal": "gradient_norm"}}).audits["a"]

    assert [one["name"] for one in found.asked_by("g", found.query).facts["signals"]] == ["gradient_norm"]


def test_a_signal_of_the_users_has_its_options_and_code_in_the_name(folder):
    def names(**options: Any) -> tuple[str, str]:
        signals = {"depth": {"name": "my_signals.py:depth", **options}}
        found = build({"loss": {"name": "threshold"}, "depth": {"name": "threshold", "signal": "depth"}}, signals=signals).audits["a"]
        return found.asked_by("loss", found.query).name, found.asked_by("depth", found.query).name

    first = names()
    assert names(times=2) != first and names(times=2)[0] == first[0]
    (folder / "my_signals.py").write_text("# a comment\n" + MY_SIGNALS)
    assert names() == first
    (folder / "my_signals.py").write_text(MY_SIGNALS.replace("said.max", "said.min"))
    assert names()[0] == first[0] and names()[1] != first[1]


def test_a_changed_function_gives_the_model_another_name_and_a_comment_does_not(folder):
    def name() -> str:
        return next(iter(build().given))

    first = name()
    (folder / "my_model.py").write_text("# a comment\n" + MY_MODEL)
    assert name() == first
    (folder / "my_model.py").write_text(MY_MODEL.replace("float64", "float32"))
    assert name() != first and name().startswith("my-model-")


def test_a_changed_model_leaves_its_references_where_they_are(folder):
    before = build().models()
    (folder / "my_model.py").write_text(MY_MODEL.replace("float64", "float32"))

    assert build().models() == before


def test_code_and_weights_are_inputs_of_the_job_that_asks(folder):
    """New content of a weights file moves no name: the workflow sees it, since it compares the content of inputs."""
    (given,) = build(model={"name": "my_model.py:get_model", "weights": "mine.safetensors"}).given.values()
    name = given.name
    (folder / "mine.safetensors").write_text("other weights")

    assert given.files() == ["mine.safetensors", "my_model.py"] and name.startswith("mine-")
    assert next(iter(build(model={"name": "my_model.py:get_model", "weights": "mine.safetensors"}).given)) == name


@pytest.mark.parametrize(
    "changed", [{"output": "probabilities"}, {"inputs": "stored"}, {"weights": "mine.safetensors"}, {"name": "my_model.py:get_three"}]
)
def test_a_model_that_is_asked_otherwise_has_another_name(folder, changed):
    model = {"name": "my_model.py:get_model"}

    assert list(build(model=model).given) != list(build(model=model | changed).given)


def test_other_records_give_the_model_another_name(folder):
    before = next(iter(build().given))
    (folder / "my_data.py").write_text(MY_DATA.replace("normal", "uniform"))

    assert next(iter(build().given)) != before


# -- what is noted -------------------------------------------------------------------------------------------------

ASKED = {"samples": "given", "seed": 0, "views": ["identity"], "members": "members", "non_members": "non-members", "overlap": "refuse"}


def answered(folder, function="get_model", asked=None, **model: Any):
    """The file of a given model's answers."""
    given = params.GivenModel(name=f"{folder}/my_model.py:{function}", **model)
    stage.query_given("mine", given, folder / "dataset.json", ASKED | (asked or {}), folder / "answers.parquet", "cpu")
    return folder / "answers.parquet"


def signal(name: str, folder, column="depth", **options: Any) -> dict[str, Any]:
    return {"column": column, "name": f"{folder}/my_signals.py:{name}", "options": {"times": 1, "queries": 2} | options}


def inputs_of(folder) -> np.ndarray:
    return np.asarray(data.read(folder / "dataset.json").inputs)


def test_one_row_a_sample_and_view_with_all_signals_that_logits_tell(folder):
    table = pq.read_table(answered(folder))

    assert table.column_names == ["model_id", "sample_id", "view", *artefacts.SIGNALS]
    assert table["sample_id"].to_pylist() == list(range(50)) and set(table["model_id"].to_pylist()) == {"mine"}
    others = np.sort(np.delete(inputs_of(folder)[4], 0))  # record 4 has label 0
    assert table["margin"][4].as_py() == approx(inputs_of(folder)[4, 0] - np.log(np.exp(others).sum()), abs=1e-5)


def test_logits_are_noted_where_they_are_asked_for(folder):
    (group,) = artefacts.row_groups(answered(folder, asked={"logits": True, "others": ["shadow"]}), ["logits"])

    assert group["logits"] == approx(inputs_of(folder), abs=1e-6) and group["logits"].shape == (90, 4)


def test_a_small_row_group_moves_no_answer(folder, monkeypatch):
    whole = pq.read_table(answered(folder, asked={"logits": True}))
    monkeypatch.setattr(tables, "SAMPLES_PER_GROUP", 7)
    path = answered(folder, asked={"logits": True})

    assert pq.read_table(path).equals(whole) and pq.ParquetFile(path).num_row_groups == 8


def test_labels_tell_whether_they_are_right_and_nothing_else_is_written(folder):
    table = pq.read_table(answered(folder, "get_labels", output="labels"))
    right = inputs_of(folder)[:50].argmax(axis=1) == data.read(folder / "dataset.json").labels[:50]

    assert table.column_names == ["model_id", "sample_id", "view", "is_correct"]
    assert table["is_correct"].to_pylist() == right.tolist()


def test_noise_is_measured_on_labels_alone(folder):
    noise = {"column": "noise_robustness", "name": "noise_robustness", "options": {"queries": 20}}
    path = answered(folder, "get_labels", {"signals": [noise]}, output="labels")
    robust = pq.read_table(path)["noise_robustness"].to_numpy()
    right = pq.read_table(path)["is_correct"].to_numpy()

    assert (robust[~right] == 0).all() and (robust[right] > 0).all() and len(np.unique(robust)) > 3
    assert 0 < artefacts.read_facts(path)["n_queries"]["noise_robustness"] <= 20


def test_the_facts_say_how_well_the_model_does_on_members_and_on_others(folder):
    facts = artefacts.read_facts(answered(folder))["models"][0]
    right = inputs_of(folder)[:50].argmax(axis=1) == data.read(folder / "dataset.json").labels[:50]

    assert (facts["n_train"], facts["n_test"]) == (20, 30)
    assert (facts["train_accuracy"], facts["test_accuracy"]) == (approx(right[:20].mean()), approx(right[20:].mean()))
    assert facts["train_loss"] == approx(pq.read_table(folder / "answers.parquet")["loss"].to_numpy()[:20].mean(), abs=1e-6)
    assert artefacts.read_facts(answered(folder, "get_labels", output="labels"))["models"][0]["train_loss"] is None


def test_a_model_of_fewer_classes_never_says_those_of_a_shadow_part(folder):
    """A class that the model cannot answer with has no probability, and its records are answered wrongly."""
    path = answered(folder, "get_three", {"logits": True}, classes=3)
    (group,) = artefacts.row_groups(path, ["logits", "is_correct", "confidence", "loss"])
    label = data.read(folder / "dataset.json").labels[:50]

    assert (group["logits"][:, 3] == np.float32(outputs.NEVER)).all()
    assert not group["is_correct"][label == 3].any() and group["is_correct"][label < 3].any()
    assert np.isfinite(group["confidence"]).all() and (group["loss"][label == 3] > 1000).all()


def test_fewer_classes_that_are_not_declared_are_refused(folder):
    with pytest.raises(ModelError, match="gives 3 logits a record, the data set has 4 classes"):
        answered(folder, "get_three")


def test_a_signal_of_the_users_is_noted_beside_the_others_and_its_queries_are_counted(folder):
    path = answered(folder, asked={"signals": [signal("depth", folder, times=2)], "views": ["identity"]})

    assert pq.read_table(path)["depth"].to_numpy() == approx(inputs_of(folder)[:50].max(axis=1), abs=1e-6)
    assert artefacts.read_facts(path)["n_queries"] == {"depth": 2.0}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("depth", {"times": 3}, "depth: more than 2 queries a sample were made; raise queries, or mend the signal"),
        ("short", {}, r"short: it gave shape \(3,\); expected one finite number for each of 50 samples"),
        ("nan", {}, "nan: it gave 2 values that are not finite; expected one finite number for each of 50 samples"),
    ],
)
def test_a_signal_that_cannot_be_noted_is_named(folder, name, options, expected):
    with pytest.raises(SignalError, match=expected):
        answered(folder, asked={"signals": [signal(name, folder, **options)]})


def test_a_black_box_has_no_gradient(folder):
    gradient = {"column": "gradient_norm", "name": "gradient_norm", "options": {}}

    with pytest.raises(SignalError, match="the model is a black box, and gradients need the network; give its code and weights"):
        answered(folder, asked={"signals": [gradient]})


def test_a_network_is_asked_for_its_gradient(folder):
    """Small where the model is sure and right: the norm rises with the loss."""
    (folder / "my_network.py").write_text("from torch import nn\ndef get_model():\n    return nn.Linear(4, 4)\n")
    gradient = {"column": "gradient_norm", "name": "gradient_norm", "options": {}}
    given = params.GivenModel(name=f"{folder}/my_network.py:get_model")
    stage.query_given("net", given, folder / "dataset.json", ASKED | {"signals": [gradient]}, folder / "answers.parquet", "cpu")
    table = pq.read_table(folder / "answers.parquet")

    error, inputs = 1 - np.exp(-table["loss"].to_numpy()), inputs_of(folder)[:50]
    assert (table["gradient_norm"].to_numpy() > 0.9 * error * np.sqrt(1 + (inputs**2).sum(axis=1))).all()  # the label's own row of weights and bias


def test_members_and_non_members_that_overlap_stop_the_question(folder):
    (folder / "same.py").write_text(MY_DATA.replace("return rows(1, 30)", "return rows(0, 30)"))
    parts = {part: {"name": f"{folder}/same.py:get_{name}"} for part, name in (("members", "train"), ("non-members", "test"))}
    data.prepare(params.Dataset(parts=parts), folder / "dataset.json")

    with pytest.raises(ValueError, match="20 of the 30 records of 'non-members' equal one of 'members'"):
        answered(folder)


def test_nobody_left_to_ask_is_said(monkeypatch):
    nobody = np.empty(0, dtype=np.int64)
    monkeypatch.setattr(stage, "roster_of", lambda asked, records: Audited(nobody, nobody, nobody).roster(records))

    class Nobody:
        labels = np.empty(0, dtype=np.int64)

    with pytest.raises(ValueError, match="population: no sample is left to ask about"):
        stage._roster({"samples": "population"}, Nobody())
