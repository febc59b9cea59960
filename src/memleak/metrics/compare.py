"""Is one attack better than another on the same targets and samples?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from memleak.metrics import clusters, pooled
from memleak.metrics.intervals import holm

AT_ONCE = 2**22  # scores of attacks that are resampled together


def delong(scores_a: np.ndarray, scores_b: np.ndarray, is_member: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """Difference of the AUCs of two attacks on one target, [N] each, with its interval and two-sided p.

    DeLong, DeLong and Clarke-Pearson 1988, by mid-ranks (Sun and Xu 2014): ties exact, N log N. Conditional on the model.
    """
    a, b, truth = (np.asarray(x).ravel() for x in (scores_a, scores_b, np.asarray(is_member, dtype=bool)))
    if not len(a) == len(b) == len(truth):
        raise ValueError(f"{len(a)} and {len(b)} scores, {len(truth)} truth values; as many of each are expected")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("some scores are not a number; both attacks are expected to score every sample")
    n_members, n_others = int(truth.sum()), int((~truth).sum())
    if min(n_members, n_others) < 2:
        raise ValueError(f"{n_members} members and {n_others} non-members; two or more of each are expected")
    (auc_a, *parts_a), (auc_b, *parts_b) = _placements(a, truth), _placements(b, truth)
    of_members, of_others = (p - q for p, q in zip(parts_a, parts_b, strict=True))
    error = float(np.sqrt(of_members.var(ddof=1) / n_members + of_others.var(ddof=1) / n_others))
    return {"auc_a": auc_a, "auc_b": auc_b} | difference(auc_a - auc_b, float(special.ndtri(0.5 + confidence / 2)) * error, 1, confidence)


def _placements(scores: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The AUC; the share of non-members that each member beats; the share of members that each non-member loses to."""
    rank, n_members, n_others = stats.rankdata(scores), int(truth.sum()), int((~truth).sum())
    beats = (rank[truth] - stats.rankdata(scores[truth])) / n_others
    beaten = 1 - (rank[~truth] - stats.rankdata(scores[~truth])) / n_members
    return float(beats.mean()), beats, beaten


def difference(value: float, half: float, n_units: int, confidence: float) -> dict[str, float]:
    """A difference (of shares, or AUCs) with its interval and the two-sided p that belongs to it: p < 1 - confidence where 0 lies outside."""
    q = 0.5 + confidence / 2
    quantile = float(special.ndtri(q) if n_units < 2 else special.stdtrit(n_units - 1, q))
    if half > 0:
        t = -abs(value) * quantile / half
        p = float(2 * (special.ndtr(t) if n_units < 2 else special.stdtr(n_units - 1, t)))
    else:
        p = 1.0  # the two attacks do not differ on any sample, or too few decide
    return {"difference": float(value), "low": float(max(value - half, -1)), "high": float(min(value + half, 1)), "p": min(p, 1.0)}


def paired_bootstrap(
    scores_a: np.ndarray, scores_b: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """Differences a - b of the pooled AUC and of the TPR at `fpr`, scores [T, N], with intervals and two-sided p.

    Units and samples are clusters as in `pooled`, and both attacks are resampled together. Where one attack has no
    score, neither is looked at.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (scores_a, scores_b))
    if a.shape != b.shape:
        raise ValueError(f"scores of shapes {a.shape} and {b.shape}; the same targets and samples are expected")
    missing = np.isnan(a) | np.isnan(b)
    first, second = (clusters.pool(np.where(missing, np.nan, x), is_member, unit, group) for x in (a, b))
    drawn_a, drawn_b = _resampled([first, second], fpr, _n_draws(first, second, fpr))
    return _differences(first, second, drawn_a, drawn_b, fpr, confidence)


def _differences(a: clusters.Pool, b: clusters.Pool, drawn_a: np.ndarray, drawn_b: np.ndarray, fpr: float, confidence: float) -> dict[str, Any]:
    """Of two attacks, and of their resampled TPRs [3, draws] each."""
    return {"auc": _auc_difference(a, b, confidence), "tpr": {"at_fpr": fpr} | _tpr_difference(a, b, drawn_a - drawn_b, fpr, confidence)}


def _n_draws(a: clusters.Pool, b: clusters.Pool, fpr: float) -> int:
    return pooled.n_draws_for([a, b], np.array([fpr]))


def _resampled(pools: Sequence[clusters.Pool], fpr: float, n_draws: int) -> list[np.ndarray]:
    """The TPR of several attacks where units, groups and cells are resampled, [3, draws] each; they may share the draws, which are always the same."""
    drawn = np.zeros((3, n_draws, len(pools)))
    for which in range(3):
        if which or pools[0].n_units > 1:  # one unit, drawn from one, is itself: there is no spread
            drawn[which] = pooled.resampled_tpr(pools, which, np.array([fpr]), n_draws)[:, :, 0]
    return list(np.moveaxis(drawn, 2, 0))


def _auc_difference(a: clusters.Pool, b: clusters.Pool, confidence: float) -> dict[str, float]:
    (auc_a, of_a), (auc_b, of_b) = pooled.auc_influence(a), pooled.auc_influence(b)
    # a score's difference of influences is summed cell by cell: the two pools hold the same scores in another order
    added = [
        np.bincount(p.code, of_a, minlength=len(p.members)) - np.bincount(q.code, of_b, minlength=len(p.members))
        for p, q in zip(a.clusterings, b.clusterings, strict=True)
    ]
    variances = clusters.sums(added)
    half = clusters.half_width(variances, a.n_units, confidence, variances[2])
    return {"a": auc_a, "b": auc_b} | difference(auc_a - auc_b, half, a.n_units, confidence)


def _tpr_difference(a: clusters.Pool, b: clusters.Pool, drawn: np.ndarray, fpr: float, confidence: float) -> dict[str, float]:
    """The difference of two TPRs, and its spread where it is resampled, [3, draws]."""
    values = [int(one.is_member[: one.prefix(np.floor(fpr * one.n_others + 1e-9))].sum()) / one.n_members for one in (a, b)]
    spread = [float(np.nanvar(differences)) for differences in drawn]
    spread[0] *= a.n_units / max(a.n_units - 1, 1)
    half = clusters.half_width(spread, a.n_units, confidence, spread[2])
    return {"a": values[0], "b": values[1]} | difference(values[0] - values[1], half, a.n_units, confidence)


def against_headline(
    scores: Mapping[str, np.ndarray], headline: str, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """Every other attack less the headline attack, as `paired_bootstrap`; `p_holm` corrects for their number.

    Attacks without NaN are resampled together, the headline once for all of them; of large audits some at a time.
    """
    if headline not in scores:
        raise ValueError(f"headline {headline} has no scores; there are {', '.join(sorted(scores))}")
    others = [name for name in scores if name != headline]
    whole = [name for name in others if not np.isnan(scores[name]).any() and not np.isnan(scores[headline]).any()]
    at_once, found = max(1, AT_ONCE // max(np.size(scores[headline]), 1)), dict[str, Any]()
    for start in range(0, len(whole), at_once):
        some = {name: scores[name] for name in [*whole[start : start + at_once], headline]}
        found |= _together(some, headline, is_member, unit, group, fpr, confidence)
    found |= {name: paired_bootstrap(scores[name], scores[headline], is_member, unit, group, fpr, confidence) for name in others if name not in whole}
    found = {name: found[name] for name in others}
    for measure in ("auc", "tpr"):
        for name, p in zip(others, holm([found[name][measure]["p"] for name in others]), strict=True):
            found[name][measure]["p_holm"] = float(p)
    return found


def _together(
    scores: Mapping[str, np.ndarray], headline: str, is_member: np.ndarray, unit: np.ndarray | None, group: np.ndarray | None, fpr: float, confidence: float
) -> dict[str, Any]:  # fmt: skip
    """`paired_bootstrap` of each attack with the headline, scores [T, N] without NaN."""
    pools = {name: clusters.pool(np.atleast_2d(np.asarray(values, dtype=np.float64)), is_member, unit, group) for name, values in scores.items()}
    drawn: dict[int, dict[str, np.ndarray]] = {}
    n_draws = {name: _n_draws(one, pools[headline], fpr) for name, one in pools.items() if name != headline}
    for n in set(n_draws.values()):
        of_n = [headline, *(name for name in n_draws if n_draws[name] == n)]
        drawn[n] = dict(zip(of_n, _resampled([pools[name] for name in of_n], fpr, n), strict=True))
    return {name: _differences(pools[name], pools[headline], drawn[n][name], drawn[n][headline], fpr, confidence) for name, n in n_draws.items()}
