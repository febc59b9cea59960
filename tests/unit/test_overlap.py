"""Texts that say the same: how much of one stands in others, and which ones are all but equal; against a slow count by hand."""

from __future__ import annotations

import re
import time

import numpy as np
import pandas as pd
import pytest

from memleak.data import overlap

WORDS = np.array([f"w{i}" for i in range(300)])


def text_of(draw, n, words=WORDS):
    return " ".join(draw.choice(words, n))


def slow_grams(text):
    words = re.findall(r"\w+", text.casefold())
    size = 13 if len(words) >= 13 else 5
    return size, {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def slow_containment(text, others):
    size, mine = slow_grams(text)
    theirs = set()
    for other in others:
        words = re.findall(r"\w+", other.casefold())
        theirs |= {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
    return len(mine & theirs) / len(mine)


def test_containment_is_the_share_of_n_grams_that_a_slow_count_finds(rng):
    long, short = text_of(rng, 40), text_of(rng, 9)
    others = [text_of(rng, 60), f"{text_of(rng, 5)} {' '.join(long.split()[8:33])} {text_of(rng, 5)}", short.upper(), text_of(rng, 3)]
    texts = [long, short, text_of(rng, 25), f"{short} and more"]
    found = overlap.containment(texts, others)

    assert found == pytest.approx([slow_containment(text, others) for text in texts])
    assert found[:3] == pytest.approx([13 / 28, 1, 0]) and 0 < found[3] < 1


def test_texts_of_a_few_words_count_as_a_whole():
    found = overlap.containment(["Yes,  please", "yes please do", "", "no"], ["YES, PLEASE", "yes please do it now then"])

    assert found.tolist() == [1, 0, 0, 0]


def test_case_white_space_punctuation_and_wide_letters_make_no_difference():
    one, other = "The quick brown fox jumps over the lazy dog", "THE quick, brown\n\nfox ｊｕｍｐｓ over the lazy dog!"

    assert overlap.normal("Ａ  b\nC") == "a b c"
    assert overlap.containment([one], [other]) == [1] and overlap.equals(["a  B", "A b", "ab"]).tolist() == [0, 0, 1]


def test_nothing_is_contained_in_no_text():
    assert overlap.containment(["one two three four five six"], []).tolist() == [0] and overlap.containment([], ["a"]).shape == (0,)


def slow_groups(texts):
    """Connected components of all pairs, one by one."""
    group = np.arange(len(texts))
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            (size, mine), (other_size, theirs) = slow_grams(one), slow_grams(other)
            if one == other or (size == other_size and mine and len(mine & theirs) >= 0.8 * len(mine) - 1e-9):
                group[group == group[j]] = group[i]
    return pd.factorize(group)[0]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_slow_comparison_of_all_pairs(seed):
    """Texts, some of them with a few words changed, a part of another, or short."""
    draw = np.random.default_rng(seed)
    texts = [text_of(draw, n) for n in draw.integers(2, 70, 60)]
    for _ in range(60):
        words = texts[draw.integers(len(texts))].split()
        start = draw.integers(0, max(1, len(words) // 3))
        words = words[start : start + draw.integers(3, 70)]
        words[draw.integers(len(words))] = "changed"
        texts.append(" ".join(words))
    found = overlap.near_duplicates(texts)

    assert found.tolist() == slow_groups(texts).tolist()
    assert found.max() < len(texts) - 5


def test_a_sentence_that_many_texts_have_in_common_does_not_make_them_one(rng):
    boilerplate = text_of(rng, 30)
    texts = [f"{text_of(rng, 40)} {boilerplate}" for _ in range(200)]

    assert overlap.near_duplicates(texts).tolist() == list(range(200))


def test_work_in_small_chunks_finds_the_same(monkeypatch, rng):
    texts = [text_of(rng, 30) for _ in range(20)]
    texts += [f"{text} {text_of(rng, 3)}" for text in texts]
    whole = overlap.near_duplicates(texts), overlap.containment(texts[:20], texts[20:])
    monkeypatch.setattr(overlap, "_PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(overlap, "_GRAMS_AT_ONCE", 50)

    assert whole[0].tolist() == [*range(20)] * 2 == overlap.near_duplicates(texts).tolist()
    assert np.array_equal(whole[1], overlap.containment(texts[:20], texts[20:])) and (whole[1] == 1).all()


def test_thousands_of_texts_of_one_template_take_seconds(rng):
    template = text_of(rng, 40).split()
    texts = [" ".join([f"name{i}", *template]) for i in range(4000)]
    start = time.monotonic()

    assert overlap.near_duplicates(texts).max() == 0
    assert time.monotonic() - start < 30


def test_real_news_hold_few_near_duplicates(test_data):
    texts = pd.read_parquet(test_data / "text/ag_news.parquet")["text"].tolist()
    group = overlap.near_duplicates(texts)

    assert len(texts) - 1 - group.max() == 17
    assert (overlap.containment(texts[:6000], texts[6000:]) >= overlap.NEAR).sum() == pytest.approx(7, abs=5)
