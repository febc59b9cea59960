"""Texts as a data set: read from every usual file, refused in a sentence where they are none, prepared and read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from memleak import data, params
from memleak.artefacts import ArtefactError, read_json, write_json
from memleak.contracts import datasets as laws
from memleak.data import DataError, overlap, stage, texts, tokens

TEXTS = ["Ärzte sagen: nein.", "NA", "two\tcolumns, one text", 'she said "yes"', "null", "five"]
LABELS = ["no", "yes", "no", "yes", "no", "yes"]
TABLE = pd.DataFrame({"text": TEXTS, "label": LABELS, "id": range(6)})


def written(folder, kind):
    """The table as a file of some kind."""
    file = folder / f"texts.{kind}"
    records = TABLE.to_dict("records")
    if kind == "parquet":
        TABLE.to_parquet(file)
    elif kind == "json":
        file.write_text(json.dumps(records))
    elif kind == "jsonl":
        file.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), encoding="utf-8")
    else:
        TABLE.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    return file


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "json", "jsonl"])
def test_every_kind_of_file_gives_the_same_texts_labels_and_columns(tmp_path, kind):
    samples = data.check(texts.load(str(written(tmp_path, kind))), "mine")

    assert samples.inputs.tolist() == TEXTS and samples.inputs.dtype == object
    assert samples.labels.tolist() == [0, 1, 0, 1, 0, 1] and samples.class_names == ("no", "yes")
    assert samples.columns["id"].tolist() == list(range(6)) and set(samples.columns) == {"id"}


def test_plain_text_has_a_text_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\n\n two \nthree", encoding="utf-8")

    samples = texts.load(str(tmp_path / "a.txt"))

    assert samples.inputs.tolist() == ["one", " two ", "three"] and not samples.labels.any() and not samples.columns


def test_a_folder_gives_the_texts_of_its_files_and_their_common_columns(tmp_path):
    for name, extra in (("a", {"x": [1]}), ("b", {"y": [2]})):
        pd.DataFrame({"text": [f"text of {name}"], "id": [name], **extra}).to_csv(tmp_path / f"{name}.csv", index=False)
    samples = texts.load(str(tmp_path))

    assert samples.inputs.tolist() == ["text of a", "text of b"] and set(samples.columns) == {"id"}
    (tmp_path / "c.jsonl").write_text('"third"\n')
    with pytest.raises(DataError, match=r"files of several kinds \(.csv, .jsonl\)"):
        texts.load(str(tmp_path))


def test_another_column_holds_the_texts_where_it_is_named(tmp_path):
    TABLE.rename(columns={"text": "body"}).to_csv(tmp_path / "a.csv", index=False)
    declared = params.Dataset(name="text", source=str(tmp_path / "a.csv"), column="body")
    facts = data.prepare(declared, tmp_path / "prepared/dataset.json")

    assert facts["n"] == 6 and data.read(tmp_path / "prepared/dataset.json").inputs.tolist() == TEXTS
    with pytest.raises(DataError, match="there is no column text; it has body, label, id; name one of them"):
        texts.load(str(tmp_path / "a.csv"))


def test_names_of_classes_are_those_of_the_head_of_a_parquet_file(test_data):
    samples = texts.load(str(test_data / "text/ag_news.parquet"))

    assert samples.class_names == ("World", "Sports", "Business", "Sci/Tech") and samples.labels.max() == 3
    assert len(samples.inputs) == 12_599 and set(samples.columns) == {"source"}


WRONG_FILES = {
    "a file of another kind": ("a.pdf", "x", "files of texts end in .parquet, .csv"),
    "an empty table": ("a.csv", "text,label\n", "there is no text in it"),
    "an empty file": ("a.csv", "", "not a table with a head"),
    "an empty list": ("a.txt", "\n \n", "there is no text in it"),
    "numbers": ("a.csv", "text\n1\n2\n", "column text holds numbers"),
    "gaps": ("a.csv", "text,id\none,1\n,2\n", "record 1 is missing; expected a text"),
    "blanks": ("a.jsonl", '"one"\n"  "\n""\n"two"\n', r"2 of 4 texts are empty \(records 1, 2\); drop them"),
    "numbers among texts": ("a.json", '[{"text": "a"}, {"text": 3}]', "record 1 is 3, int; expected a text"),
    "lists": ("a.json", '[{"text": "a"}, {"text": ["b"]}]', r"record 1 is \['b'\], list; expected a text"),
    "one object": ("a.json", '{"text": "a"}', "holds one dict, expected a list"),
    "objects among texts": ("a.json", '[{"text": "a"}, "b"]', "record 1 is str, others are objects"),
    "half a line": ("a.jsonl", '{"text": "a"}\n{"text": "b', "line 2 is truncated or not JSON"),
    "half of a character": ("a.json", '["a", "\\ud800"]', "record 1 holds half of a character"),
    "another encoding": ("a.txt", b"caf\xe9", "not UTF-8 .byte 3.; save it as UTF-8"),
    "a parquet that is none": ("a.parquet", "nothing", "truncated or not Parquet"),
    "labels with gaps": ("a.csv", "text,label\none,x\ntwo,\n", "1 of 2 labels are missing .the first of record 1."),
    "labels of fractions": ("a.csv", "text,label\none,0.5\ntwo,1\n", "labels are float64, expected integers 0 to C-1, or words"),
}


@pytest.mark.parametrize("fault", WRONG_FILES, ids=lambda fault: fault.replace(" ", "-"))
def test_a_file_that_cannot_be_audited_is_named_with_its_fault(tmp_path, fault):
    name, content, expected = WRONG_FILES[fault]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError, match=expected):
        data.check(texts.load(str(tmp_path / name)), "mine")


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file of texts in this folder"):
        texts.load(str(tmp_path))


# -- prepared ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    path = tmp_path_factory.mktemp("topics") / "dataset.json"
    data.prepare(params.Dataset(name="python_topics", vocabulary=600), path)
    return path


def test_prepared_texts_are_read_back(topics):
    dataset = data.read(topics)

    assert dataset.is_text and dataset.shape == () and dataset.n_classes == 1 and len(dataset.inputs) == 1200
    assert all(type(text) is str for text in dataset.inputs) and dataset.inputs.dtype == object
    assert {"kind": "text", "labelled": False, "vocabulary": 600, "mean": [], "n_groups": 1200}.items() <= dataset.facts.items()
    assert set(dataset.facts["sha256"]) == {"inputs", "tokenizer", "labels", "group_id", "atypicality_rank"}
    assert sorted(dataset.atypicality_rank) == list(range(1200)) and len(set(dataset.columns["topic"])) > 20


def test_images_are_no_texts(digits):
    assert not digits.is_text and "kind" not in digits.facts and set(digits.facts["sha256"]) == {"inputs", "labels", "group_id", "atypicality_rank"}


@pytest.mark.parametrize("file", ["texts.parquet", "tokenizer.json", "labels.npy"])
def test_a_changed_or_missing_file_is_noticed(topics, tmp_path, file):
    for one in topics.parent.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    other = params.Dataset(name="python_topics_rest", vocabulary=600)
    (tmp_path / "other").mkdir()
    data.prepare(other, tmp_path / "other/dataset.json")
    content = (tmp_path / "other" / file).read_bytes() if file != "labels.npy" else (tmp_path / "other/group_id.npy").read_bytes()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtefactError, match=rf"{file}: not the content that dataset.json describes"):
        data.read(tmp_path / "dataset.json")
    (tmp_path / file).unlink()
    with pytest.raises(ArtefactError, match=rf"{file}: missing"):
        data.read(tmp_path / "dataset.json")


def prepared(folder, records, **declared):
    (folder / "texts.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    data.prepare(params.Dataset(name="text", source=str(folder / "texts.jsonl"), **declared), folder / "prepared/dataset.json")
    return data.read(folder / "prepared/dataset.json")


def test_texts_that_say_the_same_share_a_group_and_are_counted(tmp_path, rng):
    long = " ".join(f"w{i}" for i in rng.integers(0, 500, 60))
    dataset = prepared(tmp_path, ["Hello,  World", long, "hello, world", f"{long} and a little more", "something else"])

    assert dataset.group_id.tolist() == [0, 1, 0, 1, 2]
    assert dataset.facts["n_groups"] == 3 and dataset.facts["n_near_duplicates"] == 1


def test_units_of_texts_are_groups(tmp_path):
    records = [{"text": f"note {i} of somebody", "patient": f"p{i % 4}"} for i in range(12)]
    dataset = prepared(tmp_path, records, unit="patient")

    assert dataset.group_id.tolist() == [0, 1, 2, 3] * 3 and dataset.facts["unit"]["n"] == 4


def test_the_text_that_is_unlike_all_others_is_the_least_typical(tmp_path):
    records = [f"the patient number {i} has a cold and a cough" for i in range(60)]
    records[7] = "qzx jjkw vvxq"

    assert prepared(tmp_path, records).atypicality_rank.tolist().index(0) == 7


def test_parts_number_their_classes_alike(tmp_path):
    for name, words in (("a", ["cat", "owl"]), ("b", ["dog", "owl"])):
        pd.DataFrame({"text": [f"{name} {i}" for i in range(2)], "label": words}).to_csv(tmp_path / f"{name}.csv", index=False)
    parts = {name: {"name": "text", "source": str(tmp_path / f"{name}.csv")} for name in ("a", "b")}
    data.prepare(params.Dataset(parts=parts), tmp_path / "p/dataset.json")
    dataset = data.read(tmp_path / "p/dataset.json")

    assert [dataset.facts["class_names"][label] for label in dataset.labels] == ["cat", "owl", "dog", "owl"]
    assert dataset.parts == {"a": [0, 2], "b": [2, 4]}


def test_parts_of_numbers_and_of_words_as_labels_are_refused_and_equal_names_keep_their_order():
    names = ("World", "Sports")
    named, counted = (data.Samples(np.array(["a", "b"], dtype=object), np.array([0, 1]), words) for words in (names, ()))

    assert data.joined({"a": named, "b": named}).class_names == names and data.joined({"a": named, "b": named}).labels.tolist() == [0, 1, 0, 1]
    assert data.joined({"a": counted, "b": counted}).labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match="b: no labels, or numbers, where the labels of a have names; give all parts one kind"):
        data.joined({"a": named, "b": counted})


def test_texts_beside_images_and_a_vocabulary_of_images_are_refused(tmp_path):
    parts = {"a": {"name": "python_topics"}, "b": {"name": "digits"}}
    with pytest.raises(DataError, match="parts of a data set have records of several forms"):
        data.prepare(params.Dataset(parts=parts), tmp_path / "dataset.json")
    with pytest.raises(DataError, match="digits: vocabulary is of texts"):
        data.prepare(params.Dataset(name="digits", vocabulary=500), tmp_path / "dataset.json")


def test_plan_and_features_take_texts(topics, tmp_path):
    """The stages `features` reads what `plan` writes: audited rows, one line each."""
    samples = pd.DataFrame(
        {"sample_id": range(100), "source_id": range(100), "label": 0, "group_id": range(100), "is_audited": [True] * 80 + [False] * 20}
    )
    data.artefacts.write_table(tmp_path / "samples.parquet", samples)

    assert stage.features(topics, tmp_path / "samples.parquet", tmp_path / "features.parquet") == 80
    assert np.isfinite(pd.read_parquet(tmp_path / "features.parquet").to_numpy()).all()


# -- the tokenizer -------------------------------------------------------------------------------------------------


def test_the_tokenizer_says_every_text_and_has_the_tokens_asked_for(topics):
    tokenizer = Tokenizer.from_file(str(data.read(topics).tokenizer_path))

    assert tokenizer.get_vocab_size() == 600 and tokenizer.token_to_id(tokens.END_OF_TEXT) == 0
    for text in ("日本語 und Ärzte\n\n\ttabs", "\x00\x7f", "🙂" * 3, *data.read(topics).inputs[:50]):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_tokenizer_of_few_texts_has_fewer_tokens_and_counts_them(tmp_path):
    assert 257 <= tokens.train(["one two", "one three"], tmp_path / "t.json", 2000) < 300


PROGRAM = "import sys; from memleak.data import tokens, topics; tokens.train(topics.load().inputs, sys.argv[1], 800)"


def test_the_tokenizer_is_the_same_whatever_the_threads(tmp_path):
    found = []
    for threads in ("1", "4"):
        file = tmp_path / f"{threads}.json"
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        subprocess.run([sys.executable, "-c", PROGRAM, str(file)], check=True, env=environment)
        found.append(file.read_bytes())

    assert len(set(found)) == 1


def test_a_large_collection_is_sampled_everywhere(monkeypatch):
    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 1000)
    found = list(tokens._spread([f"{i:010d}" for i in range(1000)]))

    assert len(found) == 100 and np.diff([int(text) for text in found]).tolist() == [10] * 99
    assert list(tokens._spread(["a", "b"])) == ["a", "b"]


# -- what a user's own must hold -----------------------------------------------------------------------------------

MINE = """
TEXTS = [f"record {i} of somebody who is number {i * i}" for i in range(40)]
calls = []
def load():
    calls.append(1)
    texts, labels = list(TEXTS), None
    pass
    return texts, labels
"""
CHANGES = {
    "as it is": ("pass", None),
    "with words as labels": ("labels = ['a', 'b'] * 20", None),
    "shuffled": ("texts = texts[len(calls):] + texts[:len(calls)]", "a second call gives the same records in the same order"),
    "random": ("texts[0] += str(len(calls))", "a second call gives the same records in the same order"),
    "empty": ("texts[3] = ' '", "an audit takes it"),
    "twins": ("texts[3] = texts[4].upper()", "no record is there twice"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.replace(" ", "-"))
def test_a_users_texts_are_held_to_the_laws(tmp_path, change):
    line, broken = CHANGES[change]
    file = tmp_path / f"mine_{list(CHANGES).index(change)}.py"
    file.write_text(MINE.replace("    pass", f"    {line}"))
    found = list(laws.check(f"{file}:load"))

    assert [finding.law for finding in found if finding.state != "kept"] == ([broken] if broken else [])
    assert "40 texts" in str(found[0])


@pytest.mark.slow
def test_medical_texts_follow_templates_and_are_found_to(test_data):
    """The data's own notes say so: many answers about inherited diseases are one text but for the name."""
    samples = texts.load(str(test_data / "text/medquad.parquet"))
    group = overlap.near_duplicates(samples.inputs)

    assert len(samples.class_names) == 16 and len(samples.inputs) == 16_407
    assert 0.15 < 1 - (group.max() + 1) / len(group) < 0.25


def test_a_description_of_other_data_is_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"kind": "text"})

    with pytest.raises(ArtefactError, match="not the description of a data set"):
        data.read(tmp_path / "dataset.json")
    assert read_json(tmp_path / "dataset.json") == {"kind": "text"}


def test_one_label_for_all_texts_is_none(tmp_path):
    pd.DataFrame({"text": ["one text", "another text", "a third"], "label": [6, 6, 6]}).to_csv(tmp_path / "t.csv", index=False)

    facts = data.prepare(params.Dataset(name="text", source=str(tmp_path / "t.csv")), tmp_path / "prepared" / "dataset.json")

    assert (facts["n_classes"], facts["labelled"]) == (1, False)
