"""All attacks in one score: the auditor's, who knows some members and learns from them how the rest look; no attacker's."""

from __future__ import annotations

import numpy as np
from scipy import stats

from memleak.metrics import pooled
from memleak.metrics.clusters import pool
from memleak.metrics.membership import N_REPEATS, divisions

LEAST = 10  # texts of a side, below which nothing is learned
WIDER = 1.7  # than that of scores nobody fitted: on noise the AUC of 40 to 400 texts varied 1.5 to 1.7 times as much in simulation


def combine(scores: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """The rank of each text, 0 to 1, by a logistic regression on the scores [K, N] of all attacks that was fitted on other texts, [N].

    Filling in, scaling and fitting happen inside the fold; near duplicates share a `group` [N] and so a fold. Ranks are
    taken within a fold, whose lines are not comparable with those of others, and averaged over three divisions. In-sample such a
    combination is at AUC .88 of pure noise (20 scores of 50 texts); out of fold at .5. NaN where a side is too small.
    """
    s, truth = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(is_member, dtype=bool)
    groups = np.arange(len(truth)) if group is None else np.asarray(group)
    known = np.where(np.isfinite(s), s, np.nan)
    known = known[~np.isnan(known).all(axis=1)].T  # [N, K]
    fewest = min(len(np.unique(groups[side])) for side in (truth, ~truth))
    if fewest < LEAST or not known.shape[1]:
        return np.full(len(truth), np.nan)
    found = np.full((N_REPEATS, len(truth)), np.nan)
    everyone = np.ones(len(truth), dtype=bool)
    for repeat in range(N_REPEATS):
        for before, here in divisions(truth, groups, everyone, seed, repeat):
            found[repeat, here] = _ranked(known[before], truth[before], known[here])
    return np.asarray(found.mean(axis=0))


def _ranked(before: np.ndarray, truth: np.ndarray, here: np.ndarray) -> np.ndarray:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learned = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    )
    return stats.rankdata(learned.fit(before, truth).decision_function(here)) / (len(here) + 1)


def auc(combined: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, float]:
    """The AUC of combined scores [N], its interval widened: any two folds learned from one another, so their errors go together."""
    groups = np.arange(len(combined)) if group is None else np.unique(group, return_inverse=True)[1]
    found = pooled.auc(pool(combined, is_member, group=2 * groups + np.asarray(is_member, dtype=bool)))
    value = found["value"]
    low, high = (value + WIDER * (found[end] - value) for end in ("low", "high"))
    return {"value": value, "low": max(0.0, low), "high": min(1.0, high)}
