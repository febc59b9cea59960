"""BASE: is the sample likelier under the target than under the average of the references?

The target's log-probability less that of the mixture of all references: the log-likelihood ratio of Bayes' rule when
nothing but the references is known; equal in rank to RMIA without its population.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import special

from memleak.attacks import Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import Comparison
from memleak.params import Frozen

TINY = 1e-280  # a sum of probabilities below this, relative to the largest of all models, has lost digits


class Options(Frozen):
    """Which references make the average, and how much it counts."""

    mode: Literal["online", "offline"] = "online"
    scale: float = Field(1.0, description="weight of the references' average; choose it on other models than the audited one")

    @property
    def needs(self) -> Needs:
        return Needs(("loss",), outside=1 if self.mode == "offline" else 0, references=1)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """log p_target - scale * log mean p_reference, [N], in nats; the mean over views. p is the label's probability.

    `online` averages all references, `offline` those that were not trained on the sample.
    """
    return _score(Comparison.of_evidence(evidence), options)[0]


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """The scores of every turn, [T, N], from sums over each turn's references."""
    return _score(Comparison.of_turns(pool, turns), options)


def _score(comparison: Comparison, options: Options) -> np.ndarray:
    comparison.require(options.needs, "base")
    comparison.refuse_constant("loss", "base")
    scores = np.empty((comparison.n_turns, comparison.n_samples))
    for samples in comparison.chunks(comparison.n_views("loss")):
        average = _log_mean(comparison, samples, options.mode)
        for turn in range(comparison.n_turns):
            log_p = -comparison.of_target("loss", turn, samples)
            scores[turn, samples] = (log_p - options.scale * average[turn]).mean(axis=-1)
    return scores


def _log_mean(comparison: Comparison, samples: slice, mode: str) -> np.ndarray:
    """log of the mean probability over each turn's references, [T, n, Q], exact however small the probabilities are."""
    log_p = -comparison.of_models("loss", samples)
    chosen = ~comparison.is_in[:, samples] if mode == "offline" else np.ones(log_p.shape[:2], dtype=bool)
    top = log_p.max(axis=0)  # of all models: whom `is_in` leaves out must not move even the rounding
    sums = comparison.over_references(np.exp(log_p - top) * chosen[:, :, None])
    count = comparison.over_references(chosen)[:, :, None]
    with np.errstate(divide="ignore"):
        found = top + np.log(sums) - np.log(count)
    for turn in np.flatnonzero((sums < TINY).any(axis=(1, 2))):  # the largest probability is not among those that count
        lost = (sums[turn] < TINY).any(axis=1)
        rows = comparison.is_reference[turn].astype(bool)
        counted = chosen[rows][:, lost, None]
        found[turn, lost] = special.logsumexp(log_p[rows][:, lost], axis=0, b=counted) - np.log(count[turn, lost])
    return found
