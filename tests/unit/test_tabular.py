"""Tables: encoded the same way every time, and a file that is something else is named."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from memleak import data
from memleak.data import DataError, tabular
from memleak.data.neighbours import content_groups

PEOPLE = pd.DataFrame({
    "age": [20, 40, 60, 40], "workclass": ["Private", None, "State-gov", "Private"], "fnlwgt": [1, 2, 3, 4],
    "education": ["HS-grad"] * 4, "education_num": [9, 9, 9, 9], "marital_status": ["Divorced"] * 4,
    "occupation": ["Sales"] * 4, "relationship": ["Wife"] * 4, "race": ["White"] * 4, "sex": ["Male", "Female", "Female", "Male"],
    "capital_gain": [0, 0, 0, 10], "capital_loss": [0] * 4, "hours_per_week": [40, 40, 20, 20],
    "native_country": ["Peru"] * 4, "income": ["<=50K", ">50K", "<=50K", ">50K"],
})  # fmt: skip


def _binary(n_features: int, n_classes: int, n: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random features of 0 and 1, and labels in which every class is there."""
    n = n or n_classes
    return np.random.default_rng(0).integers(0, 2, (n, n_features)), np.arange(n) % n_classes


def _lines(rows: np.ndarray) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


# Adult


def test_numbers_become_standard_deviations_and_words_become_columns(tmp_path):
    PEOPLE.to_parquet(tmp_path / "adult.parquet")

    samples = data.check(tabular.load_adult(str(tmp_path)), "adult")

    age, education_num, gain, loss, hours, *words = samples.inputs.T.tolist()
    assert age == pytest.approx([-np.sqrt(2), 0, np.sqrt(2), 0], abs=1e-6)
    assert gain == pytest.approx(np.array([-1, -1, -1, 3]) / np.sqrt(3), abs=1e-6)
    assert (education_num, loss, hours) == ([0] * 4, [0] * 4, [1, 1, -1, -1])
    # workclass: Private, State-gov, missing; one column each for the words that never change; sex: Female, Male
    assert words == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], *[[1] * 4] * 5, [0, 1, 1, 0], [1, 0, 0, 1], [1] * 4]
    assert samples.labels.tolist() == [0, 1, 0, 1]


def test_the_weight_of_the_census_is_left_out(tmp_path):
    PEOPLE.to_csv(tmp_path / "a.csv", index=False)
    PEOPLE.assign(fnlwgt=[9, 7, 5, 3]).to_csv(tmp_path / "b.csv", index=False)

    a, b = (tabular.load_adult(str(tmp_path / name)).inputs for name in ("a.csv", "b.csv"))

    assert np.array_equal(a, b)


def test_every_form_of_adult_gives_the_same_numbers(tmp_path):
    """Parquet; CSV with other names and spellings; UCI's file without a head, with blanks, ? and a full stop."""
    PEOPLE.to_parquet(tmp_path / "adult.parquet")
    spelt = PEOPLE.rename(columns={"education_num": "educational-num", "sex": "gender", "marital_status": "Marital.Status", "income": "class"})
    spelt.to_csv(tmp_path / "adult.csv", index=False, na_rep="?")
    bare = PEOPLE.assign(income=PEOPLE.income + ".").to_csv(index=False, header=False, na_rep="?").replace(",", ", ")
    (tmp_path / "adult.data").write_text(bare + "\n")

    first, *others = (tabular.load_adult(str(tmp_path / name)) for name in ("adult.parquet", "adult.csv", "adult.data"))

    for other in others:
        assert np.array_equal(first.inputs, other.inputs)
        assert np.array_equal(first.labels, other.labels)


def test_a_label_of_0_and_1_stands_for_the_income(tmp_path):
    PEOPLE.drop(columns="income").assign(label=[0, 1, 0, 1]).to_parquet(tmp_path / "adult.parquet")

    assert tabular.load_adult(str(tmp_path)).labels.tolist() == [0, 1, 0, 1]


ADULT = {
    "no column of an attribute": (PEOPLE.drop(columns="sex"), "the column sex is missing; it has age, workclass"),
    "no income": (PEOPLE.drop(columns="income"), "no column income"),
    "another income": (PEOPLE.assign(income="rich"), "income is 'rich' in one row; expected <=50K or >50K"),
    "a missing income": (PEOPLE.assign(income=["<=50K", ">50K", None, ">50K"]), "income is .* in one row; expected"),
    "a label of three": (PEOPLE.drop(columns="income").assign(label=[0, 1, 2, 1]), "the column label holds more than 0 and 1"),
    "an age in words": (PEOPLE.assign(age=["20", "40", "old", "40"]), "the column age has 1 values that are not numbers"),
    "a missing age": (PEOPLE.assign(age=[20, None, 60, 40]), "the column age has 1 values that are not numbers"),
}


@pytest.mark.parametrize("fault", ADULT, ids=lambda fault: fault.replace(" ", "-"))
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_is_not_adult_is_named(tmp_path, fault, suffix):
    table, expected = ADULT[fault]
    getattr(table, {"parquet": "to_parquet", "csv": "to_csv"}[suffix])(tmp_path / f"adult.{suffix}", index=False)

    with pytest.raises(DataError, match=rf"adult\.{suffix}: .*{expected}"):
        tabular.load_adult(str(tmp_path))


def test_a_file_without_a_head_needs_the_columns_of_uci(tmp_path):
    (tmp_path / "adult.data").write_text("39, State-gov, 1\n")

    with pytest.raises(DataError, match="3 columns without a head, expected 15: age, workclass, fnlwgt"):
        tabular.load_adult(str(tmp_path))


def test_the_encoding_does_not_depend_on_the_process(tmp_path):
    """Python orders sets of words anew in every process; the columns must not follow."""
    PEOPLE.to_parquet(tmp_path / "adult.parquet")
    code = (
        f"import hashlib; from memleak.data.tabular import load_adult as f; print(hashlib.sha256(f({str(tmp_path)!r}).inputs.tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in "12"
    ]

    assert runs[0] == runs[1] and len(runs[0].strip()) == 64


# Binary tables


SHAPES = {"location30": (446, 30), "purchase100": (600, 100), "texas100": (6169, 100)}


def _load(name: str, source) -> data.Samples:
    return data.check(getattr(tabular, f"load_{name}")(str(source)), name)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("labels_are", ["from 0", "from 1", "one-hot"])
def test_arrays_are_read_however_their_labels_are_counted(tmp_path, name, labels_are):
    features, labels = _binary(*SHAPES[name])
    written = {"from 0": labels, "from 1": labels + 1, "one-hot": np.eye(SHAPES[name][1])[labels]}[labels_are]
    np.savez(tmp_path / f"{name}.npz", features=features.astype(np.uint8), labels=written)

    samples = _load(name, tmp_path)

    assert samples.inputs.dtype == np.float32
    assert np.array_equal(samples.inputs, features)
    assert np.array_equal(samples.labels, labels)


@pytest.mark.parametrize(("name", "file"), [("purchase100", "dataset_purchase"), ("location30", "bangkok")])
def test_the_published_text_is_read(tmp_path, name, file):
    """No head; the label, counted from 1, stands first, and in Location in quotes."""
    features, labels = _binary(*SHAPES[name])
    quote = '"' if name == "location30" else ""
    (tmp_path / file).write_text("".join(f"{quote}{label + 1}{quote},{_lines(row[None])}" for label, row in zip(labels, features, strict=True)))

    for samples in (_load(name, tmp_path), _load(name, tmp_path / file)):
        assert np.array_equal(samples.inputs, features)
        assert np.array_equal(samples.labels, labels)


def test_columns_with_names_are_read_too(tmp_path):
    features, labels = _binary(446, 30)
    table = pd.DataFrame(features, columns=[f"f{i:03d}" for i in range(446)]).assign(label=labels)  # the label last
    table.to_parquet(tmp_path / "location30.parquet")
    table.to_csv(tmp_path / "other.csv", index=False)

    for source in (tmp_path, tmp_path / "other.csv"):
        samples = _load("location30", source)
        assert np.array_equal(samples.inputs, features)
        assert np.array_equal(samples.labels, labels)


@pytest.mark.parametrize("folder", ["", "100", "texas/100"])
def test_texas_is_two_files_of_text(tmp_path, folder):
    features, labels = _binary(6169, 100)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "feats").write_text(_lines(features))
    (tmp_path / folder / "labels").write_text(_lines(labels[:, None] + 1))

    samples = _load("texas100", tmp_path)

    assert np.array_equal(samples.inputs, features)
    assert np.array_equal(samples.labels, labels)


ARRAYS = {
    "another width": ({"features": np.zeros((30, 445))}, r"features have shape \(30, 445\), location30 has \[N, 446\]"),
    "one dimension": ({"features": np.zeros(30)}, r"features have shape \(30,\)"),
    "counts": ({"features": np.full((30, 446), 2)}, "features hold more than 0 and 1"),
    "missing features": ({"features": np.full((30, 446), np.nan)}, "features hold more than 0 and 1"),
    "too high a label": ({"labels": np.arange(30) + 2}, r"labels go from 2 to 31, expected 1 to 30 \(or 0 to 29\)"),
    "labels from 0 to 30": ({"labels": np.arange(30) + (np.arange(30) == 29)}, "labels go from 0 to 30, expected 1 to 30"),
    "fewer labels": ({"labels": np.arange(29)}, "30 rows of features and 29 labels"),
    "labels that are words": ({"labels": np.full(30, "home")}, "labels are <U4, expected integers 1 to 30"),
    "labels that are fractions": ({"labels": np.linspace(0, 29, 30) + 0.5}, "labels hold fractions"),
    "rows with two labels": ({"labels": np.eye(30) + np.eye(30)[::-1]}, "not one 1 a row"),
    "objects": ({"labels": np.array([None] * 30)}, "truncated or not an .npz of numbers"),
}


@pytest.mark.parametrize("fault", ARRAYS, ids=lambda fault: fault.replace(" ", "-"))
def test_arrays_of_another_data_set_are_named(tmp_path, fault):
    features, labels = _binary(446, 30)
    wrong, expected = ARRAYS[fault]
    np.savez(tmp_path / "location30.npz", **({"features": features, "labels": labels} | wrong))

    with pytest.raises(DataError, match=rf"location30\.npz: .*{expected}"):
        tabular.load_location30(str(tmp_path))


def test_files_that_are_broken_or_not_there_are_named(tmp_path):
    features, labels = _binary(446, 30)
    with pytest.raises(DataError, match=r"location30: none of location30\.parquet, .* is in .*; get the data set, and set `source:`"):
        tabular.load_location30(str(tmp_path))
    np.savez(tmp_path / "x.npz", x=features, y=labels)
    with pytest.raises(DataError, match=r"x\.npz: has the arrays x, y; expected features and labels"):
        tabular.load_location30(str(tmp_path / "x.npz"))
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-200])
    with pytest.raises(DataError, match=r"x\.npz: truncated or not an \.npz"):
        tabular.load_location30(str(tmp_path / "x.npz"))
    (tmp_path / "bangkok").write_text("1,0,1\n2,1\n3,home,0\n")
    with pytest.raises(DataError, match="bangkok: not a table of comma-separated values"):
        tabular.load_location30(str(tmp_path))
    (tmp_path / "bangkok").write_text("1,0,1\n2,1\n")
    with pytest.raises(DataError, match="bangkok: column 2 holds words or missing values"):
        tabular.load_location30(str(tmp_path))
    (tmp_path / "bangkok").write_text("")
    with pytest.raises(DataError, match="bangkok: not a table of comma-separated values"):
        tabular.load_location30(str(tmp_path))
    (tmp_path / "location30.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"location30\.parquet: truncated or not Parquet"):
        tabular.load_location30(str(tmp_path))
    (tmp_path / "feats").write_text("0,1\n")
    with pytest.raises(DataError, match="there is no file labels beside it"):
        tabular.load_texas100(str(tmp_path))


def test_without_a_source_the_usual_place_is_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"adult: none of adult\.parquet, .* is in data/raw; get the data set"):
        tabular.load_adult(None)
    (tmp_path / "data/raw").mkdir(parents=True)
    PEOPLE.to_csv("data/raw/adult.csv", index=False)

    assert len(tabular.load_adult(None).labels) == 4


# The real ones


def test_the_real_adult_has_its_known_size(test_data):
    samples = data.check(tabular.load_adult(str(test_data / "tabular" / "adult.parquet")), "adult")

    assert samples.inputs.shape == (48_842, 107)
    assert np.bincount(samples.labels).tolist() == [37_155, 11_687]
    assert samples.inputs[:, :5].mean(axis=0, dtype=np.float64) == pytest.approx(np.zeros(5), abs=1e-6)
    assert samples.inputs[:, :5].std(axis=0, dtype=np.float64) == pytest.approx(np.ones(5), abs=1e-6)
    assert samples.inputs[:, 5:].sum(axis=1).tolist() == [8.0] * 48_842  # one category an attribute
    assert content_groups(samples.inputs).max() + 1 == 41_439  # people who differ in their weight alone are the same here


def test_the_real_location30_has_its_known_size(test_data):
    samples = data.check(tabular.load_location30(str(test_data / "tabular")), "location30")

    assert samples.inputs.shape == (5010, 446)
    assert np.unique(samples.labels).tolist() == list(range(30))
    assert set(np.unique(samples.inputs).tolist()) == {0.0, 1.0}
