"""Which share of a set of samples was used to train a model? Dataset-usage estimation (Tong et al. 2025, DUCI).

Accusations among the set are a mixture: a share p of it accused at the TPR, the rest at the FPR, so
p = (accused - FPR) / (TPR - FPR). Both rates are estimates and the denominator may be small, so the interval is
Fieller's (1954): every p for which accused - p TPR - (1 - p) FPR is no further from 0 than its error allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from memleak.metrics import roc

N_GRID = 2001  # shares from 0 to 1 that the interval is made of


@dataclass(frozen=True)
class Share:
    """The estimated share of a set that was used, 0 to 1. Refused (None, from 0 to 1): the attack does not tell used from unused."""

    value: float | None
    low: float
    high: float
    tpr: float
    fpr: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def share_used(says_member: np.ndarray, tpr: tuple[int, int], fpr: tuple[int, int], confidence: float = 0.95) -> Share:
    """The share of a set [n] that was used, from the accusations within it and the rates (k, n) of reference models.

    Accusations are taken as independent given use; where the model audited may differ from the reference models in
    its rates, `estimate` sees by how much.
    """
    says = np.asarray(says_member, dtype=bool).ravel()
    for name, (k, n) in (("tpr", tpr), ("fpr", fpr)):
        if n < 1 or not 0 <= k <= n:
            raise ValueError(f"{name} is {k} of {n}: expected 0 <= k <= n and n >= 1")
    if len(says) == 0:
        raise ValueError("the set is empty; one or more samples are expected")
    (t, m), (f, o) = ((k / n, n) for k, n in (tpr, fpr))
    # (k + 1) / (n + 2) inside the variance: none of n does not mean never
    t_var, f_var = (_binomial((k + 1) / (n + 2)) for k, n in (tpr, fpr))

    def variance(p: np.ndarray) -> np.ndarray:
        return (p * t_var + (1 - p) * f_var) / len(says) + p**2 * t_var / m + (1 - p) ** 2 * f_var / o

    z = float(special.ndtri(0.5 + confidence / 2))
    return _fieller(float(says.mean()), t, f, len(says), variance, z, float(np.sqrt(t_var / m + f_var / o)))


def _binomial(p: float) -> float:
    return p * (1 - p)


def _fieller(accused: float, t: float, f: float, n: int, variance: Callable[[np.ndarray], np.ndarray], quantile: float, error: float) -> Share:
    if t - f <= quantile * error:
        return Share(None, 0.0, 1.0, t, f, n)
    shares = np.linspace(0, 1, N_GRID)
    off = np.abs(accused - shares * t - (1 - shares) * f) - quantile * np.sqrt(variance(shares))
    value = float(np.clip((accused - f) / (t - f), 0, 1))
    inside = shares[off <= 0]
    # no share explains the accusations: more than a full set, or fewer than none, would give
    low, high = (float(inside.min()), float(inside.max())) if len(inside) else (value, value)
    step = 1 / (N_GRID - 1)
    return Share(value, max(min(low - step, value), 0.0), min(max(high + step, value), 1.0), t, f, n)


def best_threshold(scores: np.ndarray, is_member: np.ndarray) -> float:
    """The score at and above which TPR - FPR is largest."""
    fpr, tpr, thresholds = roc.curve(scores, is_member)
    return float(thresholds[np.argmax(tpr - fpr)])


def estimate(
    scores_of_set: np.ndarray, mock_scores: np.ndarray, mock_is_member: np.ndarray, unit: np.ndarray | None = None, confidence: float = 0.95
) -> Share:
    """The share of a set [n] that the target was trained on, its threshold and rates from mock targets [K, n].

    Each unit of mocks is judged at a threshold chosen on the others. How far the rates of units differ is how far those
    of the target may differ from their mean, too: prediction by t over units.
    """
    scores, mocks, truth = np.asarray(scores_of_set, dtype=np.float64).ravel(), np.atleast_2d(mock_scores), np.atleast_2d(mock_is_member).astype(bool)
    if mocks.shape != truth.shape or mocks.shape[1] != len(scores):
        raise ValueError(f"{len(scores)} scores, mock scores of shape {mocks.shape}, truth of {truth.shape}; [mocks, samples of the set] is expected")
    units = np.arange(len(mocks)) if unit is None else np.unique(unit, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    if n_units < 2:
        raise ValueError("mocks of one unit only; two or more are expected, to see how far models differ")
    counts = np.array([_counts(mocks[units == u], truth[units == u], best_threshold(mocks[units != u], truth[units != u])) for u in range(n_units)])
    tpr, fpr = counts[:, 0] / counts[:, 1], counts[:, 2] / counts[:, 3]
    t, f = float(tpr.mean()), float(fpr.mean())
    seen = np.cov(tpr, fpr)  # [2, 2], of units
    alone = np.array(
        [_binomial((k + 1) / (n + 2)) / n for k, n in ((counts[:, 0].sum(), counts[:, 1].sum()), (counts[:, 2].sum(), counts[:, 3].sum()))]
    )
    alone *= n_units  # what a unit's rates would vary by if its accusations were independent
    beyond = np.maximum(np.diag(seen) - alone, 0)
    both = float(np.clip(seen[0, 1], -np.sqrt(np.prod(beyond)), np.sqrt(np.prod(beyond))))
    seen_diagonal = np.maximum(np.diag(seen), alone)

    def variance(p: np.ndarray) -> np.ndarray:
        own = (p * _binomial(t) + (1 - p) * _binomial(f)) / len(scores)
        own = own + p**2 * beyond[0] + (1 - p) ** 2 * beyond[1] + 2 * p * (1 - p) * both
        of_mocks = p**2 * seen_diagonal[0] + (1 - p) ** 2 * seen_diagonal[1] + 2 * p * (1 - p) * both
        return own + of_mocks / n_units

    quantile = float(special.stdtrit(n_units - 1, 0.5 + confidence / 2))
    error = float(np.sqrt(max(seen_diagonal.sum() - 2 * both, 0.0) / n_units))
    accused = float(np.mean(scores >= best_threshold(mocks, truth)))
    return _fieller(accused, t, f, len(scores), variance, quantile, error)


def _counts(scores: np.ndarray, truth: np.ndarray, cut: float) -> tuple[int, int, int, int]:
    """Members accused, members, non-members accused, non-members."""
    says = scores >= cut
    return int((says & truth).sum()), int(truth.sum()), int((says & ~truth).sum()), int((~truth).sum())
