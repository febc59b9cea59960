"""Attacks on language models: each equals its formula, knows no padding and no order, and finds what there is to find."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from oracles import language_score
from pytest import approx
from worlds import TextWorld, text_world

from memleak import plugins
from memleak.attacks import AttackError, Evidence, Pool, Turn, language, score_each
from memleak.attacks.language import lowercase, neighbourhood, recall, token, zlib_ratio
from memleak.metrics import roc
from memleak.params import attack_options
from memleak.params.texts import TOKEN_SIGNALS

OF_TOKENS = {
    "min_k": {"name": "min_k"},
    "min_k of half": {"name": "min_k", "k": 0.5},
    "min_k++": {"name": "min_k", "normalised": True},
    "surp": {"name": "surp"},
    "surp of few": {"name": "surp", "k": 0.2, "entropy": 1.2},
    "dc_pdd": {"name": "dc_pdd", "limit": 0.3},
    "ez": {"name": "ez"},
    "wbc": {"name": "wbc"},
}
IN_VIEWS = {"lowercase": 2, "recall": 2, "neighbourhood": 6}  # that they ask for
ALL = OF_TOKENS | {
    "reference difference": {"name": "reference_model"},
    "reference ratio": {"name": "reference_model", "form": "ratio"},
    "zlib": {"name": "zlib"},
    "zlib of the sum": {"name": "zlib", "form": "sum"},
    **{f"token {name}": {"name": "token", "statistic": name} for name in ("entropy", "top_gap", "top_prob", "is_top", "log_rank")},
    **{name: {"name": name} for name in IN_VIEWS},
}
every_attack = pytest.mark.parametrize("entry", ALL.values(), ids=ALL)


def scores(entry: dict, evidence: Evidence) -> np.ndarray:
    return plugins.function_of("attacks", entry["name"])(evidence, attack_options(entry))


def world_for(entry: dict, **changed) -> TextWorld:
    """A world with the views that an attack asks for, in each of which a text begins with another token."""
    found = text_world(**({"gain": 2.0, "texts": 60, "seed": 3, "views": IN_VIEWS.get(entry["name"], 1)} | changed))
    token_id = found.target["token_id"].copy()
    token_id[:, 1:, 0] = 41
    return replace(found, target=found.target | {"token_id": token_id})


def changed(evidence: Evidence, **signals: np.ndarray) -> Evidence:
    return replace(evidence, target={**evidence.target, **signals})


@pytest.mark.parametrize("entry", OF_TOKENS.values(), ids=OF_TOKENS)
def test_each_score_is_that_of_the_published_formula_token_by_token(entry):
    """Short texts too: int(k n) is 0 under five tokens, and the longest windows fit into no text."""
    evidence = text_world(gain=1.0, texts=80, seed=1, views=2, longest=45).evidence
    options = attack_options(entry).model_dump()
    counts = Counter(token for text in evidence.target["token_id"][:, 0] for token in text if token >= 0)
    frequency = {token: (n + 1) / (counts.total() + max(counts) + 1) for token, n in counts.items()}

    expected = [
        np.mean([
            language_score(
                entry["name"], options,
                {name: np.asarray(values[n, q], dtype=np.float64)[: evidence.target["n_tokens"][n, q]].tolist()
                 for name, values in evidence.target.items() if name in TOKEN_SIGNALS},
                frequency,
            )
            for q in range(2)
        ])
        for n in range(80)
    ]  # fmt: skip

    assert evidence.target["n_tokens"].min() < 5
    assert scores(entry, evidence) == approx(np.array(expected), rel=1e-9, abs=1e-12)


@every_attack
def test_the_order_of_texts_changes_nothing(entry):
    found = world_for(entry).evidence
    order = np.random.default_rng(0).permutation(60)
    mixed = replace(found, target={name: values[order] for name, values in found.target.items()})

    assert scores(entry, mixed) == approx(scores(entry, found)[order], abs=1e-12)


@every_attack
def test_padding_changes_nothing(entry):
    found = world_for(entry).evidence
    wider = {
        name: np.concatenate([values, np.full((*values.shape[:2], 7), -1 if name == "token_id" else np.nan, values.dtype)], axis=-1)
        for name, values in found.target.items() if values.ndim == 3
    }  # fmt: skip

    assert scores(entry, changed(found, **wider)) == approx(scores(entry, found), rel=1e-12)


@every_attack
def test_a_text_has_the_same_score_however_many_are_read_at_a_time(entry, monkeypatch):
    found = world_for(entry).evidence
    whole = scores(entry, found)
    monkeypatch.setattr(language, "CHUNK_TOKENS", 100)

    assert np.array_equal(scores(entry, found), whole)


@every_attack
def test_texts_of_two_tokens_have_finite_scores(entry):
    found = world_for(entry, shortest=1, longest=3).evidence

    assert found.target["n_tokens"].min() == 1 and np.isfinite(scores(entry, found)).all()


@every_attack
def test_nothing_is_told_where_nothing_was_learnt(entry):
    known = world_for(entry, gain=0.0, texts=2000)

    assert roc.auc(scores(entry, known.evidence), known.is_member) == approx(0.5, abs=4 * 0.0129)  # standard deviation of 1000 + 1000


@every_attack
def test_all_targets_at_once_have_the_scores_of_each_alone_and_no_reference_is_read(entry):
    one, other = world_for(entry, seed=1).target, world_for(entry, seed=2).target
    pool = Pool({name: np.stack([one[name], other[name]]) for name in one}, np.zeros((2, 60), dtype=bool), sample_id=np.arange(60))
    turns = [Turn(0, np.array([1])), Turn(1, np.array([0]))]
    module, options = plugins.module_of("attacks", entry["name"]), attack_options(entry)

    found = module.score_all(pool, turns, options)

    assert np.array_equal(found, score_each(module.score, pool, turns, options))
    blind = replace(pool, signals={name: np.stack([values[0], np.zeros_like(values[0])]) for name, values in pool.signals.items()})
    assert np.array_equal(module.score_all(blind, turns[:1], options)[0], found[0])


def test_a_few_tokens_that_were_learnt_are_found_by_min_k_and_lost_in_the_mean():
    known = text_world(gain=1.5, texts=2000, seed=0, difficulty=1.0, shortest=20)
    of = {name: roc.auc(scores(entry, known.evidence), known.is_member) for name, entry in ALL.items() if entry["name"] not in IN_VIEWS}
    loss = roc.auc(-known.target["loss"][:, 0], known.is_member)

    assert of["min_k"] > loss + 0.03


def test_a_reference_beats_the_loss_where_texts_differ_in_difficulty():
    known = text_world(gain=1.0, texts=1000, seed=0, difficulty=2.0, shortest=20)
    loss = roc.auc(-known.target["loss"][:, 0], known.is_member)

    for name in ("reference difference", "reference ratio", "ez", "wbc"):
        assert roc.auc(scores(ALL[name], known.evidence), known.is_member) > max(0.8, loss + 0.2)


def test_a_text_that_lost_nowhere_is_the_surest_member_of_ez():
    """The published code returns 0 there, and calls it a non-member."""
    evidence = text_world(gain=0.0, texts=20, seed=0, shortest=5).evidence
    log_prob = evidence.target["log_prob"].copy()
    log_prob[3] = evidence.target["reference_log_prob"][3] / 2

    assert scores({"name": "ez"}, changed(evidence, log_prob=log_prob)).argmax() == 3
    right = evidence.target["log_rank"].copy()
    right[3] = np.where(np.isnan(right[3]), np.nan, 0.0)  # and no error is left in it
    assert scores({"name": "ez"}, changed(evidence, log_prob=log_prob, log_rank=right)).argmax() == 3


def test_views_are_compared_with_the_text_itself():
    loss = np.array([[2.0, 3.0, 5.0], [4.0, 4.0, 4.0], [1.0, 1.0, 2.0]])
    of_two = changed(Evidence({"token_id": np.array([[[1, 2], [3, 2]]] * 3)}, {}, np.zeros((0, 3), dtype=bool)), loss=loss[:, :2])

    assert lowercase.score(of_two, lowercase.Options()) == approx([1.5, 1.0, 1.0])
    assert recall.score(of_two, recall.Options(shots=2)) == approx([1.5, 1.0, 1.0])
    of_three = changed(of_two, loss=loss)
    assert neighbourhood.score(of_three, neighbourhood.Options(neighbours=2)) == approx([2.0, 0.0, 0.5])
    with pytest.raises(AttackError, match=r"identity, neighbours-5 \(6 views\), the evidence has 3"):
        neighbourhood.score(of_three, neighbourhood.Options())


def test_a_text_without_capitals_stands_in_the_middle_of_the_others():
    """Its ratio of 1 would make it the least likely member of all."""
    evidence = Evidence(
        {"loss": np.array([[2.0, 2.2], [2.0, 3.0], [2.0, 2.6], [2.0, 2.0]]), "token_id": np.array([[[5, -1], [6, 7]]] * 3 + [[[5, -1], [5, -1]]])},
        {}, np.zeros((0, 4), dtype=bool),
    )  # fmt: skip

    assert lowercase.score(evidence, lowercase.Options()) == approx([1.1, 1.5, 1.3, 1.3])
    no_capitals = changed(evidence, token_id=np.full((4, 2, 1), 5))
    with pytest.raises(AttackError, match="no text has capitals, or the tokenizer knows none"):
        lowercase.score(no_capitals, lowercase.Options())


def test_zlib_divides_the_mean_or_the_whole_by_the_compressed_bytes():
    evidence = Evidence(
        {"loss": np.array([[2.0], [3.0]]), "n_tokens": np.array([[10], [4]]), "zlib_bytes": np.array([[40], [20]])}, {}, np.zeros((0, 2), dtype=bool)
    )

    assert zlib_ratio.score(evidence, zlib_ratio.Options()) == approx([-0.05, -0.15])
    assert zlib_ratio.score(evidence, zlib_ratio.Options(form="sum")) == approx([-0.5, -0.6])


def test_what_a_token_tells_is_turned_so_that_surer_is_higher():
    evidence = Evidence(
        {
            "log_rank": np.array([[[0.0, np.log(3)]], [[0.0, np.nan]]]),
            "mean_log_prob": np.array([[[-1.0, -3.0]], [[-0.5, np.nan]]]),
        },
        {}, np.zeros((0, 2), dtype=bool),
    )  # fmt: skip

    assert token.score(evidence, token.Options(statistic="is_top")) == approx([0.5, 1.0])
    assert token.score(evidence, token.Options()) == approx([-np.log(3) / 2, 0.0])
    assert token.score(evidence, token.Options(statistic="entropy")) == approx([-2.0, -0.5])


def test_frequencies_can_be_counted_in_texts_outside_every_training_set():
    world, outside = text_world(gain=2.0, texts=100, seed=0), text_world(gain=0.0, texts=50, seed=9)
    evidence = replace(world.evidence, population_target=outside.target)
    own = scores({"name": "dc_pdd", "limit": 0.5}, evidence)

    others = scores({"name": "dc_pdd", "limit": 0.5, "corpus": "population"}, evidence)

    assert not np.allclose(own, others) and roc.auc(others, world.is_member) > 0.5
    with pytest.raises(AttackError, match="dc_pdd: the population is empty"):
        scores({"name": "dc_pdd", "corpus": "population"}, world.evidence)


@pytest.mark.parametrize("entry", [{"name": "min_k"}, {"name": "reference_model"}, {"name": "surp"}], ids=lambda entry: entry["name"])
def test_what_tells_nothing_is_refused_in_one_sentence(entry):
    evidence = text_world(gain=1.0, texts=10, seed=0).evidence
    same = np.where(np.isnan(evidence.target["log_prob"]), np.nan, -1.0)
    with pytest.raises(AttackError, match=rf"{entry['name']}: the score is \S+ for all 10 texts"):
        scores(entry, changed(evidence, log_prob=same, reference_log_prob=same))

    empty = evidence.target["log_prob"].copy()
    empty[4] = np.nan
    with pytest.raises(AttackError, match="1 of 10 texts have no scored token"):
        scores(entry, changed(evidence, log_prob=empty))
