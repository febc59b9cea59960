"""Thresholds chosen on other models than those they are judged on, and controls that say whether scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from memleak import randomness
from memleak.metrics import pooled
from memleak.metrics.intervals import clopper_pearson, holm

PRIORS = (0.01, 0.1, 0.5)
ALARM = 0.001  # of the null: one Holm-corrected p over all targets
N_DRAWS = 200  # of each bootstrap: the standard error they estimate is right to 5 %
TOP = 0.01  # the share of samples that are called the most exposed


def threshold(mock_scores_of_non_members: np.ndarray, fpr: float) -> float:
    """The k-th largest score, k = floor(fpr (n + 1)): a fresh non-member lies strictly beyond it with probability <= fpr.

    Infinite where k = 0: so few scores say nothing about such an FPR, and nobody is accused.
    """
    scores = np.asarray(mock_scores_of_non_members, dtype=np.float64).ravel()
    scores = np.sort(scores[~np.isnan(scores)])
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}, expected 0 to 1")
    k = min(int(np.floor(fpr * (len(scores) + 1) + 1e-9)), len(scores))
    return float(scores[len(scores) - k]) if k > 0 else np.inf


def calibrated_rates(
    scores_of_targets: np.ndarray, is_member: np.ndarray, mock_scores: np.ndarray, mock_is_member: np.ndarray, fpr: float,
    unit: np.ndarray | None = None, group: np.ndarray | None = None, *, mock_unit: np.ndarray | None = None,
    priors: Sequence[float] = PRIORS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """FPR, TPR and PPV of targets [T, N] at the threshold that mock targets [K, N], other models, set for `fpr`.

    The intervals resample targets, mocks and samples. `optimistic` is the TPR at a threshold chosen on the targets.
    """
    n_targets, n_mocks = len(scores_of_targets), len(mock_scores)
    names = np.arange(n_targets) if unit is None else np.unique(unit, return_inverse=True)[1]
    mocks = np.arange(n_mocks) if mock_unit is None else np.unique(mock_unit, return_inverse=True)[1]
    of_target = np.arange(n_targets + n_mocks) < n_targets
    scores, truth = np.concatenate([scores_of_targets, mock_scores]), np.concatenate([is_member, mock_is_member])
    units = np.concatenate([names, mocks + names.max() + 1])
    return rates_of_splits(scores, truth, units, group, [(of_target, ~of_target)], fpr, priors, confidence)


def cross_fitted_rates(
    scores: np.ndarray, is_member: np.ndarray, fold: np.ndarray, fpr: float, unit: np.ndarray | None = None,
    group: np.ndarray | None = None, *, priors: Sequence[float] = PRIORS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """As `calibrated_rates`, where the targets [T] of each `fold` [T] have those of all other folds as mocks."""
    folds, units = np.asarray(fold), np.arange(len(scores)) if unit is None else np.asarray(unit)
    if len(np.unique(folds)) < 2:
        raise ValueError("all targets are in one fold; two or more are expected, so that others can set the threshold")
    torn = [name for name in np.unique(units) if len(np.unique(folds[units == name])) > 1]
    if torn:
        raise ValueError(f"unit {torn[0]} is in several folds; the models of a pair belong in one")
    return rates_of_splits(scores, is_member, units, group, [(folds == one, folds != one) for one in np.unique(folds)], fpr, priors, confidence)


def rates_of_decisions(
    says_member: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, *,
    has_score: np.ndarray | None = None, priors: Sequence[float] = PRIORS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """FPR, TPR and PPV of decisions [T, N] that were made at thresholds set on other models.

    Clopper-Pearson for as many decisions as the clustered ones are worth. Where each unit has a threshold of its own,
    the spread between units holds that of thresholds.
    """
    says = np.asarray(says_member, dtype=np.float64)
    decided = pooled.pool(says if has_score is None else np.where(has_score, says, np.nan), is_member, unit, group)
    end = int(np.searchsorted(-decided.scores, -0.5))
    counts = int((~decided.is_member[:end]).sum()), int(decided.is_member[:end].sum())
    totals = decided.n_others, decided.n_members
    values = np.array(counts) / totals

    def intervals(level: float) -> list[tuple[float, float]]:
        effects = pooled.design_effects(decided, end, level)
        return [_clustered(k, n, effect, decided.n_samples, level) for k, n, effect in zip(counts, totals, effects, strict=True)]

    outer, inner = intervals(confidence), intervals((1 + confidence) / 2)
    return {
        "achieved_fpr": {"value": float(values[0]), "low": outer[0][0], "high": outer[0][1]},
        "tpr": {"value": float(values[1]), "low": outer[1][0], "high": outer[1][1]},
        "ppv": [_ppv_interval(values, inner, prior) for prior in priors],
        "n_false_positives": counts[0], "n_scores": totals[0], "n_non_members": decided.n_distinct_others,
    }  # fmt: skip


def _clustered(k: int, n: int, effect: float, n_samples: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson for clustered decisions; a few hits do not show how they cluster, and are worth no more than distinct samples."""
    is_few = min(k, n - k) < pooled.AT_LEAST
    worth = max(int(min(n / effect, n_samples if is_few else n)), 1)
    return clopper_pearson(k / n * worth, worth, confidence)


@dataclass(frozen=True)
class _Split:
    """Targets and the mocks that set their threshold; scores by their place in the pool of all, the highest first."""

    cut: float
    mock_units: np.ndarray  # [U] bool
    targets: np.ndarray  # scores of targets
    mocks: np.ndarray  # scores of the mocks' non-members

    @classmethod
    def of(cls, everyone: pooled.Pool, is_target: np.ndarray, is_mock: np.ndarray, fpr: float) -> _Split:
        targets = np.flatnonzero(is_target[everyone.target])
        mocks = np.flatnonzero(is_mock[everyone.target] & ~everyone.is_member)
        mock_units = np.bincount(everyone.units.code[mocks], minlength=everyone.n_units) > 0
        return cls(threshold(everyone.scores[mocks], fpr), mock_units, targets, mocks)


@dataclass(frozen=True)
class _Splits:
    """All splits of an audit, and how many scores of each kind a unit has of a group, [U, G]."""

    everyone: pooled.Pool
    splits: list[_Split]
    mock_others: np.ndarray
    target_others: np.ndarray
    target_members: np.ndarray
    fpr: float

    @classmethod
    def of(cls, everyone: pooled.Pool, rows: list[tuple[np.ndarray, np.ndarray]], fpr: float) -> _Splits:
        of_targets, of_mocks = (np.any(masks, axis=0)[everyone.target] for masks in zip(*rows, strict=True))
        kinds = of_mocks & ~everyone.is_member, of_targets & ~everyone.is_member, of_targets & everyone.is_member
        n = len(everyone.cells.members)
        mock_others, others, members = (
            np.bincount(everyone.cells.code[kind], minlength=n).astype(np.int32).reshape(everyone.n_units, -1) for kind in kinds
        )
        splits = [_Split.of(everyone, targets, mocks, fpr) for targets, mocks in rows]
        if any(len(one.mocks) != mock_others[one.mock_units].sum() for one in splits):
            raise ValueError("some mocks of a unit set a threshold and others do not; the models of a pair are expected to stay together")
        return cls(everyone, splits, mock_others, others, members, fpr)

    def hits(self, cuts: Sequence[float], weight: np.ndarray | None = None) -> np.ndarray:
        """False and true positives of all targets beyond the `cuts` of their splits, scores counted by `weight` [S]."""
        found = np.zeros(2)
        for split, cut in zip(self.splits, cuts, strict=True):
            beyond = split.targets[: np.searchsorted(split.targets, np.searchsorted(self.everyone.descent, -cut, side="left"))]
            member, w = self.everyone.is_member[beyond], np.ones(len(beyond)) if weight is None else weight[beyond]
            found += w[~member].sum(), w[member].sum()
        return found

    def draws(self, which: int) -> np.ndarray:
        """FPR and TPR when units (0), groups (1) or cells (2) of targets and mocks are resampled, [draws, 2]."""
        clusters = self.everyone.clusterings[which]
        draw, n = randomness.generator(0, "calibration bootstrap", which), len(clusters.members)
        found = np.full((N_DRAWS, 2), np.nan)
        for i in range(N_DRAWS):
            per_cluster = pooled.draw_weights(draw, n, which)
            weight = per_cluster[clusters.code]
            mocks, others, members = (_of_units(counts, per_cluster, which) for counts in (self.mock_others, self.target_others, self.target_members))
            cuts = [self.weighted_cut(split, weight, int(mocks[split.mock_units].sum())) for split in self.splits]
            if others.sum() and members.sum():
                found[i] = self.hits(cuts, weight) / (others.sum(), members.sum())
        return found

    def weighted_cut(self, split: _Split, weight: np.ndarray, n: int) -> float:
        """The threshold that n non-members of the mocks set, each counted by its weight."""
        k = int(np.floor(self.fpr * (n + 1) + 1e-9))
        if k == 0:
            return np.inf
        for looked_at in (split.mocks[: 3 * k + 100], split.mocks):  # the highest suffice but for rare draws
            beyond = np.cumsum(weight[looked_at])
            if len(beyond) and beyond[-1] >= k:
                return float(self.everyone.scores[looked_at[np.searchsorted(beyond, k)]])
        return float(self.everyone.scores[split.mocks[-1]])


def _of_units(counts: np.ndarray, per_cluster: np.ndarray, which: int) -> np.ndarray:
    """The weight that the scores counted in [U, G] have in each unit."""
    if which == 0:
        return counts.sum(axis=1) * per_cluster
    return np.asarray(counts @ per_cluster if which == 1 else np.einsum("ug,ug->u", counts, per_cluster.reshape(counts.shape)))


def rates_of_splits(
    scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray, group: np.ndarray | None, splits: list[tuple[np.ndarray, np.ndarray]],
    fpr: float, priors: Sequence[float] = PRIORS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """As `calibrated_rates` for models [M, N], where each split names its targets and the mocks that set their threshold, [M] bool each."""
    s, truth = np.asarray(scores, dtype=np.float64), np.asarray(is_member, dtype=bool)
    unused = ~np.any([targets | mocks for targets, mocks in splits], axis=0)
    found = _Splits.of(pooled.pool(np.where(unused[:, None], np.nan, s), truth, unit, group), splits, fpr)
    cuts = [split.cut for split in found.splits]
    counts, totals = found.hits(cuts), np.array([found.target_others.sum(), found.target_members.sum()])
    values = counts / totals
    is_target = np.any([targets for targets, _ in splits], axis=0)
    targets = pooled.pool(np.where(is_target[:, None], s, np.nan), truth, unit, group)
    end = targets.prefix(np.floor(fpr * targets.n_others + 1e-9))
    caught = int(targets.is_member[:end].sum())
    outer, inner = _intervals(found, targets, cuts, values, [confidence, (1 + confidence) / 2])
    return {
        "at_fpr": fpr,
        "achieved_fpr": {"value": float(values[0]), "low": outer[0][0], "high": outer[0][1]},
        "tpr": {"value": float(values[1]), "low": outer[1][0], "high": outer[1][1]},
        "ppv": [_ppv_interval(values, inner, prior) for prior in priors],
        "optimistic": {"tpr": caught / targets.n_members, "achieved_fpr": (end - caught) / targets.n_others},
        "n_false_positives": int(counts[0]), "n_scores": int(totals[0]), "n_non_members": targets.n_distinct_others,
        "thresholds": [cut if np.isfinite(cut) else None for cut in cuts],
    }  # fmt: skip


def _intervals(
    found: _Splits, targets: pooled.Pool, cuts: list[float], values: np.ndarray, levels: Sequence[float]
) -> list[list[tuple[float, float]]]:
    """Intervals of FPR and TPR at each confidence of `levels`: order statistics where few scores decide, else the bootstrap."""
    narrowest = min(found.splits, key=lambda split: len(split.mocks))
    n_units = min((int(n) for split in found.splits for n in (split.mock_units.sum(),) if n > 1), default=1)
    n_units = min(n_units, max(int((found.target_members.sum(axis=1) > 0).sum()), 2)) if n_units > 1 else n_units
    effects = [_effects(found, narrowest, targets, values, confidence) for confidence in levels]
    if _is_few(found, narrowest, targets, values, effects[0]):
        others = found.everyone.scores[narrowest.mocks][::-1]
        judged = [np.sort(targets.scores[targets.is_member == truth]) for truth in (False, True)]
        return [
            [
                _holding(value, pooled.order_statistic_interval(x, effect, others, of_mocks, found.fpr, confidence))
                for x, effect, value in zip(judged, of_targets, values, strict=True)
            ]
            for confidence, (of_mocks, *of_targets) in zip(levels, effects, strict=True)
        ]
    spread = np.array([np.nanvar(np.arcsin(np.sqrt(found.draws(which))), axis=0) for which in range(3)])  # [3, 2]
    spread[0] *= n_units / max(n_units - 1, 1)
    centre, result = np.arcsin(np.sqrt(values)), []
    for confidence in levels:
        half = np.array([pooled.half_width(list(one), n_units, confidence, one[2]) for one in spread.T])
        low, high = (np.sin(np.clip(x, 0, np.pi / 2)) ** 2 for x in (centre - half, centre + half))
        result.append([_holding(value, (a, b)) for value, a, b in zip(values, low, high, strict=True)])
    return result


def _holding(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    return float(min(interval[0], value)), float(max(interval[1], value))


def _effects(found: _Splits, split: _Split, targets: pooled.Pool, values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Design effects of the threshold (non-members of the split's mocks), of the FPR and of the TPR of all targets."""
    n_mocks = len(split.mocks)
    of_mocks = 1.0
    for k in (found.fpr * (n_mocks + 1), pooled.AT_LEAST):
        beyond = split.mocks[: max(int(k), 1)]
        counts = [
            (np.bincount(c.code[beyond], minlength=len(c.members)), np.bincount(c.code[split.mocks], minlength=len(c.members)))
            for c in found.everyone.clusterings
        ]
        of_mocks = max(of_mocks, pooled.effect(counts, int(split.mock_units.sum()), confidence))
    n_false = int(values[0] * targets.n_others)
    ends = targets.prefix(n_false), targets.prefix(max(n_false, min(pooled.AT_LEAST, targets.n_others // 2)))
    of_others, of_members = np.max([pooled.design_effects(targets, end, confidence) for end in ends], axis=0)
    return of_mocks, float(of_others), float(of_members)


def _is_few(found: _Splits, split: _Split, targets: pooled.Pool, values: np.ndarray, effects: tuple[float, float, float]) -> bool:
    """Are mocks beyond the threshold, or targets beyond or short of it, worth too little for the bootstrap?"""
    n = np.array([targets.n_others, targets.n_members])
    worth = np.minimum(values, 1 - values) * n / effects[1:]
    return bool(min(found.fpr * (len(split.mocks) + 1) / effects[0], *worth) < pooled.FEW)


def ppv(tpr: float, fpr: float, prior: float) -> float | None:
    """The share of accused that are members where a share `prior` of all is; None where nobody is accused."""
    accused = prior * tpr + (1 - prior) * fpr
    return prior * tpr / accused if accused > 0 else None


def _ppv_interval(values: np.ndarray, intervals: list[tuple[float, float]], prior: float) -> dict[str, float | None]:
    """PPV from FPR and TPR; its interval from theirs at half the error each."""
    (fpr_low, fpr_high), (tpr_low, tpr_high) = intervals
    low, high = ppv(tpr_low, fpr_high, prior), ppv(tpr_high, fpr_low, prior)
    return {"prior": prior, "value": ppv(values[1], values[0], prior), "low": low or 0.0, "high": 1.0 if high is None else high}


def null(
    scores_by_target: np.ndarray, membership_of_independent_unit: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None
) -> dict[str, Any]:
    """Do scores [T, N] of a target know the membership [T, N] of a model that has nothing to do with it? AUC must be 0.5.

    That membership was drawn at random group by group, which alone is assumed: the sum of ranks over its members has a
    known mean and variance whatever the scores, ties included (Mann-Whitney; sampling groups without replacement).
    Two-sided p of each target, then the least after Holm over targets, whatever their dependence; alarm at .001.
    """
    scores = np.atleast_2d(np.asarray(scores_by_target, dtype=np.float64))
    truth = np.atleast_2d(np.asarray(membership_of_independent_unit, dtype=bool))
    if scores.shape != truth.shape:
        raise ValueError(f"scores of shape {scores.shape} and membership of shape {truth.shape}; [targets, samples] is expected of both")
    groups = np.arange(scores.shape[1]) if group is None else np.unique(group, return_inverse=True)[1]
    found = [_null_of(s, row, groups) for s, row in zip(scores, truth, strict=True)]
    corrected = holm([one["p"] for one in found])
    units = np.arange(len(scores)) if unit is None else np.asarray(unit)
    targets = [one | {"p_holm": float(p), "unit": int(name)} for one, p, name in zip(found, corrected, units, strict=True)]
    p = float(corrected.min())
    return {"p": p, "alarm": p < ALARM, "auc": float(np.mean([one["auc"] for one in found])), "targets": targets}


def _null_of(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    there = ~np.isnan(scores)
    s, member, code = scores[there], truth[there], np.unique(groups[there], return_inverse=True)[1]
    n, n_members = len(s), int(member.sum())
    if n_members in (0, n):
        raise ValueError(f"{n_members} of {n} scored samples are members of the independent model; one or more of each are expected")
    rank = stats.rankdata(s) - (n + 1) / 2
    of_group, is_in = np.bincount(code, rank), np.bincount(code, member) > 0
    if (np.bincount(code, member) % np.bincount(code) != 0).any():
        raise ValueError("samples of one group differ in membership; they are expected to be drawn together")
    k, m = len(of_group), int(is_in.sum())
    variance = m * (k - m) / (k * (k - 1)) * float(np.sum(of_group**2))
    total = float(rank[member].sum())
    z = total / np.sqrt(variance) if variance > 0 else 0.0
    auc = 0.5 + total / (n_members * (n - n_members))
    return {"auc": auc, "z": float(z), "p": float(2 * special.ndtr(-abs(z)))}


def agreement(scores_a: np.ndarray, scores_b: np.ndarray, unit: np.ndarray | None = None, confidence: float = 0.95) -> dict[str, Any]:
    """Spearman's rank correlation and Jaccard's index of the highest 1 % of two attacks' scores [T, N], means over targets.

    The interval is over units (t); with one unit there is none. Samples tied with the last of the 1 % belong to it.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (scores_a, scores_b))
    if a.shape != b.shape:
        raise ValueError(f"scores of shapes {a.shape} and {b.shape}; the same targets and samples are expected")
    both = np.array([_agreement_of(*(x[~np.isnan(p) & ~np.isnan(q)] for x in (p, q))) for p, q in zip(a, b, strict=True)])
    code = np.arange(len(a)) if unit is None else np.unique(unit, return_inverse=True)[1]
    sizes = np.bincount(code)
    by_unit = np.stack([np.bincount(code, column) / sizes for column in both.T])
    return {name: _mean(values, bounds, confidence) for name, values, bounds in zip(("spearman", "jaccard"), by_unit, ((-1, 1), (0, 1)), strict=True)}


def _agreement_of(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    ranks = stats.rankdata(a) - (len(a) + 1) / 2, stats.rankdata(b) - (len(b) + 1) / 2
    norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    top = int(np.ceil(TOP * len(a)))
    highest = a >= np.sort(a)[-top], b >= np.sort(b)[-top]
    return float(ranks[0] @ ranks[1] / norm) if norm > 0 else 0.0, float((highest[0] & highest[1]).sum() / (highest[0] | highest[1]).sum())


def _mean(values: np.ndarray, bounds: tuple[float, float], confidence: float) -> dict[str, float | None]:
    n, value = len(values), float(np.mean(values))
    if n < 2:
        return {"value": value, "low": None, "high": None}
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return {"value": value, "low": max(value - half, bounds[0]), "high": min(value + half, bounds[1])}
