"""The published algorithms written out plainly, slow and obvious: a loop over samples, a matrix of all pairs.

Written from the formulas; golden tests and benchmarks compare ours with them.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from memleak.attacks import Evidence


def lira_by_loop(
    evidence: Evidence, mode: str = "online", variance: str = "per_sample", center: str = "mean", signal: str = "margin"
) -> np.ndarray:  # fmt: skip
    """LiRA, one sample and one view after another, [N]; `variance` per_sample or pooled."""
    sign = -1.0 if signal == "loss" else 1.0
    target, reference = (sign * np.asarray(side[signal], dtype=np.float64) for side in (evidence.target, evidence.reference))
    middle = np.mean if center == "mean" else np.median
    n_samples, n_views = target.shape
    scores = np.zeros(n_samples)
    for view in range(n_views):
        pooled = {}
        for inside in (True, False):
            values = [reference[evidence.is_in[:, n] == inside, n, view] for n in range(n_samples)]
            residuals = [v - middle(v) for v in values if len(v)]
            pooled[inside] = np.concatenate(residuals).std() if residuals else np.nan
        for n in range(n_samples):
            x, densities = target[n, view], {}
            for inside in (True, False):
                values = reference[evidence.is_in[:, n] == inside, n, view]
                if len(values):
                    densities[inside] = stats.norm(middle(values), values.std() if variance == "per_sample" else pooled[inside])
            if mode == "online":
                scores[n] += densities[True].logpdf(x) - densities[False].logpdf(x)
            else:
                scores[n] += -densities[False].logsf(x) if mode == "offline" else -densities[False].logpdf(x)
    return scores / n_views


def rmia_ratios(evidence: Evidence, mode: str, a: float | None) -> tuple[np.ndarray, np.ndarray]:
    """p_target / P of the samples and of the population, [N, Q] and [Z, Q]."""
    assert evidence.population_target is not None and evidence.population_reference is not None
    p_x, p_z, ref_x, ref_z = (
        np.exp(-np.asarray(side["loss"], dtype=np.float64))
        for side in (evidence.target, evidence.population_target, evidence.reference, evidence.population_reference)
    )
    is_in = evidence.is_in[:, :, None]
    mean_out = (ref_x * ~is_in).sum(axis=0) / (~is_in).sum(axis=0)
    if mode == "offline":
        assert a is not None
        return p_x / (((1 + a) * mean_out + 1 - a) / 2), p_z / (((1 + a) * ref_z.mean(axis=0) + 1 - a) / 2)
    mean_in = (ref_x * is_in).sum(axis=0) / is_in.sum(axis=0)
    return p_x / ((mean_in + mean_out) / 2), p_z / ref_z.mean(axis=0)  # whatever `a` says


def rmia_by_matrix(
    evidence: Evidence, mode: str = "offline", gamma: float = 1.0, a: float | None = 0.3, ties: str = "strict", *, published: bool = False
) -> np.ndarray:  # fmt: skip
    """RMIA by all pairs of samples and population points, [N]; with several views, the majority of them.

    `published` divides, LR = r_x / r_z > gamma, in one matrix of float64 as the public tools do; it differs from the
    product where rounding makes or breaks a tie.
    """
    r_x, r_z = rmia_ratios(evidence, mode, a)
    if published and r_x.shape[1] == 1:
        return (r_x / r_z.T > gamma).mean(axis=1)
    compare = np.greater if ties == "strict" else np.greater_equal
    ids = evidence.sample_id, evidence.population_id
    itself = np.zeros((len(r_x), len(r_z)), dtype=bool) if ids[0] is None or ids[1] is None else ids[0][:, None] == ids[1][None, :]
    votes = np.zeros((len(r_x), len(r_z)), dtype=np.int16)
    for view in range(r_x.shape[1]):
        votes += compare(r_x[:, view, None], gamma * r_z[None, :, view])
    won = (2 * votes > r_x.shape[1]) & ~itself
    return won.sum(axis=1) / (~itself).sum(axis=1)


def base_by_loop(evidence: Evidence, mode: str = "online", scale: float = 1.0) -> np.ndarray:
    """BASE, one sample and one view after another, [N]."""
    loss = np.asarray(evidence.reference["loss"], dtype=np.float64)
    scores = np.zeros(loss.shape[1])
    for n in range(loss.shape[1]):
        chosen = ~evidence.is_in[:, n] if mode == "offline" else np.ones(len(loss), dtype=bool)
        for view in range(loss.shape[2]):
            scores[n] -= evidence.target["loss"][n, view] + scale * np.log(np.mean(np.exp(-loss[chosen, n, view])))
    return scores / loss.shape[2]


def reference_by_loop(evidence: Evidence) -> np.ndarray:
    """Attack-R by scipy's mid-rank of the target among it and its OUT references, [N]."""
    loss = np.asarray(evidence.reference["loss"], dtype=np.float64)
    scores = np.zeros(loss.shape[1:])
    for n, view in np.ndindex(*loss.shape[1:]):
        outside = loss[~evidence.is_in[:, n], n, view]
        rank = stats.rankdata([evidence.target["loss"][n, view], *outside])[0]  # 1 is the smallest loss
        scores[n, view] = 1 - (rank - 0.5) / (len(outside) + 1)
    return scores.mean(axis=1)


def language_score(name: str, options: dict[str, object], tokens: dict[str, list[float]], frequency: dict[int, float] | None = None) -> float:
    """The published score of one text in one view, token after token; `tokens` are its own, without padding."""
    log_prob = tokens["log_prob"]
    n, share = len(log_prob), float(options.get("k", 1.0))  # type: ignore[arg-type]
    count = max(1, int(share * n + 1e-9))
    if name == "min_k" and options.get("normalised"):
        log_prob = [(x - mean) / max(spread, 1e-6) for x, mean, spread in zip(log_prob, tokens["mean_log_prob"], tokens["std_log_prob"], strict=True)]
    if name == "min_k":
        return sum(sorted(log_prob)[:count]) / count
    if name == "surp":
        cut = sorted(log_prob)[count - 1]
        kept = [x for x, mean in zip(log_prob, tokens["mean_log_prob"], strict=True) if x <= cut and -mean < options["entropy"]]
        return sum(kept or log_prob) / len(kept or log_prob)
    if name == "dc_pdd":
        assert frequency is not None
        seen: dict[int, float] = {}
        for x, token in zip(log_prob, tokens["token_id"], strict=True):
            seen.setdefault(int(token), min(np.exp(x) * np.log(1 / frequency[int(token)]), options["limit"]))
        return sum(seen.values()) / len(seen)
    gains = [x - other for x, other in zip(log_prob, tokens["reference_log_prob"], strict=True)]
    if name == "ez":
        errors = [gain for gain, rank in zip(gains, tokens["log_rank"], strict=True) if rank > 0] or gains
        return float(np.log(sum(max(g, 0) for g in errors) + options["smoothing"]) - np.log(sum(max(-g, 0) for g in errors) + options["smoothing"]))
    if name == "wbc":
        sizes = [size for size in options["windows"] if size <= n]  # type: ignore[attr-defined]
        shares = [np.mean([sum(gains[start : start + size]) > 0 for start in range(n - size + 1)]) for size in sizes]
        return float(np.mean(shares)) if sizes else float(sum(gains) > 0)
    raise ValueError(name)
