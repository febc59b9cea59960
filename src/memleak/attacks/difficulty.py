"""Difficulty calibration: a signal less what models that never saw the sample say.

Watson et al. 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from memleak.attacks import Evidence, Needs, Pool, Turn, estimate
from memleak.attacks.estimate import Comparison
from memleak.params import Frozen


class Options(Frozen):
    """Which signal is calibrated."""

    signal: Literal["loss", "margin", "confidence", "entropy", "modified_entropy"] = "loss"
    mode: Literal["offline"] = "offline"

    @property
    def needs(self) -> Needs:
        return Needs((self.signal,), outside=1)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """The target's signal, turned so that higher is a member's, less its mean over OUT references, [N]; the mean over views.

    In units of the signal: nats for the loss.
    """
    return _score(Comparison.of_evidence(evidence), options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N], from sums over each turn's references."""
    return _score(Comparison.of_turns(pool, turns), options)


def _score(comparison: Comparison, options: Options) -> np.ndarray:
    comparison.require(options.needs, "difficulty")
    comparison.refuse_constant(options.signal, "difficulty")
    scores = np.empty((comparison.n_turns, comparison.n_samples))
    for samples in comparison.chunks(comparison.n_views(options.signal)):
        outside = ~comparison.is_in[:, samples]
        values = estimate.turned(comparison.of_models(options.signal, samples), options.signal)
        sums = comparison.over_references(values * outside[:, :, None])
        means = sums / comparison.over_references(outside)[:, :, None]
        for turn in range(comparison.n_turns):
            target = estimate.turned(comparison.of_target(options.signal, turn, samples), options.signal)
            scores[turn, samples] = (target - means[turn]).mean(axis=-1)
    return scores
