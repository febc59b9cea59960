"""How likely each audited text is a member: probabilities fitted on other texts, p-values that need no fit, and how probabilities shift with the prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from memleak import randomness
from memleak.metrics import blind
from memleak.metrics.exposure import benjamini_hochberg

N_REPEATS = 3  # divisions into folds, averaged
N_STEPS = 50  # of Newton, at most
N_PERMUTATIONS = 1000
N_BINS = 10  # of the reliability diagram
FLAGGED = 0.05  # share of wrong flags among all flags, in expectation


@dataclass(frozen=True)
class Membership:
    """P(member) of each text [N] with its interval, at one prior; NaN where there is no score."""

    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prior: float = 0.5

    def with_prior(self, prior: float) -> Membership:
        """The same evidence where another share of the candidates are members: the log-odds move by as much as the prior's."""
        if not 0 < prior < 1:
            raise ValueError(f"prior is {prior}, expected more than 0 and less than 1: the share of members among the candidates")
        shift = special.logit(prior) - special.logit(self.prior)
        value, low, high = (special.expit(special.logit(values) + shift) for values in (self.probability, self.low, self.high))
        return Membership(value, low, high, prior)


def membership(scores: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None, seed: int = 0, confidence: float = 0.95) -> Membership:
    """P(member) of each text by its score [N], fitted on the texts of other folds, at a prior of one half.

    A logistic regression on the score alone (Platt 1999, with targets short of 0 and 1 as his, so that a perfect separation
    stays finite), both sides weighing alike. Its slope is never negative: higher means rather a member, and where members
    score lower nothing is learned. Near duplicates share a `group` [N] and so a fold, and count as one text in the
    interval. Log-odds are means over three divisions; the interval is that of the fitted line, and not of what other
    attacks would say.
    """
    s, truth = np.asarray(scores, dtype=np.float64), np.asarray(is_member, dtype=bool)
    groups = np.arange(len(s)) if group is None else np.asarray(group)
    there = np.isfinite(s)
    centre, error = np.full((N_REPEATS, len(s)), np.nan), np.full((N_REPEATS, len(s)), np.nan)
    for repeat in range(N_REPEATS):
        for before, here in divisions(truth, groups, there, seed, repeat):
            centre[repeat, here], error[repeat, here] = _platt(s[before], truth[before], groups[before]).log_odds(s[here])
    half = float(special.ndtri(0.5 + confidence / 2)) * error.mean(axis=0)
    middle = centre.mean(axis=0)
    return Membership(special.expit(middle), special.expit(middle - half), special.expit(middle + half))


def divisions(truth: np.ndarray, groups: np.ndarray, there: np.ndarray, seed: int, repeat: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Texts that have a score, divided into folds: rows to fit on and rows to judge, fold by fold."""
    rows = np.flatnonzero(there)
    fold = blind.folds(truth[rows], groups[rows], randomness.generator(seed, "membership folds", repeat)) if len(rows) else rows
    for k in np.unique(fold):
        yield rows[fold != k], rows[fold == k]


@dataclass(frozen=True)
class _Line:
    """Log-odds that rise with a standardised score; their covariance [2, 2] is infinite where nothing was learned from."""

    mean: float
    scale: float
    beta: np.ndarray
    covariance: np.ndarray

    def log_odds(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The line and its standard error at each score."""
        x = np.stack([np.ones(len(scores)), (scores - self.mean) / self.scale])
        if np.isinf(self.covariance).any():
            return np.zeros(len(scores)), np.full(len(scores), np.inf)
        return self.beta @ x, np.sqrt(np.einsum("in,ij,jn->n", x, self.covariance, x))


def _platt(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> _Line:
    """Logistic regression on one score with Platt's targets, both sides weighing alike, slope at least 0.

    A text of the smaller side weighs more, and so does its error: the covariance is that of weighted sums, in which texts
    of one group err alike. The targets of both sides are as far from 0 and 1, by the size that both together are worth:
    with his own a smaller side would be held less likely even where nothing is learned.
    """
    n_members, n_others = int(truth.sum()), int((~truth).sum())
    if not n_members or not n_others:
        return _Line(0.0, 1.0, np.zeros(2), np.full((2, 2), np.inf))
    mean, scale = float(scores.mean()), float(scores.std()) or 1.0
    x = np.stack([np.ones(len(scores)), (scores - mean) / scale])
    short = 1 / (2 + 2 * n_members * n_others / len(scores))  # of equal sides Platt's 1 / (n + 2)
    target = np.where(truth, 1 - short, short)
    weight = len(scores) / (2 * np.where(truth, n_members, n_others))
    beta = np.zeros(2)
    for _ in range(N_STEPS):
        p = special.expit(beta @ x)
        information = (x * (weight * p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, x @ (weight * (target - p)))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    return _Line(mean, scale, beta if beta[1] > 0 else np.zeros(2), _covariance(x * (weight * np.sqrt(p * (1 - p))), information, groups))


def _covariance(errors: np.ndarray, information: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Covariance [2, 2] of a line from the deviation of what each text adds to its equations, [2, n]; those of one group add up."""
    which = np.unique(groups, return_inverse=True)[1]
    of_groups = np.stack([np.bincount(which, row) for row in errors])
    inverse = np.linalg.inv(information)
    return np.asarray(inverse @ (of_groups @ of_groups.T) @ inverse)


def p_values(scores: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """How often a non-member scores as high as each text, (1 + k) / (1 + n), [N]; a non-member is compared with the others, NaN without a score.

    Nothing is fitted: of a text that was not trained on, and is like the non-members, the p-value is uniform. Near
    duplicates share a `group` [N] and count as one non-member, each for its part: five texts in twelve copies are no sixty.
    """
    s, truth = np.asarray(scores, dtype=np.float64), np.asarray(is_member, dtype=bool)
    others = np.flatnonzero(~truth & np.isfinite(s))
    own = np.arange(len(others)) if group is None else np.unique(np.asarray(group)[others], return_inverse=True)[1]
    part, n = (1 / np.bincount(own))[own], len(np.unique(own))
    order = np.argsort(-s[others], kind="stable")
    sums = np.append(0.0, np.cumsum(part[order]))
    as_high = sums[np.searchsorted(-s[others][order], -s, side="right")]
    p = (1 + as_high) / (1 + n)
    for k in np.unique(own):  # of a non-member its own group is one more, as the text itself is of a member
        here = others[own == k]
        in_own = np.mean(s[here][None, :] >= s[here][:, None], axis=1)
        p[here] = (1 + as_high[here] - in_own) / n
    return np.where(np.isfinite(s), p, np.nan)


def flags(p: np.ndarray, is_member: np.ndarray, share: float = FLAGGED) -> np.ndarray:
    """Members that score beyond what non-members do, of which at most a share is flagged by chance, in expectation (Benjamini and Hochberg 1995), [N]."""
    return benjamini_hochberg(p, share, np.asarray(is_member, dtype=bool) & np.isfinite(p))


def reliability(probability: np.ndarray, is_member: np.ndarray) -> dict[str, Any]:
    """How far probabilities that were fitted on other texts can be believed: Brier score, mean calibration error, and the shares by bin."""
    there = np.isfinite(probability)
    p, truth = probability[there], np.asarray(is_member, dtype=bool)[there]
    if not truth.any() or truth.all():
        return {"brier": None, "error": None, "bins": []}
    weight = 1 / (2 * np.where(truth, truth.sum(), (~truth).sum()))  # as many members as others, as the probabilities suppose
    which = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    bins = []
    for k in np.unique(which):
        here = which == k
        total = float(weight[here].sum())
        said, found = float(weight[here] @ p[here]) / total, float(weight[here] @ truth[here]) / total
        bins.append({"said": said, "found": found, "n": int(here.sum()), "weight": total})
    error = sum(one["weight"] * abs(one["said"] - one["found"]) for one in bins)
    return {"brier": float(weight @ (p - truth) ** 2), "error": float(error), "bins": bins}


def family_wise(scores: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None, seed: int = 0, n: int = N_PERMUTATIONS) -> dict[str, Any]:
    """The largest AUC of K attacks [K, N] against the largest that shuffled labels give: p of all attacks together, and what is beyond chance.

    The best of many attacks is high without any leak (Westfall and Young 1993: all are shuffled alike, so their
    dependence is kept). Texts of one group move together.
    """
    s, truth = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(is_member, dtype=bool)
    ranks = _ranks(s)  # [K, N], 0 in the middle and where there is no score
    groups = np.arange(len(truth)) if group is None else np.unique(group, return_inverse=True)[1]
    cells, cell = np.unique(2 * groups + truth, return_inverse=True)
    is_in, draw = cells % 2 == 1, randomness.generator(seed, "family-wise permutations")
    there = np.isfinite(s).astype(np.float64)
    found = _auc_of(ranks, there, truth)
    best = int(np.argmax(found))
    null = np.array([_auc_of(ranks, there, draw.permutation(is_in)[cell]).max() for _ in range(n)])
    return {
        "p": float((1 + np.sum(null >= found[best] - 1e-12)) / (1 + n)), "auc": float(found[best]), "which": best, "n_attacks": len(s),
        "null_mean": float(null.mean()), "null_high": float(np.quantile(null, 0.95)), "excess": float(found[best] - null.mean()), "n": n,
    }  # fmt: skip


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of each row about their mean, ties shared; 0 where there is no score."""
    found = np.zeros(scores.shape)
    for row, values in zip(found, scores, strict=True):
        there = np.isfinite(values)
        row[there] = stats.rankdata(values[there]) - (there.sum() + 1) / 2
    return found


def _auc_of(ranks: np.ndarray, there: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The AUC of each row of centred ranks, [K]; .5 where one side has no score."""
    n_members = there @ truth
    pairs = n_members * (there.sum(axis=1) - n_members)
    return 0.5 + np.divide(ranks @ truth, pairs, out=np.zeros(len(ranks)), where=pairs > 0)
