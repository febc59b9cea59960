"""ROC, AUC and TPR at a fixed FPR, with ties exact and with intervals that know the threshold is estimated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from memleak import randomness
from memleak.metrics.intervals import clopper_pearson

N_BOOTSTRAP = 4000
N_BOOTSTRAP_ROUNDS = 1000
FEW = 10  # with fewer false positives, or members caught or missed, the bootstrap does not cover


@dataclass(frozen=True)
class Rate:
    """The best TPR at an FPR of at most `at_fpr`. Not `certified`: too few non-members to speak of such an FPR."""

    value: float
    at_fpr: float
    achieved_fpr: float
    low: float
    high: float
    n_false_positives: int
    n_non_members: int
    n_members: int
    certified: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _split(scores: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted scores of members and of non-members."""
    s, truth = np.asarray(scores, dtype=np.float64).ravel(), np.asarray(is_member).ravel().astype(bool)
    if len(s) != len(truth):
        raise ValueError(f"{len(s)} scores and {len(truth)} truth values; as many of each are expected")
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} of {len(s)} scores are not a number")
    if truth.all() or not truth.any():
        raise ValueError(f"{int(truth.sum())} members and {int((~truth).sum())} non-members; one or more of each are expected")
    return np.sort(s[truth]), np.sort(s[~truth])


def curve(scores: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FPR, TPR and threshold at every distinct score ("member" if score >= threshold), from (0, 0) to (1, 1)."""
    members, others = _split(scores, is_member)
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    tpr = (len(members) - np.searchsorted(members, thresholds, side="left")) / len(members)
    fpr = (len(others) - np.searchsorted(others, thresholds, side="left")) / len(others)
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, thresholds)


def auc(scores: np.ndarray, is_member: np.ndarray) -> float:
    """P(a member's score exceeds a non-member's) with half of the ties: Mann-Whitney."""
    members, others = _split(scores, is_member)
    below = np.searchsorted(others, members, side="left")
    not_above = np.searchsorted(others, members, side="right")
    return float((below + not_above).sum() / (2 * len(members) * len(others)))


def auc_interval(value: float, n_members: int, n_non_members: int, confidence: float = 0.95) -> tuple[float, float]:
    """A score-type interval of an AUC, wide enough even at 0 and 1 (Newcombe 2006, method 5)."""
    z, spread = float(special.ndtri(0.5 + confidence / 2)), (n_members + n_non_members) / 2 - 1

    def distance(theta: float) -> float:
        variance = theta * (1 - theta) * (1 + spread * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return abs(value - theta) - z * np.sqrt(variance / (n_members * n_non_members))

    edges = []
    for outer in (0.0, 1.0):
        inside, outside = value, outer
        for _ in range(60):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if distance(middle) <= 0 else (inside, middle)
        edges.append(outside)
    return edges[0], edges[1]


def _strictest(others: np.ndarray, n_false_positives: int) -> float:
    """The score that at most `n_false_positives` non-members exceed strictly: "member" if score > it."""
    return float(others[len(others) - 1 - n_false_positives]) if n_false_positives < len(others) else -np.inf


def tpr_at_fpr(scores: np.ndarray, is_member: np.ndarray, fpr: float, confidence: float = 0.95) -> Rate:
    """The best TPR at FPR <= fpr, with an interval for the TPR at the threshold whose true FPR is `fpr`.

    The threshold is estimated, so members and non-members are resampled together; with under ten false
    positives (or members caught, or missed), an order-statistic interval of the threshold and Clopper-Pearson
    at half the error each.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}, expected 0 to 1")
    members, others = _split(scores, is_member)
    n, m = len(others), len(members)
    allowed = int(np.floor(fpr * n + 1e-9))
    cut = _strictest(others, allowed)
    value = float(np.mean(members > cut))
    achieved = int(np.sum(others > cut))
    if fpr == 1:
        low = high = 1.0
    elif min(allowed, n - allowed, value * m, m - value * m) < FEW:
        low, high = _order_statistic_interval(members, others, fpr, confidence)
    else:
        low, high = _bootstrap_interval(members, others, allowed, confidence)
    certified = fpr > 0 and n * fpr >= 3 - 1e-9
    return Rate(value, fpr, achieved / n, min(low, value), max(high, value), achieved, n, m, certified)


def _order_statistic_interval(members: np.ndarray, others: np.ndarray, fpr: float, confidence: float) -> tuple[float, float]:
    error, n, m = 1 - confidence, len(others), len(members)
    tail = error / 4  # half of the error for the threshold, split over its two sides
    # the number of non-members above the true threshold is Binomial(n, fpr)
    fewest, most = int(stats.binom.ppf(tail, n, fpr)), int(stats.binom.ppf(1 - tail, n, fpr))
    lenient = _strictest(others, most)  # at least as low as the true threshold
    strict = float(others[n - fewest]) if fewest > 0 else np.inf  # at least as high
    most_caught = int(np.sum(members >= lenient)) if most < n else m
    low, _ = clopper_pearson(int(np.sum(members > strict)), m, 1 - error / 2)
    _, high = clopper_pearson(most_caught, m, 1 - error / 2)
    return low, high


def _bootstrap_interval(members: np.ndarray, others: np.ndarray, allowed: int, confidence: float) -> tuple[float, float]:
    """Percentiles over resampled members and non-members, drawn through the distribution of order statistics.

    The (allowed + 1)-th largest of n resampled values is the original value whose rank is that order statistic of n
    uniform ranks (a Beta draw); the TPR above it is then a binomial share of the resampled members.
    """
    draw = randomness.generator(0, "roc bootstrap")
    n, m = len(others), len(members)
    rank = np.ceil(draw.beta(allowed + 1, n - allowed, N_BOOTSTRAP) * n).astype(int).clip(1, n)  # 1 is the largest
    caught = (m - np.searchsorted(members, others[n - rank], side="right")) / m
    tpr = draw.binomial(m, caught) / m
    tail = (1 - confidence) / 2
    low, high = np.quantile(tpr, [tail, 1 - tail])
    return float(low), float(high)


def band_over_rounds(members: np.ndarray, others: np.ndarray, levels: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of the TPR at each FPR of `levels` when whole rounds of [rounds, targets] are resampled."""
    draw = randomness.generator(0, "roc bootstrap over rounds")
    n = others.size
    rank = np.floor(levels * n + 1e-9).astype(int)  # false positives allowed
    tpr = np.empty((N_BOOTSTRAP_ROUNDS, len(levels)))
    for i in range(N_BOOTSTRAP_ROUNDS):
        rounds = draw.integers(0, len(members), len(members))
        inside, outside = np.sort(members[rounds], axis=None), np.sort(others[rounds], axis=None)
        cut = np.where(rank < n, outside[np.maximum(n - 1 - rank, 0)], -np.inf)
        tpr[i] = 1 - np.searchsorted(inside, cut, side="right") / inside.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(tpr, [tail, 1 - tail], axis=0)
    return low, high


def precision(tpr: float, fpr: float) -> float:
    """The share of right accusations where members are as many as non-members; NaN where nobody is accused."""
    return tpr / (tpr + fpr) if tpr + fpr > 0 else float("nan")
