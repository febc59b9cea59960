"""Difficulty calibration: a signal less its mean over models that never saw the sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from worlds import gaussian_world, perfect_memory_world, randomised_response_world

from memleak.attacks import AttackError, Evidence, difficulty
from memleak.attacks.difficulty import Options
from memleak.metrics import roc

SIGNALS = ["loss", "margin", "confidence", "entropy", "modified_entropy"]


def test_difficulty_by_hand():
    """Loss 1, OUT references 2 and 6, IN reference 0: -(1 - 4). IN references do not count."""
    seen = Evidence({"loss": np.array([[1.0]])}, {"loss": np.array([[[2.0]], [[6.0]], [[0.0]]])}, np.array([[False], [False], [True]]))

    assert difficulty.score(seen, Options()) == approx(3.0)


@pytest.mark.parametrize("signal", SIGNALS)
def test_members_score_higher_whatever_the_sign_of_the_signal(signal):
    world = gaussian_world(1.5, 16, 2000, seed=0)

    assert roc.auc(difficulty.score(world.evidence, Options(signal=signal)), world.is_member) > 0.55


def test_calibration_helps_where_samples_differ_in_difficulty():
    world = gaussian_world(1.5, 32, 2000, seed=0)

    calibrated = roc.auc(difficulty.score(world.evidence, Options(signal="margin")), world.is_member)

    assert calibrated > roc.auc(world.evidence.target["margin"][:, 0], world.is_member) + 0.1


def test_views_are_averaged():
    seen = gaussian_world(1.5, 8, 30, seed=0, views=3).evidence
    one_by_one = [
        difficulty.score(
            replace(seen, **{side: {"loss": getattr(seen, side)["loss"][..., q : q + 1]} for side in ("target", "reference")}), Options()
        )
        for q in range(3)
    ]

    assert difficulty.score(seen, Options()) == approx(np.mean(one_by_one, axis=0))


def test_perfect_memory_is_seen():
    world = perfect_memory_world(8, 400, seed=0)

    assert roc.auc(difficulty.score(world.evidence, Options()), world.is_member) == 1


def test_of_randomised_response_no_more_is_learnt_than_it_says():
    """The answer is right with probability e^eps / (1 + e^eps), and so is the ranking by it."""
    world = randomised_response_world(1.0, 64, 8000, seed=0)

    auc = roc.auc(difficulty.score(world.evidence, Options(signal="margin")), world.is_member)

    assert auc == approx(np.e / (1 + np.e), abs=0.02)


def test_what_difficulty_refuses():
    seen = gaussian_world(1.0, 8, 20, seed=0).evidence

    with pytest.raises(AttackError, match="sample 0 has 0 OUT references of 6"):
        difficulty.score(replace(seen, is_in=np.ones_like(seen.is_in)), Options())
    with pytest.raises(AttackError, match="the signal 'entropy' is asked for, the evidence holds loss"):
        difficulty.score(replace(seen, target={"loss": seen.target["loss"]}, reference={"loss": seen.reference["loss"]}), Options(signal="entropy"))
    with pytest.raises(AttackError, match="every entropy is 1"):
        constant = {side: {"entropy": np.ones_like(getattr(seen, side)["entropy"])} for side in ("target", "reference")}
        difficulty.score(replace(seen, **constant), Options(signal="entropy"))
