"""Attack-P: how a sample's signal ranks among those of records that nobody trained on.

Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models" (population attack).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memleak.attacks import AttackError, Evidence, Needs, Pool, Turn
from memleak.attacks.estimate import require
from memleak.attacks.threshold import SignalName, column_of, refuse_constant, turned_signal
from memleak.params import Frozen


class Options(Frozen):
    """Which signal is ranked."""

    signal: SignalName = "loss"

    @property
    def needs(self) -> Needs:
        return Needs(signals=(column_of(self.signal),), population=True)


def score(evidence: Evidence, options: Options) -> np.ndarray:
    """The share of population points that are less like a member than the sample, [N], between 0 and 1.

    (k + half of those that are equal) / Z, averaged over views. A sample that is itself in the population is not
    compared with itself: its Z is one less. On one target this has the ROC of the signal, but for ties.
    """
    require(evidence, options.needs, "population")
    assert evidence.population_target is not None  # `require` has seen to it
    samples = turned_signal(evidence.target, options.signal)  # [N, Q]
    population = turned_signal(evidence.population_target, options.signal)  # [Z, Q]
    refuse_unequal_views(samples.shape[-1], population.shape[-1], "population")
    refuse_constant(np.concatenate([samples, population]), options.signal, "population")
    own = own_position(evidence.sample_id, evidence.population_id, "population")
    return np.mean([_share_below(samples[:, q], population[:, q], own) for q in range(samples.shape[1])], axis=0)


def score_all(pool: Pool, turns: Sequence[Turn], options: Options) -> np.ndarray:
    """`score` of every turn, [T, N]; references are not read."""
    nobody = np.array([], dtype=int)
    return np.stack([score(pool.evidence(Turn(turn.target, nobody)), options) for turn in turns])


def _share_below(samples: np.ndarray, population: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    ordered = np.sort(population)
    twice = np.searchsorted(ordered, samples, side="left") + np.searchsorted(ordered, samples, side="right")  # twice k, ties once
    if own is None:
        return twice / (2 * len(population))
    itself = population[own]
    twice -= np.where(own >= 0, (itself < samples).astype(int) + (itself <= samples), 0)
    return twice / (2 * (len(population) - (own >= 0)))


def refuse_unequal_views(n_views: int, n_population_views: int, attack: str) -> None:
    """Raise AttackError where samples and population were not queried with as many views."""
    if n_views != n_population_views:
        raise AttackError(
            f"{attack}: the samples were queried in {n_views} views and the population in {n_population_views}, "
            "expected as many; query the population with the samples' views"
        )


def own_position(sample_id: np.ndarray | None, population_id: np.ndarray | None, attack: str) -> np.ndarray | None:
    """Where each sample stands in the population, [N], -1 for those that do not; None where no sample does.

    An audited point is never its own population: comparing it with itself would move its count by a coin of its own.
    """
    if sample_id is None or population_id is None:
        return None
    order = np.argsort(population_id, kind="stable")
    known = np.asarray(population_id)[order]
    if (known[1:] == known[:-1]).any():
        twice = known[1:][known[1:] == known[:-1]][0]
        raise AttackError(f"{attack}: the population holds sample {twice} twice; give every record one row and put its queries into views")
    place = np.minimum(np.searchsorted(known, sample_id), len(known) - 1)
    own = np.where(known[place] == np.asarray(sample_id), order[place], -1)
    if len(known) == 1 and (own >= 0).any():
        raise AttackError(f"{attack}: the population is sample {known[0]} alone, which is audited itself; more records outside are needed")
    return own if (own >= 0).any() else None
