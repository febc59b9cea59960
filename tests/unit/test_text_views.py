"""Views of texts: what each shows, that a neighbour is drawn for a sample and nothing else, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from memleak import params
from memleak.signals import text_views
from memleak.signals.views import ViewError

TEXTS = np.array(["The cat sat on the mat, and the dog lay by the door.", "Short.", "Äpfel\n\nund   Birnen!", "1234 5678"], dtype=object)
IDS = np.array([10, 11, 12, 13])
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]


def test_families_become_views_as_many_as_params_count():
    names = ["identity", "lowercase", "neighbours-3", "prefix-2"]
    views = text_views.expand(names)

    assert views == ["identity", "lowercase", "neighbours-3/0", "neighbours-3/1", "neighbours-3/2", "prefix-2"]
    assert len(views) == params.n_views(names)


@pytest.mark.parametrize("names", [[], ["flip"], ["shift-1"], ["neighbours"], ["neighbours-0"], ["prefix-10"], ["lowercase", "lowercase"]], ids=str)
def test_views_that_texts_have_not_are_refused(names):
    with pytest.raises(ViewError, match=r"texts have no view|no view is asked for|names one family twice"):
        text_views.expand(names)


def test_identity_and_lowercase_show_the_text():
    assert text_views.shown(TEXTS, IDS, "identity") == (None, list(TEXTS))
    assert text_views.shown(TEXTS, IDS, "lowercase")[1][2] == "äpfel\n\nund   birnen!"


def test_a_neighbour_has_a_tenth_of_its_words_exchanged_and_keeps_the_rest():
    text = " ".join(f"Word{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}, " for i in range(50))
    (found,) = text_views.shown(np.array([text], dtype=object), np.array([3]), "neighbours-1/0", (), WORDS)[1]
    pairs = list(zip(text.split(" "), found.split(" "), strict=True))

    assert sum(one != other for one, other in pairs) == 5
    assert all(other.rstrip(",").lower() in WORDS and other.endswith(",") and other[0].isupper() for one, other in pairs if one != other)


def test_one_word_at_least_is_exchanged_and_a_text_without_words_stays():
    found = text_views.shown(TEXTS, IDS, "neighbours-2/1", (), WORDS)[1]

    assert found[1] != "Short." and found[1].endswith(".") and found[3] == "1234 5678"
    assert found[2].count("\n\n") == 1 and "   " in found[2]


def test_a_neighbour_depends_on_its_sample_and_copy_and_not_on_others():
    view = "neighbours-2/0"
    together = text_views.shown(TEXTS, IDS, view, (), WORDS)[1]
    alone = [text_views.shown(TEXTS[[i]], IDS[[i]], view, (), WORDS)[1][0] for i in (3, 2, 1, 0)]

    assert together == alone[::-1]
    assert together != text_views.shown(TEXTS, IDS, "neighbours-2/1", (), WORDS)[1]
    assert together != text_views.shown(TEXTS, IDS + 7, view, (), WORDS)[1]
    assert together == text_views.shown(TEXTS, IDS, "neighbours-5/0", (), WORDS)[1]  # more copies are more, not others


def test_every_word_is_exchanged_as_often_as_any_other():
    letters = "abcdefghij"
    text = np.array([" ".join(letters)] * 2000, dtype=object)
    found = text_views.shown(text, np.arange(2000), "neighbours-1/0", (), WORDS)[1]
    changed = np.array([[one != other for one, other in zip(letters, row.split(), strict=True)] for row in found])

    assert (changed.sum(axis=1) == 1).all() and changed.mean(axis=0) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 2000))


def test_a_word_is_never_exchanged_for_itself():
    text = np.array(["Alpha"] * 300, dtype=object)

    assert "Alpha" not in text_views.shown(text, np.arange(300), "neighbours-1/0", (), WORDS)[1]


def test_a_prefix_puts_the_first_shots_before_each_text():
    prefixes, texts = text_views.shown(TEXTS, IDS, "prefix-2", ["one", "two", "three"])

    assert prefixes == ["one\n\ntwo\n\n"] * 4 and texts == list(TEXTS)


def test_too_few_shots_or_words_are_refused():
    with pytest.raises(ViewError, match=r"1 texts stand in no training set, 2 are needed .* enlarge the population"):
        text_views.shown(TEXTS, IDS, "prefix-2", ["one"])
    with pytest.raises(ViewError, match="0 words are known to exchange others for"):
        text_views.shown(TEXTS, IDS, "neighbours-1/0")
    with pytest.raises(ViewError, match="texts have no view 'flip'"):
        text_views.shown(TEXTS, IDS, "flip")


def test_words_are_those_of_several_texts():
    """A word that stands in one text alone, however often, would tell which one it is."""
    assert text_views.words_of(["The Cat cat 12 name name", "the dog", "a dog"]) == ["dog", "the"]
