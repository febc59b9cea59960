"""The passages that ship with Python: as many as declared, of two sets that share no topic and no passage."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from memleak.data import DataError, overlap, topics
from memleak.params import DECLARED_SIZES


@pytest.fixture(scope="module")
def both():
    return topics.load(), topics.load_rest()


def test_both_sets_have_the_declared_sizes_and_no_passage_twice(both):
    for samples, name in zip(both, ("python_topics", "python_topics_rest"), strict=True):
        assert len(samples.inputs) == len(samples.labels) == DECLARED_SIZES[name] == 1200
        assert overlap.near_duplicates(samples.inputs).max() == 1199
        assert not samples.labels.any() and "PSF" in samples.licence and samples.notes == {"python": f"3.{sys.version_info.minor}"}


def test_passages_have_about_twenty_words(both):
    for samples in both:
        n_words = np.array([len(text.split()) for text in samples.inputs])

        assert n_words.min() >= 8 and n_words.max() < 40 and 18 < n_words.mean() < 22


def test_no_topic_and_no_passage_stands_in_both(both):
    one, other = both

    assert not set(one.columns["topic"]) & set(other.columns["topic"])
    assert overlap.containment(one.inputs, other.inputs).max() < 0.8 and overlap.containment(other.inputs, one.inputs).max() < 0.8


def test_every_call_gives_the_same_and_the_order_mixes_topics(both):
    again = topics.load()

    assert np.array_equal(again.inputs, both[0].inputs) and len(set(again.columns["topic"][:100])) > 10


def test_a_paragraph_of_two_topics_counts_for_one():
    text = "A paragraph with at least fourteen words, so that it makes a passage of its own, here and there."
    one, other = topics._sides({"a": f"Title\n*****\n\n{text}", "b": f"{text}\n\nAnother one that has eight words or more in it."})
    passages = [passage for _, passage in [*one, *other]]

    assert sum("at least fourteen" in passage for passage in passages) == 1 and not any("****" in passage for passage in passages)


def test_a_source_is_refused_and_too_little_documentation_too(monkeypatch):
    with pytest.raises(DataError, match="these texts ship with Python; leave source out"):
        topics.load("somewhere")
    monkeypatch.setattr(
        topics, "_topics", lambda: {"a": "One sentence that is no more than eight words long.\n", "b": "Another that is just as short as that one."}
    )
    with pytest.raises(DataError, match="gives 1 passages, 1200 are expected"):
        topics.load()


OTHERS = sorted(Path(sys.base_prefix).parent.glob("3.1[1-9]*/lib/python3.1*/pydoc_data/topics.py"))


@pytest.mark.skipif(not OTHERS, reason="no other Python is installed beside this one")
@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.parts[-3])
def test_other_versions_of_python_have_as_many(file, monkeypatch):
    spec = importlib.util.spec_from_file_location("other_topics", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(topics, "_topics", lambda: module.topics)

    assert len(topics.load().inputs) == len(topics.load_rest().inputs) == 1200
