"""Units: records of one patient are drawn, measured and exposed as one."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documented import errors_of
from PIL import Image

from memleak import artefacts, data, params
from memleak.attacks import threshold
from memleak.attacks.pools import Models
from memleak.data import columns, images
from memleak.data import stage as data_stage
from memleak.designs import Coins, Complements, Rounds
from memleak.metrics import pool_audit, pooled, roc, stage
from memleak.metrics.audit import models_found
from memleak.metrics.units import Units
from memleak.report import page

ATTACK = {"id": "loss", "name": "threshold", "options": threshold.Options().model_dump(), "alpha": 0.05}
SETTINGS = {"headline": "loss", "allow_mixed": False, "epsilon": {"delta": 1e-5, "confidence": 0.95, "strategy": "bonferroni"}}
DATA = {"name": "w", "n": 262, "n_classes": 2, "shape": [4], "class_names": ["no", "yes"], "licence": "none", "n_groups": 60}
MODEL = {
    "device": "cpu", "torch": "2.9.0", "engine": "sequential", "n_train": 130, "n_test": 130, "train_loss": 0.1, "test_loss": 0.5, "train_accuracy": 1.0,
    "test_accuracy": 0.9, "loss_curve": [1.0], "accuracy_curve": [0.9],
}  # fmt: skip
PLUGIN = """
import numpy as np
from memleak.data import Samples
def load(source):
    draw = np.random.default_rng(0)
    x = draw.normal(size=({n}, 4))
    x[{twins}] = x[0]
    return Samples(x, (np.arange({n}) % 2), columns={{"patient": {patients}, "age": draw.integers(20, 90, {n}), "note": np.array([f"n{{i}}" for i in range({n})])}})
"""


def prepared(folder, patients, twins=(), unit="patient"):
    (folder / "mine.py").write_text(PLUGIN.format(n=len(patients), twins=list(twins), patients=f"np.array({list(patients)!r}, dtype=object)"))
    data.prepare(params.Dataset(name=f"{folder / 'mine.py'}:load", unit=unit), folder / "dataset.json")
    return data.read(folder / "dataset.json")


@dataclass(frozen=True)
class World:
    """Scores of models on complementary halves of units, and the unit of each record."""

    scores: np.ndarray  # [M, N]
    is_member: np.ndarray  # [M, N]
    unit: np.ndarray  # [N]


def world(sizes, leak=0.0, models=8, within=0.3, seed=0) -> World:
    """Records of a unit share most of their noise, in each model anew; `leak` moves what a model was trained on."""
    draw, unit = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    half = np.stack([draw.permutation(np.arange(len(sizes)) < len(sizes) // 2) for _ in range(models // 2)])
    members = np.stack([half, ~half], axis=1).reshape(models, -1)[:, unit]
    noise = draw.normal(size=(models, len(sizes)))[:, unit] + within * draw.normal(size=members.shape)
    return World(noise + np.asarray(leak)[..., unit] * members if np.ndim(leak) else noise + leak * members, members, unit)


SIZES = np.arange(60) % 8 + 1  # 60 units of 1 to 8 records, 262 in all


def written(folder, made: World, names=None, slices=None):
    """The files that an audit has when its scores are made: with the names of units, or without any."""
    n, models = len(made.unit), [f"m{i:02d}" for i in range(len(made.scores))]
    folder.mkdir()
    plan = pd.DataFrame({
        "model_id": models, "shard": "s", "recipe": "r", "seed": 0, "round": np.arange(len(models)) // 2, "role": "pool", "arm": "half", "target": None,
        "is_target": True, "membership": [np.packbits(row).tobytes() for row in made.is_member],
    })  # fmt: skip
    samples = pd.DataFrame({
        "sample_id": np.arange(n), "source_id": np.arange(n), "label": np.arange(n) % 2, "group_id": made.unit, "is_population": False,
        "is_audited": True, **{artefacts.SLICE + name: values for name, values in (slices or {}).items()},
    })  # fmt: skip
    facts = {"audit": "small", "design": {"kind": "halves"}, "recipe": "r", "seed": 0, "data": DATA}
    if names is not None:
        samples["unit"] = np.asarray(names)[made.unit]
        facts["data"] = DATA | {"unit": {"column": "patient", "n": len(names), "n_joined": 0}}
    if slices is not None:
        facts["slices"] = [*slices, "label"]
    artefacts.write_table(folder / "plan.parquet", plan, facts)
    artefacts.write_table(folder / "samples.parquet", samples)
    table = pa.table({
        "target_id": np.repeat(models, n), "sample_id": np.tile(np.arange(n), len(models)),
        **{name: made.scores.ravel() for name in ("score", "folded", "odd", "even")},
    })  # fmt: skip
    table = table.replace_schema_metadata({"memleak": json.dumps({"n_references": 6, "n_references_of_mocks": 4, "n_queries": 1.0})})
    pq.write_table(table, folder / "loss.parquet", row_group_size=n)
    return folder


def measured(folder):
    """Thresholds, decisions and metrics of the files in a folder."""
    plan, scores, fitted = folder / "plan.parquet", folder / "loss.parquet", folder / "loss.json"
    pool_audit.threshold(plan, scores, ATTACK, fitted)
    pool_audit.decide(plan, [fitted], [scores], folder / "decisions.parquet")
    return pool_audit.measure(
        plan, folder / "samples.parquet", {"loss": artefacts.read_json(fitted)}, [scores], SETTINGS, models_found({"data": DATA}, [MODEL], False)
    )


NAMES = np.array([f"p{i:02d}" for i in range(60)])


# The data


def test_records_of_a_unit_and_records_of_equal_content_share_a_group(tmp_path):
    dataset = prepared(tmp_path, ["a", "b", "a", "c", "b", "d"], twins=[3])  # the record of c equals the first of a

    assert dataset.group_id.tolist() == [0, 1, 0, 0, 1, 2]
    assert dataset.facts["unit"] == {"column": "patient", "n": 4, "n_joined": 2}
    assert dataset.facts["n_groups"] == 3


def test_units_that_are_all_different_are_groups_of_content():
    content = np.array([0, 1, 0, 2, 1])

    assert columns.joined_groups(content, np.arange(5).astype(str), "w")[0].tolist() == content.tolist()


def test_groups_do_not_depend_on_what_units_are_called():
    content, units = np.array([0, 1, 0, 2, 1, 3]), np.array(["b", "c", "a", "c", "d", "b"])

    first, second = (columns.joined_groups(content, names, "w") for names in (units, np.char.translate(units, str.maketrans("abcd", "dbca"))))

    assert first[0].tolist() == second[0].tolist() == [0, 1, 0, 1, 1, 0]
    assert first[1] == second[1] == {"n": 4, "n_joined": 4}


def test_columns_are_kept_beside_the_arrays_and_read_when_asked_for(tmp_path):
    dataset = prepared(tmp_path, ["a", "b", "a"], unit=None)

    assert dataset.columns["patient"].tolist() == ["a", "b", "a"]
    assert dataset.columns["age"].dtype == np.int64
    assert "unit" not in dataset.facts and set(dataset.facts["sha256"]) == {"inputs", "labels", "group_id", "atypicality_rank"}


def test_columns_of_one_value_a_row_are_kept_from_parquet_files_of_images(tmp_path):
    """Those that every file has; lists are no columns to slice by, and times are text."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "PNG")
    known = {
        "image": [{"bytes": buffer.getvalue()}] * 3, "label": [0, 1, 0], "patient": ["a", None, "b"], "boxes": [[1], [2], []],
        "day": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]), "site": pd.Categorical(["x", "y", "x"]),
    }  # fmt: skip
    pd.DataFrame(known).to_parquet(tmp_path / "train-0.parquet")
    pd.DataFrame(known | {"camera": [1, 2, 3]}).to_parquet(tmp_path / "train-1.parquet")

    found = data.check(images.read_parquet(tmp_path), "mine").columns

    assert list(found) == ["patient", "day", "site"]
    assert found["patient"].tolist() == ["a", None, "b"] * 2 and found["site"].tolist() == ["x", "y", "x"] * 2
    assert found["day"][0].startswith("2020-01-01")


def test_a_changed_column_is_noticed(tmp_path):
    dataset = prepared(tmp_path, ["a", "b", "a"])
    columns.write(tmp_path, {name: values[::-1] for name, values in dataset.columns.items()})

    with pytest.raises(artefacts.ArtefactError, match=r"not the content that dataset\.json describes"):
        assert data.read(tmp_path / "dataset.json").columns


BAD = {
    "a unit that no column is called": ({"unit": "person"}, ["a", "b"], "unit: the data set has no column 'person'; it has patient, age, note"),
    "records of nobody": ({}, ["a", None, "b", " "], "column patient is missing in 2 of 4 records"),
    "one unit alone": ({}, ["a", "a", "a"], "the 1 units are one"),
    "units of several kinds": ({}, ["a", 7, "b"], "column patient holds mixed-integer values"),
}


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.replace(" ", "-"))
def test_units_that_cannot_be_are_refused_in_one_sentence(tmp_path, fault):
    unit, patients, said = BAD[fault]

    with pytest.raises(columns.ColumnError, match=said):
        prepared(tmp_path, patients, **unit)


def test_columns_of_another_length_or_called_label_are_refused():
    with pytest.raises(columns.ColumnError, match=r"column age has shape \(2,\), expected one value for each of 3 records"):
        columns.checked({"age": [1, 2]}, 3, "mine")
    with pytest.raises(columns.ColumnError, match="this name stands for the label itself"):
        columns.checked({"label": [1, 2, 3]}, 3, "mine")


def test_numbers_with_gaps_are_floats_and_text_with_gaps_has_none():
    found = columns.checked({"age": [1, None, 3], "sex": ["f", np.nan, "m"], "old": [True, False, True]}, 3, "mine")

    assert np.isnan(found["age"][1]) and found["age"][2] == 3.0
    assert found["sex"].tolist() == ["f", None, "m"]
    assert found["old"].dtype == bool


def test_whole_floats_name_units_without_a_point():
    assert columns.text_of(np.array([17.0, 0.5, np.nan])).tolist() == ["17", "0.5", None]


def test_a_data_set_without_unit_keeps_its_name():
    assert params.Dataset(name="digits").identity() == {"name": "digits"}
    assert params.Dataset(name="digits", unit="writer").identity() == {"name": "digits", "unit": "writer"}


# The designs


@pytest.fixture
def patients(tmp_path):
    """60 units of 1 to 8 records in random order."""
    return prepared(tmp_path, np.random.default_rng(1).permutation(np.repeat(NAMES, SIZES)).tolist())


def test_halves_hold_whole_units(patients):
    for task in Complements(0, 0, 4).tasks(patients):
        inside = set(patients.group_id[task.members])
        assert not inside & set(np.delete(patients.group_id, task.members))
        assert len(inside) == 30


def test_canaries_are_of_different_units_and_the_base_has_no_record_of_theirs(patients):
    shard = Coins(0, 0, 2, canaries=20, subset_size=40)
    canaries = shard.tasks(patients)[0].canaries.source_id

    assert len(set(patients.group_id[canaries])) == 20
    for task in shard.tasks(patients):
        base = np.setdiff1d(task.members, canaries)
        assert not set(patients.group_id[base]) & set(patients.group_id[canaries])


def test_an_audited_record_of_pairs_is_alone_of_its_unit_in_either_arm(patients):
    for task in Rounds("random00", 80, 0, "fit", 0, 6).tasks(patients):
        assert patients.group_id[task.target.source_id] not in patients.group_id[task.members]


def test_the_plan_names_the_unit_of_each_sample_and_its_slices(tmp_path, patients):
    audit = {
        "audit": "small", "seed": 0, "dataset": "mine", "recipe": "r", "design": {"kind": "halves", "models": 2}, "shards": [], "slices": ["age", "label"],
        "asked": [{"samples": "pool", "seed": 0, "views": ["identity"]}],
    }  # fmt: skip
    data_stage.plan(tmp_path / "dataset.json", audit, tmp_path / "plan.parquet", tmp_path / "samples.parquet")
    samples = pd.read_parquet(tmp_path / "samples.parquet")

    assert samples["unit"].tolist() == patients.columns["patient"].tolist()
    assert samples["slice:age"].tolist() == patients.columns["age"].tolist() and "slice:label" not in samples
    assert artefacts.read_facts(tmp_path / "plan.parquet")["data"]["unit"]["n"] == 60
    for name, said in (
        ("agee", "no column 'agee'; it has patient, age, note"),
        ("note", "column note has 262 different texts, at most 100 make slices"),
    ):
        with pytest.raises(columns.ColumnError, match=f"audits.small.slices: .*{said}"):
            data_stage.plan(tmp_path / "dataset.json", audit | {"slices": [name]}, tmp_path / "p", tmp_path / "s")


# The metrics


def units_of(groups, **more):
    n = len(groups)
    known = {"sample_id": np.arange(n), "source_id": np.arange(n), "label": 0, "group_id": groups, "unit": [f"u{g}" for g in groups]}
    return Units.of(pd.DataFrame(known | more))


def test_scores_of_a_unit_are_averaged_over_the_records_that_have_one():
    """Units 7, 3 and 5 by hand, in order of their first records."""
    found = units_of([7, 3, 7, 5, 3, 7])

    mean = found.mean(np.array([[1.0, 2, 3, 4, 6, 8], [np.nan, 2, 3, np.nan, 6, 8]]))

    assert mean[0].tolist() == [4.0, 4.0, 4.0]
    assert mean[1, :2].tolist() == [5.5, 4.0] and np.isnan(mean[1, 2])
    assert found.table["sample_id"].tolist() == [0, 1, 3] and found.table["n_records"].tolist() == [3, 2, 1]


def test_a_unit_has_its_most_frequent_label_and_the_mean_of_a_measure():
    ages = np.arange(30.0)
    found = units_of(
        [0] * 3 + [1] * 2 + list(range(2, 27)), label=[4, 9, 9, 6, 5] + [1] * 25, **{"slice:age": ages, "slice:sex": ["f", "m", "f"] * 10}
    )

    assert found.table["label"].tolist()[:3] == [9, 5, 1]  # of equally frequent ones the first
    assert found.table["slice:age"].tolist()[:2] == [1.0, 3.5]
    assert found.table["slice:sex"].tolist()[0] == "f"


def test_units_that_are_joined_by_equal_content_are_named_together():
    found = units_of([0, 0, 0, 1], unit=["a", "b", "a", "c"])

    assert found.table["unit"].tolist() == ["a + b", "c"]


def test_a_unit_that_is_half_a_member_is_refused():
    models = Models(np.array(["m"]), np.zeros(1), np.ones(1, bool), np.array([[True, False, True, True]]))

    with pytest.raises(artefacts.ArtefactError, match="1 of 2 units have records inside and outside of one training set, such as u0"):
        units_of([0, 0, 1, 1]).models(models)
    assert units_of([0, 1, 0, 0]).models(models).is_member.tolist() == [[True, False]]


def test_units_of_one_record_each_are_measured_as_records_are(tmp_path):
    """Number for number, but for the columns that name units."""
    made = world(np.ones(60, int), leak=1.0)
    plain, plain_exposed, plain_curve = measured(written(tmp_path / "records", made))
    metrics, exposed, curve = measured(written(tmp_path / "units", made, NAMES))

    assert {key: value for key, value in metrics.items() if key not in ("unit", "data", "exposure")} == {
        key: value for key, value in plain.items() if key not in ("data", "exposure")
    }
    assert exposed.drop(columns=["unit", "n_records"]).equals(plain_exposed) and curve.equals(plain_curve)
    decided = [pd.read_parquet(tmp_path / which / "decisions.parquet") for which in ("records", "units")]
    assert decided[1].drop(columns=["unit", "n_records"]).equals(decided[0])


def test_what_units_are_called_changes_nothing(tmp_path):
    made = world(SIZES, leak=1.0)
    first = measured(written(tmp_path / "a", made, NAMES))
    second = measured(written(tmp_path / "b", made, np.random.default_rng(3).permutation(NAMES)))

    assert {key: value for key, value in first[0].items() if key != "exposure"} == {
        key: value for key, value in second[0].items() if key != "exposure"
    }
    assert first[1].drop(columns="unit").equals(second[1].drop(columns="unit"))


def test_all_counts_are_of_units(tmp_path):
    folder = written(tmp_path / "units", world(SIZES, leak=1.0), NAMES)
    metrics, exposed, _ = measured(folder)
    decided = pd.read_parquet(folder / "decisions.parquet")

    assert metrics["n_samples"] == 60 and metrics["unit"] == {"column": "patient", "n": 60, "n_joined": 0, "n_records": 262, "largest": 8}
    assert metrics["attacks"]["loss"]["rates"][0]["n_scores"] == 8 * 30
    assert metrics["controls"]["null"]["alarm"] is False
    assert len(decided) == 8 * 60 and decided["unit"].iloc[:60].tolist() == NAMES.tolist()
    assert decided["n_records"].iloc[:60].tolist() == SIZES.tolist() and decided["sample_id"].iloc[1] == 1
    assert set(exposed["unit"]) == set(NAMES)


def test_the_score_of_a_unit_is_more_than_that_of_its_records():
    """A small leak in every record, noise of its own each: the mean of eight tells more than one of them."""
    made = world(np.full(60, 8), leak=0.5, within=1.0)
    found = Units.of(pd.DataFrame({"sample_id": 0, "source_id": 0, "label": 0, "group_id": made.unit, "unit": "u"}))

    by_record, by_unit = roc.auc(made.scores, made.is_member), roc.auc(found.mean(made.scores), made.is_member[:, ::8])

    assert by_unit > by_record + 0.03


def test_intervals_by_unit_are_wider_and_hold_where_those_by_record_do_not():
    """One model without a leak: an interval of 95 % holds 1/2. Records that share a unit's noise are not so many as they seem."""
    by_unit, by_record = [], []
    for seed in range(200):
        made = world(SIZES, models=2, seed=seed)
        scores, truth, first = made.scores[:1], made.is_member[:1], np.unique(made.unit, return_index=True)[1]
        by_unit.append(pooled.auc(pooled.pool(units_of(made.unit).mean(scores), truth[:, first])))
        by_record.append(pooled.auc(pooled.pool(scores, truth)))
    held = [np.mean([one["low"] <= 0.5 <= one["high"] for one in found]) for found in (by_unit, by_record)]
    width = [np.mean([one["high"] - one["low"] for one in found]) for found in (by_unit, by_record)]

    assert held[0] >= 0.92
    assert held[1] < 0.8
    assert width[0] > 1.5 * width[1]


def test_units_that_leak_are_flagged_and_no_others_are_written(tmp_path):
    """Every second unit leaks; 24 models, so that each is held by 12."""
    leak = np.where(np.arange(60) % 2, 6.0, 0.0)
    _, exposed, _ = measured(written(tmp_path / "units", world(SIZES, leak=leak, models=24), NAMES))

    found = pool_audit.flagged(exposed)

    assert list(found.columns) == ["unit", "n_records", "sample_id", "source_id", "label", "n_holding", "n_detected", "rate", "low", "high", "p"]
    assert set(found["unit"]) <= set(NAMES[1::2]) and len(found) >= 25


def test_nobody_exposed_is_a_table_of_no_rows_with_all_its_columns(tmp_path):
    _, exposed, _ = measured(written(tmp_path / "few", world(SIZES, models=4), NAMES))

    assert list(pool_audit.flagged(exposed.iloc[:0]).columns)[:3] == ["unit", "n_records", "sample_id"]
    assert list(pool_audit.flagged(exposed.drop(columns=["unit", "n_records"]).iloc[:0]).columns) == list(pool_audit.EXPOSED)


# The page


def page_of(metrics):
    entry = {"include_records": False, "views": ["identity"], "dataset": "w", "recipe": "r", "design": {"kind": "halves"}}
    params = {"audit": "small", "entry": entry, "recipe": {"architecture": "mlp"}, "dataset": {"name": "w"}}
    html, _ = page.pool_page(metrics, pd.DataFrame({"stage": ["train"], "seconds": [1.0]}), {}, params)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_page_says_that_units_are_counted_and_names_the_exposed(tmp_path):
    leak = np.where(np.arange(60) % 2, 6.0, 0.0)
    metrics, _, _ = measured(written(tmp_path / "units", world(SIZES, leak=leak, models=24), NAMES))

    text = page_of(metrics)

    assert "Each was trained on a random half of 60 units, its twin on the other half" in text
    assert "Measured by unit: the records of one patient are in a training set together or not at all" in text
    assert "60 units of 262 records are audited, at most 8 each. Where this page counts audited records it counts units." in text
    assert "of 60 units are exposed" in text and "patient records first record row in the data label" in text
    assert f"{metrics['exposure']['most'][0]['unit']} {metrics['exposure']['most'][0]['n_records']} " in text


def test_the_page_tells_slices_with_intervals_and_which_are_too_small(tmp_path):
    sex = np.repeat(np.where(np.arange(60) < 45, "f", "m"), SIZES)
    metrics, _, _ = measured(written(tmp_path / "sliced", world(SIZES, leak=1.0), NAMES, {"sex": sex}))

    text = page_of(metrics)

    female = metrics["slices"][0]["slices"][0]
    assert [one["column"] for one in metrics["slices"]] == ["sex", "label"]
    assert errors_of(json.loads(json.dumps(artefacts.stamped("audit", metrics)))) == []
    assert f"sex f 45 {female['auc']['value']:.3f} [{female['auc']['low']:.3f}, {female['auc']['high']:.3f}]" in text
    assert "m 15 too small: 15 members, 15 non-members" in text
    assert f"label no {metrics['slices'][1]['slices'][0]['n_samples']} " in text


def test_a_page_without_units_and_slices_speaks_of_neither(tmp_path):
    text = page_of(measured(written(tmp_path / "plain", world(np.ones(60, int), leak=1.0)))[0])

    assert "Each was trained on a random half of 60 records" in text and "of 60 records are exposed" in text
    assert "By slice" not in text and "Measured by unit" not in text


# Who is exposed, as CSV


def test_the_exposed_records_of_a_pool_are_written_as_csv(pool_walk):
    exposed, found = pd.read_parquet(pool_walk.audit("exposure.parquet")), pd.read_csv(pool_walk.audit("exposed.csv"))

    assert list(found.columns) == list(pool_audit.EXPOSED)
    assert found["sample_id"].tolist() == exposed.loc[exposed["bh"], "sample_id"].tolist()


def test_the_exposed_targets_of_pairs_are_written_as_csv(walk):
    found, targets = pd.read_csv(walk.audit("exposed.csv")), walk.metrics["targets"]

    assert list(found.columns) == ["target", *pool_audit.EXPOSED]
    assert found["target"].tolist() == [name for name, target in targets.items() if target["state"] == "exposed"]
    assert all(row["n_detected"] <= row["n_holding"] == 4 for row in found.to_dict("records"))


def test_a_target_of_pairs_is_written_with_its_counts():
    tpr = {"value": 0.75, "low": 0.2, "high": 0.99, "k": 3, "n": 4}
    target = {"state": "exposed", "sample_id": 9, "source_id": 7, "label": 1, "p_holm": 0.01, "attacks": {"np": {"tpr": tpr}}}

    found = stage._exposed_targets({"headline": "np", "targets": {"random00": target, "random01": target | {"state": "effect found"}}})

    assert found.to_dict("records") == [
        {
            "target": "random00",
            "sample_id": 9,
            "source_id": 7,
            "label": 1,
            "n_holding": 4,
            "n_detected": 3,
            "rate": 0.75,
            "low": 0.2,
            "high": 0.99,
            "p": 0.01,
        }
    ]
