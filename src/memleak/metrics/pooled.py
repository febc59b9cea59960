"""Figures over all targets of an audit in which every model is the target in turn, with intervals that know who depends on whom.

Scores of one target share a model, scores of one sample share its content, and targets trained on complementary
halves share both: two-way clusters. A variance is that between units (pairs of models) plus that between groups
(samples of equal content) less that between their intersections, which both contain (Cameron, Gelbach and Miller
2011, "Robust Inference With Multiway Clustering"); between few units by a t quantile, and never below that of
independent scores. Intervals speak of models trained like these on samples drawn like these; where there is one
unit only they are conditional on its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from memleak import randomness
from memleak.metrics import roc
from memleak.metrics.intervals import clopper_pearson

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)
N_DRAWS = (60, 500)  # of each bootstrap: fewest, most; the standard error they estimate is right to 9 %, 3 %
BUDGET = 300_000_000  # scores looked at by the bootstraps together, where that leaves the fewest draws
FEW = 10  # with fewer false positives, or members caught or missed, than these are worth the bootstrap does not cover
AT_LEAST = 30  # false positives from which the dependence of scores is read, where a level has fewer
N_POINTS = 60  # of a curve, evenly on a log scale; some evenly on a linear one come on top


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


def placements(scores: Pool) -> np.ndarray:
    """Of each score [S], the share of the other kind that it beats (member) or is beaten by (non-member), half of the ties."""
    members, others = np.diff(scores.members_above, prepend=0), np.diff(scores.others_above, prepend=0)
    beats = 1 - (np.cumsum(others) - 0.5 * others) / scores.n_others
    beaten = (np.cumsum(members) - 0.5 * members) / scores.n_members
    sizes = np.diff(scores.ends, prepend=0)
    return np.where(scores.is_member, np.repeat(beats, sizes), np.repeat(beaten, sizes))


def auc_influence(scores: Pool) -> tuple[float, np.ndarray]:
    """The AUC, and what each score [S] adds to its error (DeLong et al. 1988; clusters added up as Obuchowski 1997)."""
    share = placements(scores)
    value = float(share[scores.is_member].mean())
    return value, (share - value) / np.where(scores.is_member, scores.n_members, scores.n_others)


def auc(scores: Pool, confidence: float = 0.95) -> dict[str, float]:
    """The AUC with its interval, symmetric on the logit scale."""
    value, influence = auc_influence(scores)
    n = min(scores.n_members, scores.n_others)
    low, high = roc.auc_interval(value, scores.n_members, scores.n_others, confidence)
    variances = sums([np.bincount(c.code, influence, minlength=len(c.members)) for c in scores.clusterings])
    half = half_width(variances, scores.n_units, confidence, float(np.sum(influence**2)))
    if half > 0:
        down, up = np.maximum(half, gaps(_within(scores), value, scores.n_units, confidence)) / (value * (1 - value))
        centre = special.logit(value)
        low, high = min(low, float(special.expit(centre - down))), max(high, float(special.expit(centre + up)))
    if min(value, 1 - value) * n < FEW:  # so few pairs are in the wrong order that their spread shows nothing
        few = min(n, scores.n_samples)
        wide = roc.auc_interval(value, few, few, confidence)
        low, high = min(low, wide[0]), max(high, wide[1])
    return {"value": value, "low": low, "high": high}


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


def _within(scores: Pool) -> float | None:
    """The AUC among scores of one unit, mean over units."""
    if scores.n_units < 2:
        return None
    found = [roc.auc(scores.scores[part], scores.is_member[part]) for part in parts_of_units(scores)]
    return float(np.mean(found)) if found else None


def draw_weights(draw: np.random.Generator, n: int, which: int) -> np.ndarray:
    """How often each of n clusters counts: units and groups are drawn with replacement; cells, being many, count twice or not at all."""
    if which == 2:
        return 2 * np.unpackbits(np.frombuffer(draw.bytes(-(-n // 8)), np.uint8), count=n).astype(np.int32)
    return np.bincount(draw.integers(0, n, n), minlength=n).astype(np.int32)


def resampled_tpr(pools: Sequence[Pool], which: int, levels: np.ndarray, n_draws: int) -> np.ndarray:
    """TPR at each FPR of `levels` when units (which = 0), groups (1) or cells (2) are resampled, [draws, pools, L].

    All pools (scores of several attacks for the same targets and samples) get the same draws.
    """
    draw = randomness.generator(0, "pooled bootstrap", which)
    n = len(pools[0].clusterings[which].members)
    tops = [one.prefix(min(2 * float(levels.max()) * one.n_others, one.n_others)) for one in pools]
    tpr = np.empty((n_draws, len(pools), len(levels)))
    for i in range(n_draws):
        weights = draw_weights(draw, n, which)
        for j, one in enumerate(pools):
            tpr[i, j] = _weighted_tpr(one, one.clusterings[which], weights, levels, tops[j])
    return tpr


def _weighted_tpr(scores: Pool, clusters: Clusters, weights: np.ndarray, levels: np.ndarray, top: int) -> np.ndarray:
    """TPR at each FPR when every score counts as often as its cluster; only the `top` highest scores are looked at if they suffice."""
    n_members, n_others = int(clusters.members @ weights), int(clusters.others @ weights)
    if n_members == 0 or n_others == 0:
        return np.full(len(levels), np.nan)
    allowed = np.floor(levels * n_others + 1e-9)
    weight, ends = weights[clusters.code[:top]], scores.ends[: np.searchsorted(scores.ends, top, side="right")]
    members = np.cumsum(weight * scores.is_member[:top])
    others = np.cumsum(weight) - members
    if top < len(scores.scores) and (top == 0 or others[-1] <= allowed.max()):
        return _weighted_tpr(scores, clusters, weights, levels, len(scores.scores))
    blocks = np.searchsorted(others[ends - 1], allowed, side="right")
    return np.append(0, members[ends - 1])[blocks] / n_members


def n_draws_for(pools: Sequence[Pool], levels: np.ndarray) -> int:
    looked_at = sum(one.prefix(min(2 * float(levels.max()) * one.n_others, one.n_others)) for one in pools)
    return int(np.clip(BUDGET // (3 * max(looked_at, 1)), *N_DRAWS))


def _bootstrap_intervals(scores: Pool, levels: np.ndarray, values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the TPR at each level, on the scale of arcsin sqrt, where the spread of a share hardly depends on it."""
    n_draws, centre = n_draws_for([scores], levels), np.arcsin(np.sqrt(values))
    spread = []
    for which in range(3):
        drawn = resampled_tpr([scores], which, levels, n_draws if which != 0 or scores.n_units > 1 else 1)[:, 0]
        spread.append(np.nanvar(np.arcsin(np.sqrt(drawn)), axis=0))
    spread[0] *= scores.n_units / max(scores.n_units - 1, 1)
    half = np.array([half_width(variances, scores.n_units, confidence, variances[2]) for variances in zip(*spread, strict=True)])
    inside = _within_tpr(scores, levels) if scores.n_units > 1 else [None] * len(levels)
    beyond = np.array([gaps(a, b, scores.n_units, confidence) for a, b in zip(inside, centre, strict=True)])
    low, high = centre - np.maximum(half, beyond[:, 0]), centre + np.maximum(half, beyond[:, 1])
    return np.sin(np.clip(low, 0, np.pi / 2)) ** 2, np.sin(np.clip(high, 0, np.pi / 2)) ** 2


def _within_tpr(scores: Pool, levels: np.ndarray) -> list[float | None]:
    """arcsin sqrt of the TPR at each FPR of `levels` among scores of one unit, mean over units."""
    found = []
    for part in parts_of_units(scores):
        fpr, tpr, _ = roc.curve(scores.scores[part], scores.is_member[part])
        found.append(np.arcsin(np.sqrt(tpr[np.searchsorted(fpr, levels + 1e-12, side="right") - 1])))
    return list(np.mean(found, axis=0)) if found else [None] * len(levels)


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


def rates(scores: Pool, levels: Sequence[float] | np.ndarray, confidence: float = 0.95) -> list[dict[str, Any]]:
    """The best TPR of the pool at each FPR, with an interval for the TPR at the threshold whose true FPR it is.

    The interval resamples clusters; where clustered false positives (or members caught, or missed) are worth fewer
    than ten, order statistics. `certified` is false where distinct non-members number less than 3 / FPR.
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"FPRs are {wanted.tolist()}, expected 0 to 1 of each")
    n, m = scores.n_others, scores.n_members
    prefixes = [scores.prefix(np.floor(f * n + 1e-9)) for f in wanted]
    caught = [int(scores.is_member[:end].sum()) for end in prefixes]
    few = [_is_few(scores, int(np.floor(f * n + 1e-9)), k, confidence) for f, k in zip(wanted, caught, strict=True)]
    low, high = np.full(len(wanted), np.nan), np.full(len(wanted), np.nan)
    enough = np.array([effects is None for effects in few])
    if enough.any():
        low[enough], high[enough] = _bootstrap_intervals(scores, wanted[enough], np.array(caught)[enough] / m, confidence)
    others, members = scores.scores[~scores.is_member][::-1], scores.scores[scores.is_member][::-1]
    result = []
    for i, f in enumerate(wanted):
        effects = few[i]
        if effects is not None:
            low[i], high[i] = order_statistic_interval(members, effects[1], others, effects[0], f, confidence)
        if scores.n_targets == 1:
            alone = roc.tpr_at_fpr(scores.scores, scores.is_member, float(f), confidence)
            low[i], high[i] = (alone.low, alone.high) if scores.is_plain else (min(low[i], alone.low), max(high[i], alone.high))
        n_false = prefixes[i] - caught[i]
        result.append({
            "at_fpr": float(f), "value": caught[i] / m, "low": float(min(low[i], caught[i] / m)) if f < 1 else 1.0, "high": float(max(high[i], caught[i] / m)),
            "achieved_fpr": n_false / n, "n_false_positives": n_false, "n_non_members": scores.n_distinct_others, "n_scores": n,
            "certified": bool(f > 0 and scores.n_distinct_others * f >= 3 - 1e-9),
        })  # fmt: skip
    return result


def _is_few(scores: Pool, allowed: int, caught: int, confidence: float) -> tuple[float, float] | None:
    """The design effects, where what the scores at a level are worth is too little for the bootstrap; else None."""
    n, m = scores.n_others, scores.n_members
    here = design_effects(scores, scores.prefix(allowed), confidence)
    further = design_effects(scores, scores.prefix(max(allowed, min(AT_LEAST, n // 2))), confidence)
    of_others, of_members = (max(a, b) for a, b in zip(here, further, strict=True))
    is_few = min(min(allowed, n - allowed) / of_others, min(caught, m - caught) / of_members) < FEW
    return (of_others, of_members) if is_few else None


def best_threshold(scores: Pool, confidence: float = 0.95) -> tuple[dict[str, Any], dict[str, Any]]:
    """Balanced accuracy and advantage (TPR - FPR) at the threshold that is best for these very scores: optimistic.

    The interval is for the largest advantage of any threshold in the world the scores are drawn from. Upwards the
    threshold counts as given; downwards the choice costs what `excess` says, since it profits from noise: without a
    leak the interval reaches chance.
    """
    n, m = scores.n_others, scores.n_members
    gains = scores.members_above / m - scores.others_above / n
    best = int(np.argmax(gains))
    end = int(scores.ends[best]) if gains[best] > 0 else 0
    hit = scores.is_member[:end]
    tpr, fpr = float(hit.sum()) / m, float((~hit).sum()) / n
    added = [(c.hits(hit) - tpr * c.members) / m - (c.hits(~hit) - fpr * c.others) / n for c in scores.clusterings]
    alone = tpr * (1 - tpr) / m + fpr * (1 - fpr) / n
    half = half_width(sums(added), scores.n_units, confidence, alone)
    design_effect = half**2 / (float(special.ndtri(0.5 + confidence / 2)) ** 2 * alone) if alone > 0 else 1.0
    half = max(half, 3 / min(scores.n_samples, n, m)) if half == 0 else half  # none of n: the rule of three
    down = max(half, excess(scores, gains, design_effect, confidence), gaps(_within_gain(scores), tpr - fpr, scores.n_units, confidence)[0])
    low, value, high = (float(np.clip(x, -1, 1)) for x in (tpr - fpr - down, tpr - fpr, tpr - fpr + half))
    advantage = {"value": value, "low": low, "high": high, "is_optimistic": True}
    return {key: (1 + x) / 2 if key != "is_optimistic" else x for key, x in advantage.items()}, advantage


def excess(scores: Pool, gains: np.ndarray, design_effect: float, confidence: float) -> float:
    """How far above the truth the largest of `gains` (TPR - FPR after each block of equal scores) may lie.

    On noise the gains are a Brownian bridge, whose maximum exceeds x of its largest standard deviations with
    probability exp(-x^2 / 2) (Smirnov 1939: 1.358 sqrt(1/m + 1/n) at 2.5 %). With a leak only thresholds nearly as good
    as the best can be the best in truth, and where few members are missed the gains of these spread less. Of few
    thresholds a normal quantile with Bonferroni's correction is smaller.
    """
    n, m, tail = scores.n_others, scores.n_members, (1 - confidence) / 2
    of_bridge = float(np.sqrt(-2 * np.log(tail)))
    of_few = float(special.ndtri(1 - tail / max(len(gains) - 1, 1)))
    tpr, fpr = scores.members_above / m, scores.others_above / n
    variance = design_effect * (tpr * (1 - tpr) / m + fpr * (1 - fpr) / n)
    near = gains >= gains.max() - of_bridge * np.sqrt(design_effect * (1 / m + 1 / n))  # twice Smirnov's bound
    return min(of_bridge, of_few) * float(np.sqrt(variance[near].max()))


def _within_gain(scores: Pool) -> float | None:
    """The largest advantage among scores of one unit, mean over units; profits from noise, so `gaps` errs to the safe side."""
    if scores.n_units < 2:
        return None
    curves = [roc.curve(scores.scores[part], scores.is_member[part]) for part in parts_of_units(scores)]
    return float(np.mean([np.max(tpr - fpr) for fpr, tpr, _ in curves])) if curves else None


def measure(
    scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    levels: Sequence[float] = LEVELS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """AUC, TPR at each FPR of `levels`, balanced accuracy and advantage of scores [T, N], each with its interval."""
    everything = pool(scores, is_member, unit, group)
    balanced_accuracy, advantage = best_threshold(everything, confidence)
    return {
        "auc": auc(everything, confidence),
        "rates": rates(everything, levels, confidence),
        "balanced_accuracy": balanced_accuracy,
        "advantage": advantage,
        "n_targets": everything.n_targets,
        "n_units": everything.n_units,
        "n_samples": everything.n_samples,
    }


def per_target(scores: np.ndarray, is_member: np.ndarray, fpr: float = 0.01, confidence: float = 0.95) -> dict[str, Any]:
    """AUC and TPR of each target [T], conditional on that model, and how far apart targets lie."""
    found = []
    for s, truth in zip(np.asarray(scores, dtype=np.float64), np.asarray(is_member, dtype=bool), strict=True):
        there = ~np.isnan(s)
        found.append({
            "auc": roc.auc_with_interval(s[there], truth[there], confidence).as_dict(),
            "tpr": roc.tpr_at_fpr(s[there], truth[there], fpr, confidence).as_dict(),
        })  # fmt: skip
    return {"targets": found, "spread": {key: _spread([one[key]["value"] for one in found]) for key in ("auc", "tpr")}}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(np.mean(values)),
        "std": deviation,
        "lowest": float(min(values)),
        "median": float(np.median(values)),
        "highest": float(max(values)),
    }


def curve_band(
    scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Points of the pooled ROC at FPRs that are even on a log scale, with their band: fpr, tpr, low, high, certified."""
    everything = pool(scores, is_member, unit, group)
    points = pd.DataFrame(rates(everything, _curve_levels(everything), confidence))
    # the TPR rises with the FPR, so the band may: it is widened, never narrowed, to do so
    points["low"], points["high"] = points["low"][::-1].cummin()[::-1], points["high"].cummax()
    return points.rename(columns={"value": "tpr", "at_fpr": "fpr"})[["fpr", "tpr", "low", "high", "certified"]]


def curve_points(scores: np.ndarray, is_member: np.ndarray) -> pd.DataFrame:
    """The points of `curve_band` without a band: fpr, tpr, certified."""
    everything = pool(scores, is_member)
    levels = _curve_levels(everything)
    ends = [everything.prefix(np.floor(level * everything.n_others + 1e-9)) for level in levels]
    tpr = np.append(0, np.cumsum(everything.is_member))[ends] / everything.n_members
    return pd.DataFrame({"fpr": levels, "tpr": tpr, "certified": everything.n_distinct_others * levels >= 3 - 1e-9})


def _curve_levels(scores: Pool) -> np.ndarray:
    """FPRs that are even on a log scale, and some that are even on a linear one."""
    return np.unique(np.concatenate([np.geomspace(1 / scores.n_others, 1, N_POINTS)[:-1], np.linspace(0.05, 1.0, 20)]))


def per_class(
    scores: np.ndarray, is_member: np.ndarray, labels: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> list[dict[str, Any]]:  # fmt: skip
    """AUC and TPR within each class of `labels` [N], with intervals; None where a class lacks members or non-members."""
    s, truth = np.atleast_2d(scores), np.atleast_2d(is_member)
    if np.shape(labels) != s.shape[1:]:
        raise ValueError(f"labels have shape {np.shape(labels)}; expected one for each of {s.shape[1]} samples")
    found = []
    for label in np.unique(labels):
        here = np.asarray(labels) == label
        one: dict[str, Any] = {"class": int(label), "n_samples": int(here.sum()), "auc": None, "tpr": None}
        scored = truth[:, here][~np.isnan(s[:, here])]
        if scored.any() and not scored.all():
            of_class = pool(s[:, here], truth[:, here], unit, None if group is None else np.asarray(group)[here])
            one |= {"auc": auc(of_class, confidence), "tpr": rates(of_class, [fpr], confidence)[0]}
        found.append(one)
    return found
