"""Attack-R: mid-ranks among the references that never saw the sample."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from oracles import reference_by_loop
from pytest import approx
from scipy import stats
from worlds import gaussian_world, perfect_memory_world

from memleak.attacks import AttackError, Evidence, reference
from memleak.attacks.reference import Options
from memleak.metrics import roc


def of_losses(target, outside) -> Evidence:
    loss = np.asarray(outside, dtype=float)[:, None, None].repeat(len(target), axis=1)
    return Evidence({"loss": np.asarray(target, dtype=float)[:, None]}, {"loss": loss}, np.zeros(loss.shape[:2], dtype=bool))


def test_attack_r_by_hand():
    """Four OUT losses 1, 2, 2, 3: below all of them k = 0, at 2 k = 1 + 2/2, above all k = 4."""
    assert reference.score(of_losses([0.5, 2.0, 9.0], [1, 2, 2, 3]), Options()) == approx([1 - 0.5 / 5, 1 - 2.5 / 5, 1 - 4.5 / 5])


def test_attack_r_is_the_mid_rank_ties_included():
    world = gaussian_world(1.0, 12, 60, seed=0, views=3)
    seen = replace(world.evidence, **{side: {"loss": np.round(getattr(world.evidence, side)["loss"], 1)} for side in ("target", "reference")})

    assert reference.score(seen, Options()) == approx(reference_by_loop(seen))


def test_loss_and_margin_have_the_same_ranks():
    seen = gaussian_world(1.0, 12, 60, seed=0).evidence

    assert np.array_equal(reference.score(seen, Options()), reference.score(seen, Options(signal="margin")))


def test_a_non_members_score_is_uniform():
    """One value among n + 1 alike ones: mean 1/2, and each of the n + 1 ranks as often as another."""
    world = gaussian_world(0.0, 22, 6000, seed=0)  # ten OUT references
    scores = reference.score(world.evidence, Options())

    assert scores.mean() == approx(0.5, abs=0.02)
    assert stats.chisquare(np.unique(scores, return_counts=True)[1]).pvalue > 0.001
    assert len(np.unique(scores)) == 11


def test_attack_r_comes_near_the_optimum_with_many_references():
    world = gaussian_world(1.5, 130, 3000, seed=0, spread=0.8)

    assert roc.auc(reference.score(world.evidence, Options()), world.is_member) == approx(stats.norm.cdf(1.5 / sqrt(2)), abs=0.025)


def test_perfect_memory_is_seen():
    world = perfect_memory_world(16, 400, seed=0)

    assert roc.auc(reference.score(world.evidence, Options()), world.is_member) > 0.9


def test_what_attack_r_refuses():
    seen = of_losses([1.0], [1.0, 2.0])

    with pytest.raises(AttackError, match="sample at position 0 has 0 OUT references of 2, at least 1 are needed"):
        reference.score(replace(seen, is_in=~seen.is_in), Options())
    with pytest.raises(AttackError, match="every loss is 2"):
        reference.score(of_losses([2.0, 2.0], [2.0, 2.0]), Options())
    with pytest.raises(AttackError, match="1 of 1 values are not finite"):
        reference.score(of_losses([np.nan], [1.0, 2.0]), Options())
