"""Attack-P: shares of the records that nobody trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from worlds import gaussian_world

from memleak.attacks import AttackError, Evidence, population
from memleak.attacks.population import Options
from memleak.metrics import roc


def evidence(loss, others, signal: str = "loss", **ids) -> Evidence:
    loss, others = np.asarray(loss, dtype=float), np.asarray(others, dtype=float)
    return Evidence({signal: loss}, {}, np.zeros((0, len(loss)), dtype=bool), {signal: others}, **ids)


def test_the_score_is_the_share_of_the_population_that_is_less_like_a_member_with_half_of_the_ties():
    """Of losses 1, 2, 2, 3: above 2.5 lies one, above 2 one and two ties, above 0 all."""
    scores = population.score(evidence([[2.5], [2.0], [0.0], [9.0]], [[1.0], [2.0], [2.0], [3.0]]), Options())

    assert scores == approx([1 / 4, (1 + 2 / 2) / 4, 1, 0])


@pytest.mark.parametrize(("signal", "best"), [("loss", 0), ("margin", 1), ("confidence", 1), ("entropy", 0), ("modified_entropy", 0)])
def test_every_signal_is_ranked_by_its_sign(signal, best):
    scores = population.score(evidence([[0.0], [1.0], [0.5]], [[0.2], [0.8]], signal), Options(signal=signal))

    assert scores[best] == 1 and scores[1 - best] == 0 and scores[2] == 0.5


def test_shares_are_averaged_over_views():
    scores = population.score(evidence([[0.0, 9.0], [0.0, 0.0], [1.0, 9.0]], [[1.0, 1.0]]), Options())

    assert scores == approx([0.5, 1.0, 0.25])


def test_a_sample_of_the_population_is_not_compared_with_itself():
    together = evidence([[2.0], [5.0]], [[5.0], [2.0], [2.0]], sample_id=np.array([7, 8]), population_id=np.array([8, 7, 6]))
    apart = population.score(evidence([[2.0]], [[5.0], [2.0]]), Options())

    assert apart == approx([0.75])
    assert population.score(together, Options()) == approx([apart[0], 0.0])


def test_one_target_has_the_roc_of_the_loss():
    world = gaussian_world(separation=1.0, models=4, samples=500, seed=0, population=20_000)
    scores = population.score(world.evidence, Options())

    assert roc.auc(scores, world.is_member) == approx(roc.auc(-world.evidence.target["loss"], world.is_member), abs=1e-3)


def test_a_sample_like_the_population_has_a_uniform_score():
    draw = np.random.default_rng(0)
    scores = population.score(evidence(draw.normal(size=(4000, 1)), draw.normal(size=(999, 1))), Options())

    assert np.quantile(scores, [0.1, 0.5, 0.9]) == approx([0.1, 0.5, 0.9], abs=0.04)


def test_all_targets_at_once_have_the_scores_of_each_alone():
    world = gaussian_world(separation=1.0, models=6, samples=50, seed=5, population=40, views=2)
    pool = replace(world.pool, population_id=np.arange(40) + 20)
    alone = np.stack([population.score(pool.evidence(turn), Options()) for turn in world.turns])

    assert np.array_equal(population.score_all(pool, world.turns, Options()), alone)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (evidence([[1.0], [2.0]], np.zeros((0, 1))), "the population is empty"),
        (replace(evidence([[1.0]], [[1.0]]), population_target=None), "the population is empty"),
        (evidence([[1.0], [2.0]], [[1.0, 1.0]]), "queried in 1 views and the population in 2"),
        (evidence([[1.0], [np.nan]], [[1.0]]), "1 of 2 values are not finite"),
        (evidence([[2.0], [2.0]], [[2.0]]), "loss is 2 for all 3 samples"),
        (evidence([[1.0], [2.0]], [[1.0], [1.0]], sample_id=np.arange(2), population_id=np.array([5, 5])), "holds sample 5 twice"),
        (evidence([[1.0], [2.0]], [[1.0]], sample_id=np.arange(2), population_id=np.array([1])), "the population is sample 1 alone"),
        (evidence([[1.0], [2.0]], [[1.0]], "entropy"), "'loss' is asked for"),
    ],
)
def test_evidence_that_cannot_be_used_is_refused_in_a_sentence(found, message):
    with pytest.raises(AttackError, match=message):
        population.score(found, Options())


def test_ids_may_be_text():
    own = population.own_position(np.array(["b", "x"]), np.array(["c", "b", "a"]), "population")

    assert own.tolist() == [1, -1]
    assert population.own_position(np.array(["y"]), np.array(["c", "b"]), "population") is None
