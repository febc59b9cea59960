"""Controls of an audit whose members nobody drew at random: is the answer visible without the model, and do the metrics hold their level?

Das, Zhang and Tramer 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models": where members
and non-members come from different sources a classifier that never asks the model tells them apart, and so does an
attack that has learned nothing about the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special, stats

from memleak import randomness
from memleak.metrics import calibration, pooled, roc
from memleak.metrics.clusters import pool
from memleak.metrics.intervals import clopper_pearson

N_FOLDS = 5
N_RECORDS = 20_000  # looked at, at most
LEAST = 4 * N_FOLDS  # groups of members, and of non-members, below which nothing is measured
CLASSIFIERS = ("logistic_regression", "gradient_boosting")


def measure(features: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:
    """Can a classifier that sees records [N, D], and not the model, tell members [N] from non-members? AUC .5 where it cannot.

    Records fall into five folds, those of one group [N] into the same one; a logistic regression and a gradient
    boosting fitted on the folds before it score each fold but the first. What counts, declared beforehand, is the mean
    of their ranks within a fold: the one sees a shift that is spread over many columns, the other a new shape of one,
    and a mean is one test, where the better of two would be two. The AUC is the mean over folds, each weighted by the
    root of what was learned from.

    Only folds before: where each fold is scored by all others, any two folds learn from one another. On noise the mean
    then varies nearly twice as much as the folds show (1.8 times in simulation, with an alarm in .7 % of worlds). Here,
    given the folds before, members are a random draw whatever was learned, so p (one-sided; Mann-Whitney, ties and groups
    included) holds for any classifier. The price is an AUC a little below what learning from all records would reach.
    Alarm at .001. Two sets that are too small are not measured: auc and p are None, and `why` says so.
    """
    x, truth = np.asarray(features, dtype=np.float32), np.asarray(is_member, dtype=bool)
    groups = np.arange(len(truth)) if group is None else np.unique(group, return_inverse=True)[1]
    if not len(x) == len(truth) == len(groups):
        raise ValueError(f"{len(x)} records, {len(truth)} truth values and {len(groups)} groups; as many of each are expected")
    chosen = _choose(truth, randomness.generator(seed, "blind records"))
    x, truth, groups = x[chosen], truth[chosen], groups[chosen]
    found: dict[str, Any] = {"n_members": int(truth.sum()), "n_non_members": int((~truth).sum()), "n_features": x.shape[1]}
    fewest = min(len(np.unique(groups[side])) for side in (truth, ~truth))
    if fewest < LEAST:
        why = f"{fewest} different records on one side; {LEAST} are needed to look for a difference"
        return found | {"auc": None, "p": None, "alarm": False, "balanced_accuracy": None, "classifiers": None, "why": why}
    fold = folds(truth, groups, randomness.generator(seed, "blind folds"))
    scores = [_score(x, truth, fold, k, seed) for k in range(1, N_FOLDS)]
    parts = [(truth[fold == k], groups[fold == k]) for k in range(1, N_FOLDS)]
    learned = np.sqrt([np.count_nonzero(fold < k) for k in range(1, N_FOLDS)])
    weight = learned / learned.sum()
    combined = [of_fold.mean(axis=0) for of_fold in scores]
    z = np.array([_z(s, *part) for s, part in zip(combined, parts, strict=True)])
    p = float(special.ndtr(-(weight @ z) / np.sqrt(np.sum(weight**2))))
    alone = [float(weight @ [roc.auc(of_fold[i], part[0]) for of_fold, part in zip(scores, parts, strict=True)]) for i in range(len(CLASSIFIERS))]
    return found | {
        "auc": _auc(combined, parts, weight, confidence), "p": p, "alarm": p <= calibration.ALARM,
        "balanced_accuracy": _balanced_accuracy(combined, parts, truth, fold, confidence),
        "classifiers": dict(zip(CLASSIFIERS, alone, strict=True)), "why": None,
    }  # fmt: skip


def _choose(truth: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Which records are looked at: all, or as many of both kinds as can be had of 20,000; in their order."""
    sides = [draw.permutation(np.flatnonzero(side)) for side in (truth, ~truth)]
    sizes = [max(N_RECORDS // 2, N_RECORDS - len(other)) for other in reversed(sides)]
    return np.sort(np.concatenate([side[:size] for side, size in zip(sides, sizes, strict=True)]))


def folds(truth: np.ndarray, groups: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A fold of each record [N], the same for a whole group; groups of members, of others and of both are dealt out evenly."""
    names, which = np.unique(groups, return_inverse=True)
    share = np.bincount(which, truth) / np.bincount(which)
    kind = np.where(share == 1, 0, np.where(share > 0, 1, 2))  # those of both between, so that each side is dealt out in a row
    order = draw.permutation(len(names))
    order = order[np.argsort(kind[order], kind="stable")]
    of_group = np.empty(len(names), dtype=np.int64)
    of_group[order] = np.arange(len(names)) % N_FOLDS
    return of_group[which]


def _score(x: np.ndarray, truth: np.ndarray, fold: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Ranks of the records of fold k, 0 to 1, by classifiers fitted on the folds before it, [classifiers, n]."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    state = int(randomness.generator(seed, "blind boosting", k).integers(2**31))
    boosting = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, max_bins=64, early_stopping=False, random_state=state)
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    before, here = fold < k, fold == k
    scored = [model.fit(x[before], truth[before]).decision_function(x[here]) for model in (regression, boosting)]
    return np.stack([stats.rankdata(s) / (len(s) + 1) for s in scored])


def _z(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    """How many standard deviations the AUC lies above .5, if members were a random draw of groups."""
    found = calibration.null(scores, truth, group=_cells(truth, groups))
    return float(found["targets"][0]["z"])


def _cells(truth: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Groups, those with members and non-members taken apart, [N]."""
    return 2 * groups + truth


def _auc(
    scores: list[np.ndarray], parts: list[tuple[np.ndarray, np.ndarray]], weight: np.ndarray, confidence: float
) -> dict[str, float]:  # fmt: skip
    """The weighted mean of the folds' AUCs; their errors are uncorrelated given what was learned before (DeLong's variance, groups added up)."""
    values, variances = [], []
    for s, (truth, groups) in zip(scores, parts, strict=True):
        everything = pool(s, truth, group=_cells(truth, groups))
        value, influence = pooled.auc_influence(everything)
        values.append(value)
        variances.append(np.sum(np.bincount(everything.groups.code, influence) ** 2))
    value, half = float(weight @ values), float(special.ndtri(0.5 + confidence / 2) * np.sqrt(weight**2 @ variances))
    n_members, n_others = (sum(len(np.unique(groups[truth == side])) for truth, groups in parts) for side in (True, False))
    low, high = roc.auc_interval(value, n_members, n_others, confidence)
    return {"value": value, "low": max(0.0, min(low, value - half)), "high": min(1.0, max(high, value + half))}


def _balanced_accuracy(
    scores: list[np.ndarray], parts: list[tuple[np.ndarray, np.ndarray]], truth: np.ndarray, fold: np.ndarray, confidence: float
) -> dict[str, float]:  # fmt: skip
    """Of "member if the rank is among the highest", as large a share of a fold as members have of the folds before it."""
    said = np.concatenate([stats.rankdata(s) / (len(s) + 1) - np.mean(~truth[fold < k]) for k, s in enumerate(scores, 1)])
    found = roc.balanced_accuracy_at(said, np.concatenate([part[0] for part in parts]), 0.0, confidence)
    assert found.low is not None and found.high is not None
    return {"value": found.value, "low": found.low, "high": found.high}


def permuted(
    scores: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None, n: int = 100, seed: int = 0, confidence: float = 0.95
) -> dict[str, Any]:  # fmt: skip
    """Shuffle who is a member: the AUC of the scores [N] must be .5, within its interval in 95 % of shuffles.

    The control of a single model without references. It checks only the metrics: a right AUC of shuffled labels says
    nothing about whether members and non-members are alike, nor whether the scores leak the truth. Groups [N] move together.
    """
    s, truth = np.asarray(scores, dtype=np.float64).ravel(), np.asarray(is_member, dtype=bool).ravel()
    groups = np.arange(len(s)) if group is None else np.unique(group, return_inverse=True)[1]
    if not len(s) == len(truth) == len(groups):
        raise ValueError(f"{len(s)} scores, {len(truth)} truth values and {len(groups)} groups; as many of each are expected")
    there = ~np.isnan(s)
    s, truth = s[there], truth[there]
    cells, cell = np.unique(_cells(truth, groups[there]), return_inverse=True)
    draw, is_in = randomness.generator(seed, "permuted labels"), cells % 2 == 1
    found = [pooled.auc(pool(s, draw.permutation(is_in)[cell], group=cell), confidence) for _ in range(n)]
    covered = sum(one["low"] <= 0.5 <= one["high"] for one in found)
    low, high = clopper_pearson(covered, n)
    return {
        "auc_mean": float(np.mean([one["value"] for one in found])), "share_covered": covered / n, "low": low, "high": high, "n": n,
        "alarm": bool(stats.binom.cdf(covered, n, confidence) <= calibration.ALARM), "note": "checks only the metrics",
    }  # fmt: skip
