"""Thresholds chosen on other models than those they are judged on, and controls that say whether scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from memleak.attacks.fits import allowed_beyond
from memleak.metrics import clusters, roc
from memleak.metrics.intervals import clopper_pearson, holm

PRIORS = (0.01, 0.1, 0.5)
ALARM = 0.001  # of the null: one Holm-corrected p over all targets
TOP = 0.01  # the share of samples that are called the most exposed


def threshold(mock_scores_of_non_members: np.ndarray, fpr: float) -> float:
    """The k-th largest score, k = floor(fpr (n + 1)): a fresh non-member lies strictly beyond it with probability <= fpr.

    Infinite where k = 0: so few scores say nothing about such an FPR, and nobody is accused.
    """
    scores = np.asarray(mock_scores_of_non_members, dtype=np.float64).ravel()
    scores = np.sort(scores[~np.isnan(scores)])
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}, expected 0 to 1")
    k = min(allowed_beyond(fpr, len(scores)), len(scores))
    return float(scores[len(scores) - k]) if k > 0 else np.inf


def rates_of_decisions(
    says_member: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, *,
    has_score: np.ndarray | None = None, priors: Sequence[float] = PRIORS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """FPR, TPR and PPV of decisions [T, N] that were made at thresholds set on other models.

    Clopper-Pearson for as many decisions as the clustered ones are worth. Where each unit has a threshold of its own,
    the spread between units holds that of thresholds.
    """
    says = np.asarray(says_member, dtype=np.float64)
    decided = clusters.pool(says if has_score is None else np.where(has_score, says, np.nan), is_member, unit, group)
    end = int(np.searchsorted(-decided.scores, -0.5))
    counts = int((~decided.is_member[:end]).sum()), int(decided.is_member[:end].sum())
    totals = decided.n_others, decided.n_members
    distinct = tuple(min(decided.n_samples, int(np.count_nonzero(of_groups))) for of_groups in (decided.groups.others, decided.groups.members))
    values = np.array(counts) / totals

    def intervals(level: float) -> list[tuple[float, float]]:
        effects = clusters.design_effects(decided, end, level)
        return [_clustered(k, n, effect, n_distinct, level) for k, n, effect, n_distinct in zip(counts, totals, effects, distinct, strict=True)]

    outer, inner = intervals(confidence), intervals((1 + confidence) / 2)
    return {
        "achieved_fpr": {"value": float(values[0]), "low": outer[0][0], "high": outer[0][1]},
        "tpr": {"value": float(values[1]), "low": outer[1][0], "high": outer[1][1]},
        "ppv": [_ppv_interval(values, inner, prior) for prior in priors],
        "n_false_positives": counts[0], "n_scores": totals[0], "n_non_members": decided.n_distinct_others,
    }  # fmt: skip


def rates_at_thresholds(
    scores: np.ndarray, cuts: np.ndarray, is_member: np.ndarray, fpr: float, unit: np.ndarray | None = None, group: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Rates of scores [T, N] strictly beyond thresholds [T], or [T, N], that other models or samples set for `fpr`; in-sample figures beside them.

    The interval of the TPR is for the threshold whose true FPR is `fpr`: what is unsure about the FPR of the thresholds,
    which targets may share, moves the TPR by as much as the ROC is steep there.
    """
    there = ~np.isnan(scores)
    found = rates_of_decisions(scores > cuts.reshape(len(cuts), -1), is_member, unit, group, has_score=there)
    flat, truth = scores[there], np.asarray(is_member)[there]
    chosen = roc.tpr_at_fpr(flat, truth, fpr)
    few, many = (roc.tpr_at_fpr(flat, truth, level).value for level in (fpr / 2, min(2 * fpr, 1.0)))
    steepness = (many - few) / (min(2 * fpr, 1.0) - fpr / 2)
    tpr, achieved = found["tpr"], found["achieved_fpr"]
    down, up = steepness * (achieved["value"] - achieved["low"]), steepness * (achieved["high"] - achieved["value"])
    tpr["low"] = max(0.0, tpr["value"] - float(np.hypot(tpr["value"] - tpr["low"], down)))
    tpr["high"] = min(1.0, tpr["value"] + float(np.hypot(tpr["high"] - tpr["value"], up)))
    return {"at_fpr": fpr, **found, "optimistic": {"tpr": chosen.value, "achieved_fpr": chosen.achieved_fpr}}


def _clustered(k: int, n: int, effect: float, n_samples: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson for clustered decisions; a few hits do not show how they cluster, and are worth no more than distinct samples."""
    is_few = min(k, n - k) < clusters.AT_LEAST
    worth = max(int(min(n / effect, n_samples if is_few else n)), 1)
    return clopper_pearson(k / n * worth, worth, confidence)


def _ppv_interval(values: np.ndarray, intervals: list[tuple[float, float]], prior: float) -> dict[str, float | None]:
    """PPV from FPR and TPR, None where nobody is accused; its interval from theirs at half the error each."""
    (fpr_low, fpr_high), (tpr_low, tpr_high) = intervals
    low, high, value = roc.ppv(tpr_low, fpr_high, prior), roc.ppv(tpr_high, fpr_low, prior), roc.ppv(float(values[1]), float(values[0]), prior)
    return {
        "prior": prior,
        "value": None if np.isnan(value) else value,
        "low": 0.0 if np.isnan(low) else low,
        "high": 1.0 if np.isnan(high) else high,
    }


def null(
    scores_by_target: np.ndarray, membership_of_independent_unit: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Do scores [T, N] of a target know the membership [T, N] of a model that has nothing to do with it? AUC must be 0.5.

    That membership was drawn at random group by group, which alone is assumed: the sum of ranks over its members has a
    known mean and variance whatever the scores, ties included (Mann-Whitney; sampling groups without replacement).
    Where that holds only within strata [T, N] of the samples, sums and variances are added up over these.
    Two-sided p of each target, then the least after Holm over targets, whatever their dependence; alarm at .001.
    """
    scores = np.atleast_2d(np.asarray(scores_by_target, dtype=np.float64))
    truth = np.atleast_2d(np.asarray(membership_of_independent_unit, dtype=bool))
    if scores.shape != truth.shape:
        raise ValueError(f"scores of shape {scores.shape} and membership of shape {truth.shape}; [targets, samples] is expected of both")
    groups = np.arange(scores.shape[1]) if group is None else np.unique(group, return_inverse=True)[1]
    strata = np.zeros(scores.shape, dtype=bool) if strata is None else np.atleast_2d(strata)
    found = [_null_of(s, row, groups, stratum) for s, row, stratum in zip(scores, truth, strata, strict=True)]
    corrected = holm([one["p"] for one in found])
    units = np.arange(len(scores)) if unit is None else np.asarray(unit)
    targets = [one | {"p_holm": float(p), "unit": int(name)} for one, p, name in zip(found, corrected, units, strict=True)]
    p = float(corrected.min())
    return {"p": p, "alarm": p < ALARM, "auc": float(np.mean([one["auc"] for one in found])), "targets": targets}


def _null_of(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, strata: np.ndarray) -> dict[str, float]:
    there = ~np.isnan(scores)
    n_members, n = int(truth[there].sum()), int(there.sum())
    if n_members in (0, n):
        raise ValueError(f"{n_members} of {n} scored samples are members of the independent model; one or more of each are expected")
    total, variance, n_pairs = (
        sum(values) for values in zip(*(_rank_sum(scores, truth, groups, there & (strata == s)) for s in np.unique(strata[there])), strict=True)
    )
    z = total / np.sqrt(variance) if variance > 0 else 0.0
    return {"auc": 0.5 + float(total) / n_pairs if n_pairs else 0.5, "z": float(z), "p": float(2 * special.ndtr(-abs(z)))}


def _rank_sum(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, there: np.ndarray) -> tuple[float, float, int]:
    """Sum of the members' centred ranks, its variance where groups are drawn without replacement, and the pairs of members and others."""
    s, member, code = scores[there], truth[there], np.unique(groups[there], return_inverse=True)[1]
    n, n_members = len(s), int(member.sum())
    rank = stats.rankdata(s) - (n + 1) / 2
    of_group, is_in = np.bincount(code, rank), np.bincount(code, member) > 0
    if (np.bincount(code, member) % np.bincount(code) != 0).any():
        raise ValueError("samples of one group differ in membership; they are expected to be drawn together")
    k, m = len(of_group), int(is_in.sum())
    variance = m * (k - m) / (k * (k - 1)) * float(np.sum(of_group**2)) if k > 1 else 0.0
    return float(rank[member].sum()), variance, n_members * (n - n_members)


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
