"""How often each sample is found among those a model trained on, over all targets that trained on it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from memleak.metrics.intervals import clopper_pearson

SHARE_OF_FALSE_ALARMS = 0.05  # among flagged samples, at most, in expectation
RATES = np.concatenate([np.geomspace(1e-5, 0.5, 60), 1 - np.geomspace(0.5, 1e-3, 15)[1:]])  # of false alarms that a sample may have
N_STEPS = 300  # of the EM algorithm, from an even spread; 2,000 moved the rate of false flags by no more than the noise of 60 worlds


def exposure(
    says_member: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, fpr: float = 0.01, confidence: float = 0.95,
    has_score: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row a sample: of the targets [T, N] that trained on it, how many are found out, at a threshold set for `fpr`.

    `rate` with its Clopper-Pearson interval: of complementary targets exactly one holds the sample, so holdings are of
    distinct units. `p`: would a sample that leaves no trace be called so often? Such a sample has a rate of false
    alarms of its own, of which its own false alarms and those of all others tell (`p_of_beta`, `p_of_mixture`): the
    larger p counts, since the Beta distribution knows `fpr` but no samples that are always accused, the mixture those
    only. `bh`: flagged by Benjamini and Hochberg (1995) at 5 %. The largest rate of many is large by luck: without the
    flag it is no news.
    """
    says, truth = np.atleast_2d(np.asarray(says_member, dtype=bool)), np.atleast_2d(np.asarray(is_member, dtype=bool))
    there = np.ones_like(truth) if has_score is None else np.atleast_2d(has_score)
    if not says.shape == truth.shape == there.shape:
        raise ValueError(f"decisions of shape {says.shape}, truth of {truth.shape}, has_score of {there.shape}; one shape is expected")
    _check_units(truth & there, unit)
    n_holding, n_others = (truth & there).sum(axis=0), (~truth & there).sum(axis=0)
    n_detected, n_false = (says & truth & there).sum(axis=0), (says & ~truth & there).sum(axis=0)
    low, high = _intervals(n_detected, n_holding, confidence)
    counts = n_detected, n_holding, n_false, n_others
    p = np.where(n_detected > 0, np.maximum(p_of_beta(*counts, fpr), p_of_mixture(*counts)), 1.0)
    return pd.DataFrame({
        "position": np.arange(truth.shape[1]), "n_holding": n_holding, "n_detected": n_detected,
        "rate": np.where(n_holding > 0, n_detected / np.maximum(n_holding, 1), np.nan),
        "low": low, "high": high,
        "n_others": n_others, "n_false_alarms": n_false, "p": p, "bh": benjamini_hochberg(p, SHARE_OF_FALSE_ALARMS, n_holding > 0),
    })  # fmt: skip


def _check_units(is_held: np.ndarray, unit: np.ndarray | None) -> None:
    if unit is None:
        return
    for name in np.unique(unit):
        twice = np.flatnonzero(is_held[np.asarray(unit) == name].sum(axis=0) > 1)
        if len(twice):
            raise ValueError(f"unit {name}: sample {twice[0]} is held by several targets of it; complementary targets are expected")


def _intervals(k: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper-Pearson intervals of k [N] of n [N], each distinct pair computed once; (0, 1) where n is 0."""
    distinct, which = np.unique(np.stack([k, n]), axis=1, return_inverse=True)
    ends = np.array([clopper_pearson(int(a), int(b), confidence) if b else (0.0, 1.0) for a, b in distinct.T])
    low, high = ends[which].T
    return low, high


def p_of_beta(n_detected: np.ndarray, n_holding: np.ndarray, n_false: np.ndarray, n_others: np.ndarray, fpr: float) -> np.ndarray:
    """Chance of `n_detected` or more of `n_holding` where rates of false alarms are spread like a Beta distribution, [N].

    It has the mean (never below `fpr`) and the variance seen where samples were not held: beta-binomial.
    """
    a, b = beta_of_rates(n_false, n_others, fpr)
    return stats.betabinom.sf(n_detected - 1, n_holding, a + n_false, b + n_others - n_false)


def p_of_mixture(n_detected: np.ndarray, n_holding: np.ndarray, n_false: np.ndarray, n_others: np.ndarray) -> np.ndarray:
    """Chance of `n_detected` or more of `n_holding` where rates of false alarms are spread in any way, [N].

    Few samples that every model accuses, beside many that none does, are no Beta distribution. The spread is the
    nonparametric maximum likelihood estimate (Kiefer and Wolfowitz 1956; on a grid by EM, Laird 1978), to which one
    sample of unknown rate is added: no rate is impossible because nobody in the audit has it.
    """
    seen, which, times = np.unique(np.stack([n_false, n_others]), axis=1, return_inverse=True, return_counts=True)
    likelihood = stats.binom.pmf(seen[0][:, None], seen[1][:, None], RATES)  # [distinct counts, rates]
    weight = np.full(len(RATES), 1 / len(RATES))
    for _ in range(N_STEPS):
        weight = times @ _posterior(likelihood, weight) / times.sum()
    weight = (weight * times.sum() + 1 / len(RATES)) / (times.sum() + 1)
    posterior = _posterior(likelihood, weight)
    asked, back = np.unique(np.stack([n_detected, n_holding, which]), axis=1, return_inverse=True)
    chance = stats.binom.sf(asked[0][:, None] - 1, asked[1][:, None], RATES)
    return np.sum(posterior[asked[2]] * chance, axis=1)[back]


def _posterior(likelihood: np.ndarray, weight: np.ndarray) -> np.ndarray:
    joint = likelihood * weight
    return joint / joint.sum(axis=1, keepdims=True)


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
