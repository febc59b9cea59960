"""Intervals and corrections for many tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Proportion:
    """A share k of n with its Clopper-Pearson interval."""

    value: float
    low: float
    high: float
    k: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def clopper_pearson(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial proportion (Clopper and Pearson 1934). A fractional k is allowed."""
    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"k = {k} of n = {n}: expected 0 <= k <= n and n >= 1")
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def proportion(outcomes: np.ndarray, confidence: float = 0.95) -> Proportion:
    """The share of true outcomes with its interval."""
    k, n = int(np.sum(outcomes)), len(outcomes)
    return Proportion(k / n, *clopper_pearson(k, n, confidence), k, n)


def clustered_proportion(outcomes: np.ndarray, confidence: float = 0.95) -> Proportion:
    """The share of true outcomes [clusters, members] with an interval that trusts the clusters only.

    Members of a cluster (targets judged on the same base model) may depend on each other in any way, so n is
    the number of clusters: conservative, and never of width zero.
    """
    n = len(outcomes)
    k = float(np.mean(outcomes, axis=1).sum())
    return Proportion(k / n, *clopper_pearson(min(k, n), n, confidence), k, n)


def level_p(k: int, n: int, n_fitted: int, alpha: float) -> float:
    """p-value of "the rule keeps alpha" after k of n fresh OUT models were accused, the rule being fitted to `n_fitted`.

    A fitted rule keeps alpha over fits, not in each: that of an order statistic has a Beta(alpha (n + 1),
    (1 - alpha) (n + 1)) rate, so k is beta-binomial. A binomial test takes an unlucky fit for a broken one.
    """
    a, b = alpha * (n_fitted + 1), (1 - alpha) * (n_fitted + 1)
    counts = np.arange(k, n + 1)
    log_mass = special.betaln(counts + a, n - counts + b) - special.betaln(a, b) - np.log(n + 1) - special.betaln(n - counts + 1, counts + 1)
    return float(min(1.0, np.exp(log_mass).sum()))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number by Holm's step-down method (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def models_for_level(alpha: float, confidence: float = 0.95) -> int:
    """The least number of OUT models whose maximum, as threshold, keeps FPR <= alpha with this confidence (59 at .05)."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-alpha) - 1e-12))
