"""Laws of scoring: what a model says about a text does not depend on the company that it is asked in."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import CONTEXT, VOCABULARY, causal, masked, one_by_one, texts

from memleak.signals.language.scoring import score

ROW = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=CONTEXT)
ROWS = st.lists(ROW, min_size=1, max_size=8)
RTOL, ATOL = 1e-4, 2e-5  # float32: sums of a few hundred terms in another order
FEW = settings(max_examples=15, deadline=None)
causal_once, masked_once = functools.cache(causal), functools.cache(masked)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scored(rows, task, budget):
    network = causal_once() if task == "causal-lm" else masked_once()
    said = score(network, task, texts(rows), token_budget=budget, mask_id=4)
    return [{name: said.columns[name][said.offsets[i] : said.offsets[i + 1]] for name in said.columns} for i in range(len(rows))]


def assert_alike(one, other):
    for name, values in one.items():
        if name == "log_rank":  # of two tokens that are equally likely to rounding, either may come first
            assert np.abs(np.expm1(values) - np.expm1(other[name])).max(initial=0) < 1.01
        else:
            np.testing.assert_allclose(values, other[name], rtol=RTOL, atol=ATOL, err_msg=name)


@FEW
@pytest.mark.parametrize("task", ["causal-lm", "masked-lm"])
@given(rows=ROWS, budget=st.integers(1, 300), data=st.data())
def test_signals_are_the_same_alone_in_any_batch_order_and_budget(task, rows, budget, data):
    order = data.draw(st.permutations(range(len(rows))))
    whole = scored(rows, task, None)
    shuffled = scored([rows[i] for i in order], task, budget)

    for place, i in enumerate(order):
        assert_alike(whole[i], shuffled[place])
    assert_alike(whole[0], scored(rows[:1], task, None)[0])


@FEW
@given(rows=ROWS)
def test_what_min_k_plus_plus_is_made_of_is_that_of_the_whole_softmax(rows):
    """(log p - mean) / deviation, both under p (Zhang et al. 2024, "Min-K%++"); the oracle is in float64."""
    said, slow = score(causal_once(), "causal-lm", texts(rows)).columns, one_by_one(causal_once(), rows)

    standard = (said["log_prob"] - said["mean_log_prob"]) / said["std_log_prob"]

    np.testing.assert_allclose(standard, (slow["log_prob"] - slow["mean_log_prob"]) / slow["std_log_prob"], rtol=1e-3, atol=1e-3)


@FEW
@given(rows=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=4), min_size=1, max_size=5))
def test_texts_under_five_tokens_have_finite_signals(rows):
    said = score(causal_once(), "causal-lm", texts(rows))

    assert said.n_tokens.min() >= 1
    assert all(np.isfinite(values).all() for values in said.columns.values())
    assert (said.columns["std_log_prob"] > 0).all()
