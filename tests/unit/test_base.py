"""BASE: the target's log-probability against the mixture of the references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles import base_by_loop, rmia_ratios
from pytest import approx
from scipy import stats
from worlds import gaussian_world, perfect_memory_world

from memleak.attacks import AttackError, Evidence, Pool, Turn, base
from memleak.attacks.base import Options
from memleak.metrics import roc


def test_base_by_hand():
    """Target p = .8; references .5 (OUT) and .9 (IN): log .8 - log .7, offline log .8 - log .5."""
    loss = -np.log([[[0.5]], [[0.9]]])
    seen = Evidence({"loss": -np.log([[0.8]])}, {"loss": loss}, np.array([[False], [True]]))

    assert base.score(seen, Options()) == approx(np.log(0.8 / 0.7))
    assert base.score(seen, Options(mode="offline")) == approx(np.log(0.8 / 0.5))
    assert base.score(seen, Options(mode="offline", scale=0.5)) == approx(np.log(0.8) - 0.5 * np.log(0.5))


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_base_is_the_loop_over_samples(mode, scale):
    seen = gaussian_world(1.0, 12, 50, seed=0, views=3).evidence

    assert base.score(seen, Options(mode=mode, scale=scale)) == approx(base_by_loop(seen, mode, scale), rel=1e-9, abs=1e-9)


def test_base_ranks_as_the_ratio_of_rmia_does():
    """With as many IN as OUT references, RMIA's ratio is the exponential of BASE."""
    seen = gaussian_world(1.0, 12, 300, seed=0, population=5).evidence

    assert base.score(seen, Options()) == approx(np.log(rmia_ratios(seen, "online", None)[0][:, 0]), abs=1e-5)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_members_score_higher(mode):
    world = gaussian_world(1.5, 32, 2000, seed=0)

    assert roc.auc(base.score(world.evidence, Options(mode=mode)), world.is_member) > 0.7


def test_perfect_memory_is_seen():
    world = perfect_memory_world(8, 400, seed=0)

    assert roc.auc(base.score(world.evidence, Options()), world.is_member) > 0.99


def test_probabilities_too_small_for_a_float_are_no_obstacle():
    """Losses of 900 and more: exp(-900) is zero."""
    loss = np.array([900.0, 905.0, 910.0])[:, None, None]
    seen = Evidence({"loss": np.array([[899.0]])}, {"loss": loss}, np.zeros((3, 1), dtype=bool))

    expected = -899 + 900 - np.log((1 + np.exp(-5) + np.exp(-10)) / 3)
    assert base.score(seen, Options()) == approx(expected)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_model_that_is_no_reference_does_not_drown_the_references(mode):
    """The largest probability of the pool is the target's, by more than a float can hold."""
    loss = np.array([0.1, 900.0, 905.0])[:, None, None]
    pool, turn = Pool({"loss": loss}, np.zeros((3, 1), dtype=bool)), Turn(0, np.array([1, 2]))

    found = base.score_all(pool, [turn], Options(mode=mode))[0]

    assert found == approx(base.score(pool.evidence(turn), Options(mode=mode)))
    assert found == approx(-0.1 + 900 - np.log((1 + np.exp(-5)) / 2))


def test_base_alone_knows_no_more_than_the_optimum():
    world = gaussian_world(1.5, 64, 4000, seed=0)

    assert roc.auc(base.score(world.evidence, Options()), world.is_member) < stats.norm.cdf(1.5 / np.sqrt(2))


def test_what_base_refuses():
    seen = gaussian_world(1.0, 8, 20, seed=0).evidence
    nobody = {name: values[:0] for name, values in seen.reference.items()}

    with pytest.raises(AttackError, match="there is no reference model, at least 1 is needed"):
        base.score(replace(seen, reference=nobody, is_in=seen.is_in[:0]), Options())
    with pytest.raises(AttackError, match="sample 0 has 0 OUT references of 6, at least 1 are needed"):
        base.score(replace(seen, is_in=np.ones_like(seen.is_in)), Options(mode="offline"))
    with pytest.raises(AttackError, match="the signal 'loss' is asked for, the evidence holds entropy"):
        base.score(replace(seen, target={"entropy": seen.target["entropy"]}, reference={"entropy": seen.reference["entropy"]}), Options())
    with pytest.raises(AttackError, match="every loss is 0"):
        base.score(Evidence({"loss": np.zeros((3, 1))}, {"loss": np.zeros((2, 3, 1))}, np.zeros((2, 3), dtype=bool)), Options())
