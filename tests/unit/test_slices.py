"""Slices: the headline attack within parts of the data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from memleak import artefacts, data, params
from memleak.data import stage as data_stage
from memleak.metrics import pooled, slices
from memleak.params import ParamsError

CONFIG = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"tiny": {"architecture": "mlp", "epochs": 1, "batch_size": 8, "learning_rate": 0.1, "optimizer": "sgd"}},
}


def halves(n, models=16, distance=0.0, seed=0, of_unit=0.5):
    """Scores of models on complementary halves, all of a unit moved alike; members lie `distance` [N] higher."""
    draw = np.random.default_rng(seed)
    half = np.stack([draw.permutation(np.arange(n) < n // 2) for _ in range(models // 2)])
    truth = np.stack([half, ~half], axis=1).reshape(models, n)
    level = of_unit * np.repeat(draw.normal(size=models // 2), 2)[:, None]
    return draw.normal(size=(models, n)) + level + distance * truth, truth, np.arange(models) // 2


def of(column, name):
    return next(one for one in column["slices"] if one["value"] == name)


def test_a_column_of_words_has_a_slice_for_each_and_one_for_the_missing():
    found = slices.parts_of(pd.Series(["m", "f", None, "m"]))

    assert list(found) == ["f", "m", "missing"]
    assert found["m"].tolist() == [True, False, False, True] and found["missing"].tolist() == [False, False, True, False]


def test_a_column_of_many_numbers_is_cut_at_its_quartiles():
    found = slices.parts_of(pd.Series(np.random.default_rng(0).permutation(np.arange(17.0, 97.0))))

    assert list(found) == ["17 to 36", "37 to 56", "57 to 76", "77 to 96"]
    assert [int(here.sum()) for here in found.values()] == [20] * 4


def test_equal_numbers_are_in_one_quarter():
    values = pd.Series([0] * 80 + list(range(1, 21)))
    found = slices.parts_of(values)

    assert list(found) == ["0 to 0", "1 to 20"]
    assert np.stack(list(found.values())).sum(axis=0).tolist() == [1] * 100


def test_a_column_of_few_numbers_has_a_slice_for_each():
    assert list(slices.parts_of(pd.Series([3.0, 1.5, 3.0, np.nan]))) == ["1.5", "3", "missing"]
    assert list(slices.parts_of(pd.Series([True, False]))) == ["False", "True"]


def test_classes_come_in_the_order_of_labels():
    labels = pd.Series(np.arange(14).repeat(2)[::-1])

    assert list(slices.parts_of(slices.classes(labels, ()))) == [str(k) for k in range(14)]
    assert list(slices.parts_of(slices.classes(pd.Series([1, 0]), ("zebra", "ant")))) == ["zebra", "ant"]
    assert list(slices.parts_of(slices.classes(pd.Series([1, 0]), ("ant", "ant")))) == ["0", "1"]


def test_the_figures_of_a_slice_are_those_of_its_samples_alone():
    scores, truth, unit = halves(120, distance=1.0)
    sex = pd.Series(np.where(np.arange(120) % 3, "f", "m"))
    here = (sex == "f").to_numpy()

    found = of(slices.measure(scores, truth, {"sex": sex}, unit, np.arange(120), fpr=0.05)[0], "f")

    alone = pooled.measure(scores[:, here], truth[:, here], unit, np.arange(80), levels=(0.05,))
    assert found["auc"] == alone["auc"] and found["tpr"] == alone["rates"][0]
    assert found["n_samples"] == found["n_members"] == found["n_non_members"] == 80


def test_classes_are_measured_as_by_label():
    scores, truth, unit = halves(90, distance=1.0)
    labels = np.arange(90) % 3

    found = slices.measure(scores, truth, {"label": slices.classes(pd.Series(labels), ("a", "b", "c"))}, unit)[0]["slices"]

    assert [(one["auc"], one["tpr"]) for one in found] == [(one["auc"], one["tpr"]) for one in pooled.per_class(scores, truth, labels, unit)]


def test_a_slice_that_leaks_more_is_told_from_the_rest():
    leaks = np.arange(400) < 200
    scores, truth, unit = halves(400, distance=np.where(leaks, 1.2, 0.4))

    found = slices.measure(scores, truth, {"sex": pd.Series(np.where(leaks, "f", "m"))}, unit)[0]

    difference = of(found, "f")["difference"]
    assert difference["low"] < 0.802 - 0.611 < difference["high"]  # Phi(d / sqrt 2) of each
    assert difference["p_holm"] < 0.001 and of(found, "m")["difference"]["difference"] == pytest.approx(-difference["difference"])


def test_slices_that_do_not_differ_are_seldom_told_apart():
    """All leak alike: at most 5 % of worlds have any slice with p_holm below .05, whatever models differ in."""
    wrong = []
    for seed in range(100):
        scores, truth, unit = halves(200, models=8, distance=0.8, seed=seed)
        found = slices.measure(scores, truth, {"part": pd.Series(np.arange(200) % 4)}, unit)[0]["slices"]
        wrong.append(min(one["difference"]["p_holm"] for one in found) < 0.05)

    assert np.mean(wrong) <= 0.1


def test_small_slices_are_counted_and_given_no_figure():
    scores, truth, unit = halves(100)
    values = pd.Series(["a"] * 19 + ["b"] * 81)

    small, large = slices.measure(scores, truth, {"column": values}, unit)[0]["slices"]

    assert small == {"value": "a", "n_samples": 19, "n_members": 19, "n_non_members": 19, "auc": None, "tpr": None, "difference": None}
    assert large["auc"] is not None and large["difference"] is None  # nothing large enough to compare with


def test_members_of_a_single_model_are_counted_apart_from_others():
    scores, truth = np.random.default_rng(0).normal(size=(1, 60)), np.arange(60)[None] < 45

    found = slices.measure(scores, truth, {"all": pd.Series(["x"] * 60)})[0]["slices"][0]

    assert (found["n_members"], found["n_non_members"]) == (45, 15) and found["auc"] is None


def test_a_column_of_another_length_is_refused():
    scores, truth, unit = halves(30)

    with pytest.raises(ValueError, match="column sex has 29 values; expected one for each of 30 samples"):
        slices.measure(scores, truth, {"sex": pd.Series(["f"] * 29)}, unit)


def audit(**more):
    return {"small": {"dataset": "digits", "recipe": "tiny", "attacks": {"loss": {"name": "threshold"}}, **more}}


def test_slices_of_pairs_and_slices_named_twice_are_refused():
    pairs = {"kind": "pairs", "targets": {"random": 1}, "rounds": 4, "subset_size": 50}
    with pytest.raises(ParamsError, match="slices: an audit of pairs has a few records"):
        params.validate(CONFIG | {"audits": audit(design=pairs, slices=["label"])})
    with pytest.raises(ParamsError, match="names a column twice"):
        params.validate(CONFIG | {"audits": audit(design={"kind": "halves", "models": 4}, slices=["label", "label"])})


def test_adult_is_sliced_by_sex_race_and_age(tmp_path, test_data):
    """Real records, scores of a world in which women leak and men do not."""
    pd.read_parquet(test_data / "tabular/adult.parquet").iloc[:600].to_parquet(tmp_path / "adult.parquet")
    data.prepare(params.Dataset(name="adult", source=str(tmp_path / "adult.parquet")), tmp_path / "dataset.json")
    dataset = data.read(tmp_path / "dataset.json")
    asked = {
        "audit": "small", "seed": 0, "dataset": "adult", "recipe": "r", "design": {"kind": "halves", "models": 8}, "shards": [],
        "slices": ["sex", "race", "age"], "asked": [{"samples": "pool", "seed": 0, "views": ["identity"]}],
    }  # fmt: skip
    data_stage.plan(tmp_path / "dataset.json", asked, tmp_path / "plan.parquet", tmp_path / "samples.parquet")
    samples = pd.read_parquet(tmp_path / "samples.parquet")
    columns = {name: samples[artefacts.SLICE + name] for name in asked["slices"]}

    scores, truth, unit = halves(600, distance=np.where(columns["sex"] == "Female", 1.0, 0.0))
    sex, race, age = slices.measure(scores, truth, columns, unit, samples["group_id"].to_numpy())

    assert dataset.columns["sex"].tolist()[:3] == ["Male", "Male", "Male"]
    assert of(sex, "Female")["auc"]["low"] > 0.6 and of(sex, "Male")["auc"]["low"] < 0.5 < of(sex, "Male")["auc"]["high"]
    assert of(sex, "Female")["difference"]["p_holm"] < 0.001
    assert of(race, "Other")["auc"] is None and of(race, "White")["auc"] is not None
    assert len(age["slices"]) == 4 and age["slices"][0]["value"].startswith("17 to ")
