"""How often each sample is found among those a model trained on, over all targets that trained on it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from memleak.metrics.intervals import clopper_pearson

SHARE_OF_FALSE_ALARMS = 0.05  # among flagged samples, at most, in expectation


def exposure(
    says_member: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, fpr: float = 0.01, confidence: float = 0.95,
    has_score: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row a sample: of the targets [T, N] that trained on it, how many are found out, at a threshold set for `fpr`.

    `rate` with its Clopper-Pearson interval: of complementary targets exactly one holds the sample, so holdings are of
    distinct units. `p`: would a sample that leaves no trace be called so often? Such a sample has a rate of false
    alarms of its own; these are spread over samples like a Beta distribution with the mean (never below `fpr`) and the
    variance seen where samples were not held, and the sample's own false alarms count (beta-binomial). `bh`: flagged by
    Benjamini and Hochberg (1995) at 5 %. The largest rate of many is large by luck: without the flag it is no news.
    """
    says, truth = np.atleast_2d(np.asarray(says_member, dtype=bool)), np.atleast_2d(np.asarray(is_member, dtype=bool))
    there = np.ones_like(truth) if has_score is None else np.atleast_2d(has_score)
    if not says.shape == truth.shape == there.shape:
        raise ValueError(f"decisions of shape {says.shape}, truth of {truth.shape}, has_score of {there.shape}; one shape is expected")
    _check_units(truth & there, unit)
    n_holding, n_others = (truth & there).sum(axis=0), (~truth & there).sum(axis=0)
    n_detected, n_false = (says & truth & there).sum(axis=0), (says & ~truth & there).sum(axis=0)
    intervals = [clopper_pearson(int(k), int(n), confidence) if n else (0.0, 1.0) for k, n in zip(n_detected, n_holding, strict=True)]
    a, b = beta_of_rates(n_false, n_others, fpr)
    p = np.where(n_detected > 0, stats.betabinom.sf(n_detected - 1, n_holding, a + n_false, b + n_others - n_false), 1.0)
    return pd.DataFrame({
        "position": np.arange(truth.shape[1]), "n_holding": n_holding, "n_detected": n_detected,
        "rate": np.where(n_holding > 0, n_detected / np.maximum(n_holding, 1), np.nan),
        "low": [low for low, _ in intervals], "high": [high for _, high in intervals],
        "n_others": n_others, "n_false_alarms": n_false, "p": p, "bh": benjamini_hochberg(p, SHARE_OF_FALSE_ALARMS, n_holding > 0),
    })  # fmt: skip


def _check_units(is_held: np.ndarray, unit: np.ndarray | None) -> None:
    if unit is None:
        return
    for name in np.unique(unit):
        twice = np.flatnonzero(is_held[np.asarray(unit) == name].sum(axis=0) > 1)
        if len(twice):
            raise ValueError(f"unit {name}: sample {twice[0]} is held by several targets of it; complementary targets are expected")


def beta_of_rates(n_false: np.ndarray, n: np.ndarray, at_least: float = 0.0) -> tuple[float, float]:
    """The Beta distribution of the samples' rates of false alarms, by the moments of k and k (k - 1)."""
    mean = max((n_false.sum() + 1) / (n.sum() + 2), at_least)  # Laplace: no false alarm in n does not mean never
    pairs = float((n * (n - 1)).sum())
    square = float((n_false * (n_false - 1)).sum()) / pairs if pairs > 0 else mean**2
    alike = float(np.clip((square - mean**2) / (mean * (1 - mean)), 1e-9, 1 - 1e-9))  # correlation of two alarms on a sample
    return mean * (1 / alike - 1), (1 - mean) * (1 / alike - 1)


def benjamini_hochberg(p: np.ndarray, share: float, is_tested: np.ndarray | None = None) -> np.ndarray:
    """Which tests to reject so that a share of at most `share` of the rejected is wrong, in expectation."""
    p = np.asarray(p, dtype=np.float64)
    tested = np.ones(len(p), bool) if is_tested is None else np.asarray(is_tested)
    values = np.sort(p[tested])
    passing = np.flatnonzero(values <= share * np.arange(1, len(values) + 1) / max(len(values), 1))
    return tested & (p <= values[passing[-1]]) if len(passing) else np.zeros(len(p), bool)
