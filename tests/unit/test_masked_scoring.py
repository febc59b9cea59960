"""Pseudo-log-likelihood of masked language models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scored import drawn, masked, masked_one_by_one, texts

from memleak.signals import SignalError
from memleak.signals.language import masked as masked_room
from memleak.signals.language import scoring
from memleak.signals.language.scoring import score

MASK = 4
ROWS = [[2, *row, 3] for row in drawn([6, 1, 17, 9, 9], seed=1)]  # [CLS] text [SEP]


@pytest.fixture(scope="module", params=["Bert", "Roberta"])
def network(request):
    return masked(request.param)


def scored(network, rows=ROWS, stride=None, budget=None):
    return score(network, "masked-lm", texts(rows, 1, 1), mask_id=MASK, stride=stride, token_budget=budget)


@pytest.mark.parametrize("budget", [1, 64, None])
def test_each_token_is_told_with_itself_alone_masked(network, budget):
    said = scored(network, budget=budget)

    expected = [masked_one_by_one(network, row, [[place] for place in range(1, len(row) - 1)], MASK) for row in ROWS]
    assert said.n_tokens.tolist() == [6, 1, 17, 9, 9]
    assert said.columns["log_prob"] == pytest.approx(np.concatenate(expected), rel=1e-4, abs=1e-5)


def test_strided_every_nth_token_is_masked_with_it(network):
    said = scored(network, [ROWS[2]], stride=6)

    groups = [range(1 + k, 18, 6) for k in range(6)]
    assert said.columns["log_prob"] == pytest.approx(masked_one_by_one(network, ROWS[2], groups, MASK), rel=1e-4, abs=1e-5)


def test_a_stride_as_long_as_the_text_is_exact(network):
    exact, strided = scored(network), scored(network, stride=17)

    assert strided.columns["log_prob"] == pytest.approx(exact.columns["log_prob"], rel=1e-4, abs=1e-5)


def test_strided_a_text_takes_as_many_passes_as_the_stride():
    n_rows = {stride: len(masked_room.passes(texts([ROWS[2]], 1, 1), MASK, stride).text) for stride in (None, 6, 40)}

    assert n_rows == {None: 17, 6: 6, 40: 17}


def test_bert_is_read_through_its_own_head_and_not_as_a_whole():
    """The head after the backbone alone is applied to masked places alone; a linear layer by itself would not say the same."""
    passes = masked_room.passes(texts(ROWS, 1, 1), MASK)

    with torch.inference_mode():
        assert scoring._Scorer(masked(), "masked-lm", passes, None)._parts is not None


def test_a_tokenizer_without_a_mask_token_is_refused():
    with pytest.raises(SignalError, match="no mask token"):
        score(masked(), "masked-lm", texts(ROWS, 1, 1))


def test_a_stride_below_one_is_refused():
    with pytest.raises(SignalError, match="stride: 0 is no number of passes"):
        scored(masked(), stride=0)
