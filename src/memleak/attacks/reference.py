"""Attack-R: how many models that never saw the sample find it as easy as the target does?

Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from memleak.attacks import Evidence, Needs, Pool, Turn, estimate
from memleak.attacks.estimate import Comparison
from memleak.params import Frozen


class Options(Frozen):
    """Which signal is ranked; loss and margin have the same ranks."""

    signal: Literal["loss", "margin"] = "loss"

    @property
    def needs(self) -> Needs:
        return Needs((self.signal,), outside=1)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """One minus the mid-rank of the target's loss among its OUT references, [N], in (0, 1); the mean over views.

    1 - (k + 1/2) / (n + 1), k = OUT losses below the target's and half of those equal to it. With n references there
    are n + 1 values, so that scores tie: a threshold finer than 1 / (n + 1) does not exist.
    """
    return _score(Comparison.of_evidence(evidence), options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N]."""
    return _score(Comparison.of_turns(pool, turns), options)


def _score(comparison: Comparison, options: Options) -> np.ndarray:
    comparison.require(options.needs, "reference")
    comparison.refuse_constant(options.signal, "reference")
    scores = np.empty((comparison.n_turns, comparison.n_samples))
    for samples in comparison.chunks(comparison.n_views(options.signal)):
        values = estimate.turned(comparison.of_models(options.signal, samples), options.signal)
        for turn in range(comparison.n_turns):
            target = estimate.turned(comparison.of_target(options.signal, turn, samples), options.signal)
            counted = ~comparison.is_in[:, samples] & comparison.is_reference[turn, :, None].astype(bool)
            rank = _mid_rank_from_above(values, target, counted)
            scores[turn, samples] = (1 - (rank + 0.5) / (counted.sum(axis=0)[:, None] + 1)).mean(axis=-1)
    return scores


def _mid_rank_from_above(values: np.ndarray, target: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """How many counted values of [M, n, Q] lie above the target's [n, Q], and half of those equal to it."""
    counted = counted[:, :, None]
    return np.count_nonzero((values > target) & counted, axis=0) + 0.5 * np.count_nonzero((values == target) & counted, axis=0)
