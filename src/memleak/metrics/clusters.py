"""Scores of many targets on many samples, and who depends on whom: two-way clusters.

Scores of one target share a model, scores of one sample share its content, and targets trained on complementary
halves share both. A variance is that between units (pairs of models) plus that between groups (samples of equal
content) less that between their intersections, which both contain (Cameron, Gelbach and Miller 2011, "Robust
Inference With Multiway Clustering"); between few units by a t quantile, and never below that of independent scores.
Intervals speak of models trained like these on samples drawn like these; where there is one unit only they are
conditional on its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import special, stats

from memleak.metrics.intervals import clopper_pearson

AT_LEAST = 30  # false positives from which the dependence of scores is read, where a level has fewer


@dataclass(frozen=True)
class Clusters:
    """Scores that may depend on each other: the cluster of each score [S], and members and non-members of each cluster."""

    code: np.ndarray
    members: np.ndarray
    others: np.ndarray

    @classmethod
    def of(cls, code: np.ndarray, n: int, is_member: np.ndarray) -> Clusters:
        return cls(code, np.bincount(code[is_member], minlength=n), np.bincount(code[~is_member], minlength=n))

    def hits(self, is_hit: np.ndarray) -> np.ndarray:
        """How many of the highest scores, those that `is_hit` [P] names, each cluster has."""
        return np.bincount(self.code[: len(is_hit)][is_hit], minlength=len(self.members))


@dataclass(frozen=True)
class Pool:
    """All scores of all targets from the highest to the lowest, S of them, and the clusters they fall into."""

    scores: np.ndarray
    is_member: np.ndarray
    target: np.ndarray  # row that a score comes from
    units: Clusters
    groups: Clusters
    cells: Clusters  # unit and group at once
    n_units: int
    n_targets: int
    n_samples: int

    @cached_property
    def ends(self) -> np.ndarray:
        """Number of scores down to the end of each block of equal scores: a threshold lies between blocks, never inside."""
        return np.append(np.flatnonzero(self.scores[1:] != self.scores[:-1]) + 1, len(self.scores))

    @cached_property
    def descent(self) -> np.ndarray:
        """The scores with their sign turned, which ascend: where to look for a threshold."""
        return -self.scores

    @cached_property
    def members_above(self) -> np.ndarray:
        """Members down to the end of each block."""
        return np.cumsum(self.is_member)[self.ends - 1]

    @cached_property
    def others_above(self) -> np.ndarray:
        """Non-members down to the end of each block."""
        return self.ends - self.members_above

    @cached_property
    def n_members(self) -> int:
        return int(self.is_member.sum())

    @cached_property
    def n_others(self) -> int:
        return len(self.is_member) - self.n_members

    @cached_property
    def n_distinct_others(self) -> int:
        """Groups that are outside some target's training set: n of "n < 3/f"."""
        return int(np.count_nonzero(self.groups.others))

    @property
    def is_plain(self) -> bool:
        """One target whose samples all differ: nothing is clustered."""
        return self.n_targets == 1 and len(self.groups.members) == self.n_samples

    @property
    def clusterings(self) -> tuple[Clusters, Clusters, Clusters]:
        return self.units, self.groups, self.cells

    def prefix(self, n_false_positives: float) -> int:
        """How many scores "member" is said of when at most so many non-members may be among them."""
        block = int(np.searchsorted(self.others_above, n_false_positives, side="right")) - 1
        return int(self.ends[block]) if block >= 0 else 0


def pool(scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None) -> Pool:
    """The scores [T, N] (NaN: no score) with truth [T, N], unit [T] and group [N], in descending order."""
    s, truth = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.atleast_2d(np.asarray(is_member, dtype=bool))
    if s.shape != truth.shape:
        raise ValueError(f"scores of shape {s.shape} and truth of shape {truth.shape}; [targets, samples] is expected of both")
    n_targets, n_samples = s.shape
    units, groups = _codes(unit, n_targets, "unit", "target"), _codes(group, n_samples, "group", "sample")
    target, sample = np.nonzero(~np.isnan(s))
    flat, member = s[target, sample], truth[target, sample]
    if member.all() or not member.any():
        raise ValueError(f"{int(member.sum())} scores of members and {int((~member).sum())} of non-members; one or more of each are expected")
    order = np.argsort(-flat, kind="stable")
    flat, member, target = flat[order], member[order], target[order]
    of_unit, of_group = units[target], groups[sample[order]]
    n_units, n_groups = int(units.max()) + 1, int(groups.max()) + 1
    by_unit, by_group = Clusters.of(of_unit, n_units, member), Clusters.of(of_group, n_groups, member)
    by_cell = Clusters.of(of_unit * n_groups + of_group, n_units * n_groups, member)
    return Pool(flat, member, target, by_unit, by_group, by_cell, n_units, n_targets, n_samples)


def _codes(names: np.ndarray | None, n: int, name: str, of: str) -> np.ndarray:
    if names is None:
        return np.arange(n)
    if np.shape(names) != (n,):
        raise ValueError(f"{name} has shape {np.shape(names)}; expected one value for each of {n} {of}s")
    return np.unique(np.asarray(names), return_inverse=True)[1]


def half_width(variances: Sequence[float], n_units: int, confidence: float, independent: float = 0.0) -> float:
    """Half the width of an interval whose variance is (between units, between groups, between cells), clusters added up.

    `independent` is the variance if all scores were independent. One unit has no spread: then groups alone count.
    """
    of_units, of_groups, of_cells = variances
    tail = (1 - confidence) / 2
    z, floor = float(special.ndtri(1 - tail)), max(of_groups, independent)
    if n_units < 2:
        return z * np.sqrt(floor)
    t = float(special.stdtrit(n_units - 1, 1 - tail))
    return float(np.sqrt(max(t**2 * of_units + z**2 * max(of_groups - of_cells, 0.0), z**2 * floor)))


def sums(per_cluster: Sequence[np.ndarray]) -> list[float]:
    """The variance of a sum of influences from what each unit, group and cell adds to it (each adds 0 on average)."""
    n = [max(int(np.count_nonzero(x)), 2) for x in per_cluster]
    return [float(np.sum(x**2)) * k / (k - 1) for x, k in zip(per_cluster, n, strict=True)]


def gaps(within: float | None, value: float, n_units: int, confidence: float) -> tuple[float, float]:
    """How far below and above `value` the truth may lie because the levels of few models are a poor guide to those of all.

    Where models differ in level, samples of one unit are easier to tell apart (`within`) than samples of two, by a
    difference that grows with the variance of levels. Of `n_units` normal levels that variance is known to a chi-square
    error, which the spread between units does not show; and 1 in `n_units` of the pairs compared is of one unit.
    """
    if within is None or n_units < 2 or within <= value:
        return 0.0, 0.0
    tail = min(2 * (1 - confidence), 0.5)  # this error adds to others; so much held 95 % of simulated worlds
    far, near = ((within - value) * n_units / float(special.chdtri(n_units - 1, p)) for p in (1 - tail, tail))
    return max(value - (within - far), 0.0), max(within - near - value, 0.0)


def parts_of_units(scores: Pool) -> list[np.ndarray]:
    """Where the scores of each unit that has members and non-members stand, from the highest to the lowest."""
    order = np.argsort(scores.units.code, kind="stable")
    bounds = np.searchsorted(scores.units.code[order], np.arange(scores.n_units + 1))
    return [order[a:b] for a, b in pairwise(bounds) if 0 < scores.is_member[order[a:b]].sum() < b - a]


def design_effects(scores: Pool, prefix: int, confidence: float = 0.95) -> tuple[float, float]:
    """By how much clusters multiply the variance of FPR and TPR at the threshold after `prefix` scores; 1 or more.

    n scores are worth n / effect independent ones, the t quantile for few units included (Korn and Graubard 1998).
    """
    hit = scores.is_member[:prefix]
    others = [(c.hits(~hit), c.others) for c in scores.clusterings]
    members = [(c.hits(hit), c.members) for c in scores.clusterings]
    return effect(others, scores.n_units, confidence), effect(members, scores.n_units, confidence)


def effect(counts: Sequence[tuple[np.ndarray, np.ndarray]], n_units: int, confidence: float) -> float:
    """The design effect of a share, from (hits, all) of each unit, group and cell."""
    n = int(counts[0][1].sum())
    rate = counts[0][0].sum() / n
    alone = rate * (1 - rate) / n
    if alone == 0:
        return 1.0
    half = half_width(sums([(hits - rate * of) / n for hits, of in counts]), n_units, confidence, alone)
    return max(1.0, half**2 / (float(special.ndtri(0.5 + confidence / 2)) ** 2 * alone))


def order_statistic_interval(
    caught: np.ndarray, caught_effect: float, others: np.ndarray, others_effect: float, fpr: float, confidence: float
) -> tuple[float, float]:
    """Interval of the share of `caught` above the threshold whose true FPR is `fpr`, where few of `others` lie above it.

    An order-statistic interval for the threshold and Clopper-Pearson for the share at half the error each, both for
    as many scores as the clustered ones are worth. Both arrays are sorted, ascending.
    """
    tail, n, m = (1 - confidence) / 4, len(others), len(caught)
    worth_n, worth_m = max(int(n / others_effect), 1), max(int(m / caught_effect), 1)
    fewest, most = (int(stats.binom.ppf(p, worth_n, fpr)) for p in (tail, 1 - tail))
    fewest, most = int(np.floor(fewest * n / worth_n)), int(np.ceil(most * n / worth_n))
    strict = others[n - fewest] if fewest > 0 else np.inf
    lenient = others[n - 1 - most] if most < n else -np.inf
    shares = (m - np.searchsorted(caught, strict, side="right")) / m, (m - np.searchsorted(caught, lenient, side="left")) / m
    low, _ = clopper_pearson(shares[0] * worth_m, worth_m, (1 + confidence) / 2)
    _, high = clopper_pearson(shares[1] * worth_m, worth_m, (1 + confidence) / 2)
    return low, high
