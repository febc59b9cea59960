"""Texts as token ids: what is context, what was dropped, and how many bytes were read."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from checkpoints import records, tiny_tokenizer

from memleak.models import ModelError
from memleak.models.tokens import encode, special_ids

TEXTS = records(8)


@pytest.fixture(scope="module")
def plain():
    """A tokenizer that adds nothing, as GPT-2's."""
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def with_bos():
    return tiny_tokenizer(bos=True)


@pytest.fixture(scope="module")
def bert():
    return tiny_tokenizer(kind="bert")


def ids_of(encoded, i: int) -> list[int]:
    return encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]].tolist()


def test_texts_have_the_ids_that_their_tokenizer_gives(plain):
    encoded = encode(plain, TEXTS, 1000)

    assert [ids_of(encoded, i) for i in range(len(TEXTS))] == plain(TEXTS)["input_ids"]
    assert encoded.n_prefix.tolist() == encoded.n_suffix.tolist() == encoded.n_dropped.tolist() == [0] * len(TEXTS)
    assert encoded.n_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert encoded.zlib_bytes.tolist() == [len(zlib.compress(text.encode())) for text in TEXTS]


def test_tokens_beyond_the_length_are_dropped_and_counted_and_bytes_are_of_what_is_read(plain):
    text = "naïve café " * 20
    encoded = encode(plain, [text], 7)
    read = plain.decode(ids_of(encoded, 0))

    assert len(ids_of(encoded, 0)) == 7
    assert encoded.n_dropped[0] == len(plain(text)["input_ids"]) - 7
    assert text.startswith(read)
    assert encoded.n_bytes[0] == len(read.encode())


def test_a_bos_and_the_tokens_around_a_text_are_context(with_bos, bert):
    begun, framed = encode(with_bos, TEXTS, 1000), encode(bert, TEXTS, 12)

    assert set(begun.n_prefix) == {1} and set(begun.n_suffix) == {0}
    assert ids_of(begun, 0)[0] == with_bos.bos_token_id
    assert set(framed.n_prefix) == set(framed.n_suffix) == {1}
    assert framed.lengths.max() == 12
    assert ids_of(framed, 0)[0] == bert.cls_token_id and ids_of(framed, 0)[-1] == bert.sep_token_id


def test_a_text_has_the_same_tokens_after_a_prefix(with_bos):
    alone = encode(with_bos, TEXTS, 30, context=200)
    after = encode(with_bos, TEXTS, 30, prefixes=["A prefix without a space"] * len(TEXTS), context=200)
    n = len(with_bos("A prefix without a space", add_special_tokens=False)["input_ids"])

    assert set(after.n_prefix) == {1 + n}
    assert after.n_text.tolist() == alone.n_text.tolist()
    for i in range(len(TEXTS)):
        assert ids_of(after, i)[1 + n :] == ids_of(alone, i)[1:]
    assert after.n_bytes.tolist() == alone.n_bytes.tolist()


def test_a_prefix_gives_way_from_its_front_where_there_is_no_room_for_both(plain):
    prefix = plain("one two three four five six")["input_ids"]
    encoded = encode(plain, [TEXTS[0], "hi"], 12, prefixes=["one two three four five six"] * 2)
    n_short = len(plain("hi")["input_ids"])

    assert encoded.n_prefix.tolist() == [0, min(12 - n_short, len(prefix))]
    assert ids_of(encoded, 1)[: encoded.n_prefix[1]] == prefix[-encoded.n_prefix[1] :]


def test_a_batch_ends_each_text_with_an_id_that_no_token_has(plain):
    encoded = encode(plain, ["a", "", TEXTS[0]], 9)
    batch = encoded.padded(np.array([2, 0, 1]))

    assert batch.shape == (3, 9) and batch.dtype == np.int64
    assert batch[0].tolist() == ids_of(encoded, 2)
    assert batch[1].tolist() == ids_of(encoded, 0) + [-1] * 8
    assert batch[2].tolist() == [-1] * 9


def test_no_texts_are_no_tokens(plain):
    encoded = encode(plain, [], 9)

    assert len(encoded) == 0 and len(encoded.ids) == 0 and encoded.padded(np.arange(0)).shape == (0, 1)


def test_a_bos_can_be_left_out_or_asked_for(plain, with_bos):
    assert special_ids(with_bos, False) == ([], [])
    assert special_ids(with_bos, True) == special_ids(with_bos)
    with pytest.raises(ModelError, match="add_bos: the tokenizer has no BOS token"):
        special_ids(plain, True)


def test_what_is_no_text_is_named(plain):
    with pytest.raises(ModelError, match="text 1 is float, expected str"):
        encode(plain, ["a", float("nan")], 9)


def test_a_length_without_room_for_a_token_is_refused(bert):
    with pytest.raises(ModelError, match="max_length: 2 tokens leave none for the text beside 2 special ones"):
        encode(bert, TEXTS, 2)
