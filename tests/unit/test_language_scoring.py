"""What a causal language model says about tokens and texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scored import CONTEXT, VOCABULARY, causal, drawn, one_by_one, texts
from torch.utils._python_dispatch import TorchDispatchMode

from memleak.params.texts import LANGUAGE_SIGNALS, TEXT_SIGNALS, TOKEN_SIGNALS
from memleak.signals import SignalError
from memleak.signals.language import TokenSignals, scoring
from memleak.signals.language.scoring import score
from memleak.signals.language.texts import per_text

ROWS = drawn([5, 2, 31, 12, 12, 7, 48, 3])


@pytest.fixture(scope="module")
def gpt2():
    return causal()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_alike(said: TokenSignals, expected: dict[str, np.ndarray], rtol: float = 1e-4) -> None:
    for name, values in expected.items():
        assert said.columns[name] == pytest.approx(values, rel=rtol, abs=1e-5), name


@pytest.mark.parametrize("budget", [1, 40, None])
def test_signals_of_tokens_are_those_of_the_whole_softmax_of_each_text_alone(gpt2, budget):
    said = score(gpt2, "causal-lm", texts(ROWS), token_budget=budget)

    assert_alike(said, one_by_one(gpt2, ROWS))
    assert said.n_tokens.tolist() == [len(row) - 1 for row in ROWS]
    assert said.columns["token_id"].tolist() == [one for row in ROWS for one in row[1:]]


def test_scoring_leaves_the_network_as_it_was():
    network, ids = causal(), torch.tensor([ROWS[2]])
    with torch.no_grad():
        before = network(input_ids=ids).logits
        score(network, "causal-lm", texts(ROWS))

        assert torch.equal(before, network(input_ids=ids).logits)


def test_all_signals_of_tokens_but_the_references_are_there_in_their_types(gpt2):
    columns = score(gpt2, "causal-lm", texts(ROWS)).columns

    assert set(columns) == set(TOKEN_SIGNALS) - {"reference_log_prob"}
    assert {name: values.dtype for name, values in columns.items() if values.dtype != np.float32} == {"token_id": np.int32}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("Llama", {}), ("Gemma2", {"final_logit_softcapping": 0.5}), ("Cohere", {"logit_scale": 0.25}), ("Granite", {"logits_scaling": 3.0})],
)
def test_models_that_bend_their_logits_are_read_as_they_answer(kind, fields):
    network = causal(kind, **fields)

    said = score(network, "causal-lm", texts(ROWS))

    assert_alike(said, one_by_one(network, ROWS), rtol=2e-4)


def test_a_soft_cap_that_small_logits_hide_is_found_in_the_config():
    assert scoring.backbone_and_head(causal("Gemma2", final_logit_softcapping=1e4)) is None
    assert scoring.backbone_and_head(causal("Gemma2", final_logit_softcapping=None)) is not None


def test_a_head_that_does_not_say_what_the_network_says_is_not_used():
    network = causal()

    def triple(module, given, output):
        output.logits = 3 * output.logits
        return output

    network.register_forward_hook(triple)

    said = score(network, "causal-lm", texts(ROWS))

    assert_alike(said, one_by_one(network, ROWS))


def test_only_what_stands_behind_a_bos_or_prefix_and_before_the_suffix_is_scored(gpt2):
    whole = score(gpt2, "causal-lm", texts([ROWS[2]])).columns["log_prob"]
    cut = {n: score(gpt2, "causal-lm", texts([ROWS[2]], *n)).columns["log_prob"] for n in [(1, 0), (5, 0), (5, 2)]}

    assert cut[1, 0] == pytest.approx(whole)
    assert cut[5, 0] == pytest.approx(whole[4:])
    assert cut[5, 2] == pytest.approx(whole[4:-2])


def test_ids_that_mean_padding_elsewhere_change_nothing():
    """Rows are padded by their lengths, so no id means padding."""
    network = causal(pad_token_id=2, eos_token_id=2)  # pad is eos
    rows = [[2, 0, 0, 5], [0, 0], [7, 2, 2, 2, 2, 2, 9], [2, 2]]

    said = score(network, "causal-lm", texts(rows))

    assert_alike(said, one_by_one(network, rows))


def test_a_text_without_a_scored_token_has_no_signals_and_two_tokens_have_some(gpt2):
    encoded = texts([[5], ROWS[0], [], [3, 4]])

    found = per_text(score(gpt2, "causal-lm", encoded), encoded)

    assert found["n_tokens"].tolist() == [0, 4, 0, 1]
    for name in LANGUAGE_SIGNALS:
        assert np.isnan(found[name]).tolist() == [True, False, True, False]


def test_signals_of_texts_are_means_over_tokens():
    said = TokenSignals(
        {"log_prob": np.log([0.5, 0.125, 0.9]), "top_prob": np.array([0.5, 0.7, 0.9]), "mean_log_prob": np.array([-1.0, -3.0, -0.5])},
        np.array([0, 2, 3]),
    )

    found = per_text(said, texts([[1, 2, 3], [1, 2]]))

    assert set(found) == {*LANGUAGE_SIGNALS, *TEXT_SIGNALS}
    assert found["loss"] == pytest.approx([np.log(4), -np.log(0.9)])
    assert found["margin"] == pytest.approx([np.log(0.25 / 0.75), np.log(9)])  # of the geometric mean 1/4
    assert found["confidence"] == pytest.approx([0.6, 0.9])
    assert found["entropy"] == pytest.approx([2.0, 0.5])
    assert (found["n_bytes"].tolist(), found["zlib_bytes"].tolist()) == ([7, 7], [9, 9])


def test_a_text_known_by_heart_has_a_finite_margin():
    said = TokenSignals({name: np.zeros(3) for name in ("log_prob", "top_prob", "mean_log_prob")}, np.array([0, 3]))

    assert per_text(said, texts([[1, 2, 3, 4]]))["margin"] == pytest.approx(24 * np.log(2), rel=1e-3)


def test_statistics_stay_finite_where_one_token_is_certain():
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 3] = 200.0

    log_prob, mean, std, log_rank, top, gap = scoring.statistics(logits, torch.tensor([3, 4]))

    assert log_prob.tolist() == pytest.approx([0, -200]) and mean.tolist() == [0, 0]
    assert std.tolist() == pytest.approx([scoring.LEAST_STD] * 2)
    assert (top.tolist(), gap.tolist(), log_rank.tolist()) == ([1, 1], [1, 1], pytest.approx([0, np.log(2)]))


def test_two_tokens_equally_likely_leave_no_gap():
    logits = torch.zeros(1, VOCABULARY)

    assert scoring.statistics(logits, torch.tensor([3]))[5].item() == 0.0


def test_batches_hold_every_row_once_within_the_budget():
    lengths = np.array([9, 3, 50, 3, 4, 20, 1])

    found = scoring.batches(lengths, 20)

    assert sorted(np.concatenate(found)) == list(range(7))
    assert all(len(rows) * lengths[rows].max() <= 20 or len(rows) == 1 for rows in found)
    assert len(found[0]) > 1 and found[-1].tolist() == [2]


def out_of_memory_beyond(n_tokens, monkeypatch):
    states = scoring._Scorer._states

    def limited(self, shown):
        if shown.size > n_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(self, shown)

    monkeypatch.setattr(scoring._Scorer, "_states", limited)


def test_out_of_memory_halves_the_batches_and_says_so(gpt2, monkeypatch, capsys):
    expected = score(gpt2, "causal-lm", texts(ROWS))
    out_of_memory_beyond(60, monkeypatch)

    said = score(gpt2, "causal-lm", texts(ROWS), token_budget=200)

    assert_alike(said, {name: expected.columns[name] for name in ("log_prob", "std_log_prob")})
    assert "going on with batches of" in capsys.readouterr().out


def test_one_text_too_long_for_memory_is_an_error(gpt2, monkeypatch):
    out_of_memory_beyond(20, monkeypatch)

    with pytest.raises(SignalError, match=r"48 tokens does not fit .* lower max_length"):
        score(gpt2, "causal-lm", texts(ROWS))


def test_answers_that_are_no_numbers_are_refused_with_the_text():
    network = causal()
    with torch.no_grad():
        network.transformer.wte.weight[90] = torch.nan

    with pytest.raises(SignalError, match=r"NaN or infinity .* training diverged"):
        score(network, "causal-lm", texts([[1, 2, 3], [90, 91, 92]]))


def test_classifiers_are_not_scored_by_tokens(gpt2):
    with pytest.raises(SignalError, match="sequence-classification: tokens are scored by causal-lm and masked-lm"):
        score(gpt2, "sequence-classification", texts(ROWS))


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that is made."""

    n_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.n_bytes = max(self.n_bytes, tensor.numel() * tensor.element_size())
        return found


def test_memory_of_head_and_statistics_is_that_of_some_rows_at_a_large_vocabulary():
    """The logits of one batch would be 100 MB; no tensor is larger than the rows that the head is applied to."""
    network, encoded = causal(vocab_size=50_257), texts(drawn([CONTEXT] * 12, vocabulary=50_257))

    with Largest() as largest:
        score(network, "causal-lm", encoded)

    assert 50_257 * 4 < largest.n_bytes <= scoring.LOGITS_AT_ONCE["cpu"]
