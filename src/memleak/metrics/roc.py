"""ROC, AUC, balanced accuracy and TPR at a fixed FPR, with ties exact and with intervals that know the threshold is estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from memleak import randomness
from memleak.metrics.intervals import clopper_pearson

N_BOOTSTRAP_ROUNDS = 1000
N_NODES = 256  # numbers of false positives, at most about twice as many, over which the interval of a TPR is averaged
PRIOR_WEIGHT = 8  # scores that the usual shape of an AUC's variance counts for, beside those observed; 2 to 16 were simulated


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


@dataclass(frozen=True)
class Auc:
    """P(a member's score exceeds a non-member's), with its interval."""

    value: float
    low: float
    high: float
    n_members: int
    n_non_members: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class BalancedAccuracy:
    """The mean of TPR and TNR of "member if score >= threshold". `optimistic`: the threshold was chosen on these very scores, no interval."""

    value: float
    low: float | None
    high: float | None
    threshold: float
    tpr: float
    fpr: float
    n_members: int
    n_non_members: int
    optimistic: bool

    @property
    def advantage(self) -> float:
        """TPR less FPR (Yeom et al. 2018): 0 at chance, 1 for a perfect attack."""
        return 2 * self.value - 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"advantage": self.advantage}


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
    return float(_share_below(others, members).mean())


def _share_below(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of sorted `reference` that lies below each value, with half of the ties."""
    return (np.searchsorted(reference, values, side="left") + np.searchsorted(reference, values, side="right")) / (2 * len(reference))


def auc_interval(value: float, n_members: int, n_non_members: int, confidence: float = 0.95) -> tuple[float, float]:
    """A score-type interval of an AUC of which no more is known, wide enough even at 0 and 1 (Newcombe 2006, method 5).

    It supposes members and non-members to be spread alike. Where they are not it covers less (90 to 93 % in
    simulation, whatever n); with the scores at hand `auc_with_interval` is better.
    """
    return _score_interval(value, lambda theta: _auc_variance(theta, n_members, n_non_members, 1.0, 1.0), confidence)


def auc_with_interval(scores: np.ndarray, is_member: np.ndarray, confidence: float = 0.95) -> Auc:
    """The AUC with an interval that looks at how members and non-members are spread.

    Newcombe's score-type interval, in which the variance of either arm keeps its shape along the AUC but takes the
    size that DeLong et al. 1988 observe, shrunk towards Newcombe's where scores are few. As n grows it becomes
    DeLong's; at an AUC of 0 or 1, where DeLong's has no width, it is Newcombe's.
    """
    members, others = _split(scores, is_member)
    m, n = len(members), len(others)
    caught, spared = _share_below(others, members), 1 - _share_below(members, others)
    value = float(caught.mean())
    usual = _arm_variance(value)

    def size(observed: np.ndarray) -> float:
        if usual <= 0 or len(observed) < 2:
            return 1.0
        return float((observed.var(ddof=1) * len(observed) / usual + PRIOR_WEIGHT) / (len(observed) + PRIOR_WEIGHT))

    sizes = size(caught), size(spared)
    low, high = _score_interval(value, lambda theta: _auc_variance(theta, m, n, *sizes), confidence)
    return Auc(value, low, high, m, n)


def _arm_variance(theta: float) -> float:
    """Variance of one score's share of the other arm below it, at AUC `theta`: the mean over both arms of exponential scores."""
    return theta * (1 - theta) * ((1 - theta) / (2 - theta) + theta / (1 + theta)) / 2


def _auc_variance(theta: float, n_members: int, n_non_members: int, members_size: float, others_size: float) -> float:
    """Variance of an estimated AUC whose truth is `theta` (Hanley and McNeil 1982), each arm's part scaled by its size."""
    arms = (n_non_members - 1) * members_size + (n_members - 1) * others_size
    return (theta * (1 - theta) + arms * _arm_variance(theta)) / (n_members * n_non_members)


def _score_interval(value: float, variance: Callable[[float], float], confidence: float) -> tuple[float, float]:
    """All theta so near that `value` is within z standard errors of it, the error being that at theta."""
    z = float(special.ndtri(0.5 + confidence / 2))
    edges = []
    for outer in (0.0, 1.0):
        inside, outside = value, outer
        for _ in range(60):
            middle = 0.5 * (inside + outside)
            is_inside = abs(value - middle) <= z * np.sqrt(variance(middle))
            inside, outside = (middle, outside) if is_inside else (inside, middle)
        edges.append(outside)
    return edges[0], edges[1]


def _above(values: np.ndarray, others: np.ndarray, rank: np.ndarray | int) -> np.ndarray:
    """How many of the sorted values exceed strictly the rank-th largest non-member: none at rank 0, all at rank n + 1."""
    n, rank = len(others), np.asarray(rank)
    above = len(values) - np.searchsorted(values, others[np.clip(n - rank, 0, n - 1)], side="right")
    return np.where(rank < 1, 0, np.where(rank > n, len(values), above))


def tpr_at_fpr(scores: np.ndarray, is_member: np.ndarray, fpr: float, confidence: float = 0.95) -> Rate:
    """The best TPR at FPR <= fpr, with an interval for the TPR at the threshold whose true FPR is `fpr`.

    The interval knows that the threshold is estimated: of two unit Gaussians it holds the truth in 95 to 99 % of worlds
    (more where n * fpr < 1), where Clopper-Pearson on the TPR alone does in 31 to 49 %.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}, expected 0 to 1")
    members, others = _split(scores, is_member)
    n, m = len(others), len(members)
    allowed = int(np.floor(fpr * n + 1e-9))
    value, achieved = float(_above(members, others, allowed + 1) / m), int(_above(others, others, allowed + 1))
    low, high = (1.0, 1.0) if fpr == 1 else _interval_at_fpr(members, others, fpr, confidence)
    certified = fpr > 0 and n * fpr >= 3 - 1e-9
    return Rate(value, fpr, achieved / n, min(low, value), max(high, value), achieved, n, m, certified)


def _interval_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson limits of the TPR, averaged over where the true threshold may lie among the non-members.

    Binomial(n, fpr) non-members exceed the true threshold; if they are k, it lies between the k-th and the (k + 1)-th
    largest. The members above the former bound the TPR below by a Beta distribution, those above the latter bound it
    above by another; the limits are quantiles of their mixtures over k. No seed, and no approximation by large n.
    """
    n, m, tail = len(others), len(members), (1 - confidence) / 2
    first, last = (int(stats.binom.ppf(p, n, fpr)) for p in (tail * 1e-3, 1 - tail * 1e-3))
    if _jumps(members, others, fpr, first, last):
        return _order_statistic_interval(members, others, fpr, confidence)
    k = np.arange(first, last + 1, max(1, (last - first) // N_NODES))
    weight = stats.binom.pmf(k, n, fpr)
    weight /= weight.sum()
    fewest, most = _above(members, others, k), _above(members, others, k + 1)
    low = _mixture_quantile(tail, weight, fewest, m - fewest + 1)
    high = _mixture_quantile(1 - tail, weight, most + 1, m - most)
    return low, high


def _jumps(members: np.ndarray, others: np.ndarray, fpr: float, first: int, last: int) -> bool:
    """Whether a block of equal scores, large beside what chance moves, lies where the true threshold may be.

    FPR and TPR then jump, and an average of the limits on both sides of the jump covers neither.
    """
    n, m = len(others), len(members)
    lowest, highest = others[max(n - 1 - last, 0)], others[n - max(first, 1)]
    caught = float(_above(members, others, round(n * fpr) + 1))
    for values, spread in ((others, np.sqrt(n * fpr * (1 - fpr))), (members, np.sqrt(caught * (1 - caught / m)))):
        near = values[np.searchsorted(values, lowest, side="left") : np.searchsorted(values, highest, side="right")]
        block = np.searchsorted(near, near, side="right") - np.searchsorted(near, near, side="left")
        if len(near) and block.max() > max(1.0, spread / 2):
            return True
    return False


def _order_statistic_interval(members: np.ndarray, others: np.ndarray, fpr: float, confidence: float) -> tuple[float, float]:
    """Half of the error for the threshold, between two order statistics, and half for Clopper-Pearson: covers with any ties."""
    n, m, error = len(others), len(members), 1 - confidence
    fewest, most = (int(stats.binom.ppf(p, n, fpr)) for p in (error / 4, 1 - error / 4))
    low, _ = clopper_pearson(int(_above(members, others, fewest)), m, 1 - error / 2)
    _, high = clopper_pearson(int(_above(members, others, most + 1)), m, 1 - error / 2)
    return low, high


def _mixture_quantile(p: float, weight: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The p-quantile of a mixture of Beta(a, b), where a = 0 is a point at zero and b = 0 a point at one."""
    at_zero, at_one = a == 0, b == 0
    a, b = np.maximum(a, 1), np.maximum(b, 1)

    def excess(x: float) -> float:
        return float(weight @ np.where(at_zero, 1.0, np.where(at_one, 0.0, special.betainc(a, b, x)))) - p

    if excess(0.0) >= 0:
        return 0.0
    if excess(1.0) <= 0:
        return 1.0
    return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-12))


def band_over_rounds(members: np.ndarray, others: np.ndarray, levels: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of the TPR at each FPR of `levels` when whole rounds of [rounds, targets] are resampled."""
    draw = randomness.generator(0, "roc bootstrap over rounds")
    rank = np.floor(levels * others.size + 1e-9).astype(int)  # false positives allowed
    tpr = np.empty((N_BOOTSTRAP_ROUNDS, len(levels)))
    for i in range(N_BOOTSTRAP_ROUNDS):
        rounds = draw.integers(0, len(members), len(members))
        inside, outside = np.sort(members[rounds], axis=None), np.sort(others[rounds], axis=None)
        tpr[i] = _above(inside, outside, rank + 1) / inside.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(tpr, [tail, 1 - tail], axis=0)
    return low, high


def balanced_accuracy(scores: np.ndarray, is_member: np.ndarray) -> BalancedAccuracy:
    """The best mean of TPR and TNR over all thresholds: optimistic, since the threshold is chosen on the scores it is judged on.

    On pure noise it is above one half, by about 0.44 / sqrt(n) for n members and n non-members.
    """
    fpr, tpr, thresholds = curve(scores, is_member)
    best = int(np.argmax(tpr - fpr))
    n_members = int(np.count_nonzero(is_member))
    value = 0.5 * (1 + tpr[best] - fpr[best])
    return BalancedAccuracy(
        float(value), None, None, float(thresholds[best]), float(tpr[best]), float(fpr[best]), n_members, np.size(is_member) - n_members, True
    )


def balanced_accuracy_at(scores: np.ndarray, is_member: np.ndarray, threshold: float, confidence: float = 0.95) -> BalancedAccuracy:
    """Balanced accuracy of "member if score >= threshold", for a threshold that was fixed without these scores.

    The interval joins the Clopper-Pearson limits of TPR and TNR by the square-and-add rule (Newcombe 1998).
    """
    members, others = _split(scores, is_member)
    n_caught, n_spared = int(np.sum(members >= threshold)), int(np.sum(others < threshold))
    tpr, tnr = n_caught / len(members), n_spared / len(others)
    (tpr_low, tpr_high), (tnr_low, tnr_high) = (clopper_pearson(k, n, confidence) for k, n in ((n_caught, len(members)), (n_spared, len(others))))
    value = (tpr + tnr) / 2
    low, high = value - np.hypot(tpr - tpr_low, tnr - tnr_low) / 2, value + np.hypot(tpr_high - tpr, tnr_high - tnr) / 2
    return BalancedAccuracy(value, max(0.0, float(low)), min(1.0, float(high)), threshold, tpr, 1 - tnr, len(members), len(others), False)


def ppv(tpr: float, fpr: float, prior: float) -> float:
    """The share of right accusations where a share `prior` of the candidates are members; NaN where nobody is accused."""
    if not 0 <= prior <= 1:
        raise ValueError(f"prior is {prior}, expected 0 to 1: the share of members among the candidates")
    right, wrong = tpr * prior, fpr * (1 - prior)
    return right / (right + wrong) if right + wrong > 0 else float("nan")


def precision(tpr: float, fpr: float) -> float:
    """The share of right accusations where members are as many as non-members; NaN where nobody is accused."""
    return ppv(tpr, fpr, 0.5)
