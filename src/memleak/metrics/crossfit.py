"""Thresholds for one model that has no mock targets: set on its scores of other non-members than those they are applied to."""

from __future__ import annotations

import numpy as np

from memleak import randomness
from memleak.metrics import calibration

N_FOLDS = 5


def fold_of(group: np.ndarray, n_folds: int = N_FOLDS) -> np.ndarray:
    """The fold of each sample, [N]: samples of one group are in one fold; drawn from the group's id, whatever else is audited."""
    return (randomness.counter_uniform(randomness.derive(0, "crossfit"), np.asarray(group, dtype=np.int64)) * n_folds).astype(np.int64)


def places(scores: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The scores' places from the lowest, [N] from 0; of equal ones a coin decides that belongs to the group, NaN where there is no score.

    Where many records share one score (a model that is sure, labels alone) a threshold strictly above it accuses nobody
    and one below it too many: neither shows a leak. A coin keeps the false-positive rate, as in a randomised test.
    """
    coin = randomness.counter_uniform(randomness.derive(0, "crossfit ties"), np.asarray(group, dtype=np.int64))
    both = np.stack([np.asarray(scores, dtype=np.float64), coin])
    place = np.unique(both, axis=1, return_inverse=True)[1].ravel().astype(np.float64)
    place[np.isnan(scores)] = np.nan
    return place


def cuts(scores: np.ndarray, is_member: np.ndarray, group: np.ndarray, fpr: float) -> tuple[np.ndarray, int]:
    """The threshold for each sample, [N], that the non-members of all other folds set for `fpr`; and the fewest that set one.

    Infinite where they are too few: nobody is accused then.
    """
    fold, others = fold_of(group), ~np.asarray(is_member, dtype=bool)
    found, n_fitted = np.empty(len(scores)), []
    for k in np.unique(fold):
        fitted = scores[others & (fold != k)]
        n_fitted.append(len(fitted))
        found[fold == k] = calibration.threshold(fitted, fpr) if len(fitted) else np.inf
    return found, min(n_fitted)
