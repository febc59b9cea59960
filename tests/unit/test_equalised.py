"""Equalised evidence: where models were drawn together, the number of IN references says nothing of the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from worlds import gaussian_world, world_of

from memleak.attacks import AttackError, Evidence, Pool, Turn, base, difficulty, lira, reference, rmia, score_each
from memleak.metrics import roc

ATTACKS = {
    "lira": (lira, lira.Options(variance="per_sample")),
    "lira-pooled": (lira, lira.Options(variance="pooled")),
    "base": (base, base.Options()),
    "reference": (reference, reference.Options()),
    "rmia": (rmia, rmia.Options()),
    "rmia-online": (rmia, rmia.Options(mode="online")),
    "difficulty": (difficulty, difficulty.Options()),
}
N_MODELS = 16


def drawn_together(separation: float, *, samples: int = 1500, models: int = N_MODELS, lost: int = 0, seed: int = 1) -> Pool:
    """LiRA's public draw: each sample is in exactly half of the training sets. `lost` models were never trained."""
    draw = np.random.default_rng(seed)
    is_in = (draw.random((models, samples)).argsort(axis=0).argsort(axis=0) < models // 2)[: models - lost]
    level = draw.normal(2, 2, (1, samples, 1))
    margin = level + draw.normal(size=(len(is_in), samples, 1)) + separation * is_in[:, :, None]
    population = draw.normal(2, 2, (1, 800, 1)) + draw.normal(size=(len(is_in), 800, 1))
    return replace(world_of(margin, population, is_in, draw).pool, is_balanced=True)


def turns(pool: Pool, n: int = 6) -> list[Turn]:
    return [Turn(target, np.delete(np.arange(len(pool.is_in)), target)) for target in range(n)]


def mean_auc(pool: Pool, scores: np.ndarray) -> float:
    return float(np.mean([roc.auc(values, pool.is_in[turn.target]) for values, turn in zip(scores, turns(pool), strict=True)]))


def auc_of(name: str, pool: Pool) -> float:
    module, options = ATTACKS[name]
    return mean_auc(pool, score_each(module.score, pool, turns(pool), options))


def count(evidence: Evidence, options: object = None) -> np.ndarray:
    """An attack that looks at nothing but who trained on what."""
    return -evidence.is_in.sum(axis=0).astype(float)


@pytest.mark.parametrize(("lost", "plain"), [(0, 1.0), (2, 0.79)])
def test_the_count_of_in_references_tells_all_and_equalised_it_tells_nothing(lost, plain):
    pool = drawn_together(0, lost=lost)

    assert mean_auc(pool, score_each(count, replace(pool, is_balanced=False), turns(pool), None)) == approx(plain, abs=0.02)
    assert mean_auc(pool, score_each(count, pool, turns(pool), None)) == 0.5


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_models_that_leak_nothing_finds_nothing(name):
    assert auc_of(name, drawn_together(0)) == approx(0.5, abs=0.02)  # three standard deviations of a mean over 6 x 1500


def test_unequal_counts_move_the_scores_of_models_that_leak_nothing():
    """Why equal counts: fitted to 7 or to 8 models, a density differs, and lira answers with the count."""
    plain = replace(drawn_together(0, samples=6000), is_balanced=False)

    assert auc_of("lira-pooled", plain) < 0.49


def test_unequal_counts_flatter_an_attack():
    """Ranked among 7 or among 8 models: what lifts the score beyond what the model leaks is the count."""
    pool = drawn_together(1.0, samples=3000)

    assert auc_of("reference", replace(pool, is_balanced=False)) > auc_of("reference", pool) + 0.02


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_as_strong_as_with_complementary_halves_of_as_many_models(name):
    """Halves are the design in which counts are equal by themselves: 7 IN and 7 OUT references of 16 models."""
    world = gaussian_world(1.0, models=N_MODELS, samples=3000, seed=2, population=800)
    module, options = ATTACKS[name]
    scores = score_each(module.score, world.pool, world.turns[:6], options)
    with_halves = np.mean([roc.auc(values, truth) for values, truth in zip(scores, world.truth, strict=False)])

    assert auc_of(name, drawn_together(1.0, samples=3000)) == approx(with_halves, abs=0.02)


def test_every_sample_has_as_many_in_as_out_references_and_each_is_its_own():
    pool = drawn_together(0, samples=50)
    turn = turns(pool)[0]

    seen = pool.evidence(turn)

    assert (seen.is_in.sum(axis=0) == 7).all() and len(seen.is_in) == 14
    assert (seen.is_in[0::2] != seen.is_in[1::2]).all()  # complements, two by two
    for n in range(50):
        known = {pool.signals["margin"][row, n, 0]: pool.is_in[row, n] for row in turn.references}
        found = seen.reference["margin"][:, n, 0]
        assert len(set(found)) == 14 and [known[value] for value in found] == seen.is_in[:, n].tolist()


def test_all_signals_of_a_sample_are_of_the_same_models():
    seen = drawn_together(0, samples=50).evidence(turns(drawn_together(0, samples=50))[0])

    assert seen.reference["loss"] == approx(np.logaddexp(0, -seen.reference["margin"]), rel=1e-4)


def test_the_population_is_seen_by_as_many_models():
    pool = drawn_together(0, samples=50)
    seen = pool.evidence(turns(pool)[0])

    assert seen.population_reference is not None and pool.population is not None
    assert len(seen.population_reference["loss"]) == len(seen.is_in)
    assert not any(np.array_equal(values, pool.population["loss"][0]) for values in seen.population_reference["loss"])  # not by the target


def test_the_draw_knows_the_sample_and_not_its_place():
    pool = drawn_together(0, samples=40)
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(
        pool, signals={name: values[:, order] for name, values in pool.signals.items()}, is_in=pool.is_in[:, order], sample_id=order, population=None
    )
    whole, part = replace(pool, population=None).evidence(turns(pool)[2]), shuffled.evidence(turns(pool)[2])

    assert np.array_equal(part.reference["margin"], whole.reference["margin"][:, order])


def test_it_does_not_matter_how_many_samples_are_drawn_at_once(monkeypatch):
    pool = drawn_together(0, samples=40)
    whole = pool.evidence(turns(pool)[1])
    monkeypatch.setattr("memleak.attacks.equalised.DRAWN_AT_ONCE", 100)

    assert np.array_equal(pool.evidence(turns(pool)[1]).reference["loss"], whole.reference["loss"])


def test_models_with_the_same_references_see_the_same_evidence():
    """A target and its mock targets are scored alike, or their thresholds would not be the target's."""
    pool = drawn_together(0, samples=40)
    one, other = (pool.evidence(Turn(target, np.arange(4, 16))) for target in (0, 1))

    assert np.array_equal(one.reference["margin"], other.reference["margin"])
    assert not np.array_equal(one.target["margin"], other.target["margin"])


def test_a_sample_without_references_of_one_kind_is_named():
    pool = drawn_together(0, samples=40)
    is_in = pool.is_in.copy()
    is_in[1:, 7] = True

    with pytest.raises(AttackError, match=r"sample 7 has 15 IN and 0 OUT references"):
        replace(pool, is_in=is_in).evidence(turns(pool)[0])
