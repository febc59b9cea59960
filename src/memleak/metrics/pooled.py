"""Figures over all targets of an audit in which every model is the target in turn, with intervals that know who depends on whom (`clusters`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from memleak import randomness
from memleak.metrics import roc
from memleak.metrics.clusters import AT_LEAST, Clusters, Pool, design_effects, gaps, half_width, order_statistic_interval, parts_of_units, pool, sums

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)
N_DRAWS = (60, 500)  # of each bootstrap: fewest, most; the standard error they estimate is right to 9 %, 3 %
BUDGET = 300_000_000  # scores looked at by the bootstraps together, where that leaves the fewest draws
FEW = 10  # with fewer false positives, or members caught or missed, than these are worth the bootstrap does not cover
N_POINTS = 60  # of a curve, evenly on a log scale; some evenly on a linear one come on top


def placements(scores: Pool) -> np.ndarray:
    """Of each score [S], the share of the other kind that it beats (member) or is beaten by (non-member), half of the ties."""
    members, others = np.diff(scores.members_above, prepend=0), np.diff(scores.others_above, prepend=0)
    beats = 1 - (np.cumsum(others) - 0.5 * others) / scores.n_others
    beaten = (np.cumsum(members) - 0.5 * members) / scores.n_members
    sizes = np.diff(scores.ends, prepend=0)
    return np.where(scores.is_member, np.repeat(beats, sizes), np.repeat(beaten, sizes))


def auc_influence(scores: Pool) -> tuple[float, np.ndarray]:
    """The AUC, and what each score [S] adds to its error (DeLong et al. 1988; clusters added up as Obuchowski 1997)."""
    share = placements(scores)
    value = float(share[scores.is_member].mean())
    return value, (share - value) / np.where(scores.is_member, scores.n_members, scores.n_others)


def auc(scores: Pool, confidence: float = 0.95) -> dict[str, float]:
    """The AUC with its interval, symmetric on the logit scale."""
    value, influence = auc_influence(scores)
    n = min(scores.n_members, scores.n_others)
    low, high = roc.auc_interval(value, scores.n_members, scores.n_others, confidence)
    variances = sums([np.bincount(c.code, influence, minlength=len(c.members)) for c in scores.clusterings])
    half = half_width(variances, scores.n_units, confidence, float(np.sum(influence**2)))
    if half > 0:
        down, up = np.maximum(half, gaps(_within(scores), value, scores.n_units, confidence)) / (value * (1 - value))
        centre = special.logit(value)
        low, high = min(low, float(special.expit(centre - down))), max(high, float(special.expit(centre + up)))
    if min(value, 1 - value) * n < FEW:  # so few pairs are in the wrong order that their spread shows nothing
        few = min(n, scores.n_samples)
        wide = roc.auc_interval(value, few, few, confidence)
        low, high = min(low, wide[0]), max(high, wide[1])
    return {"value": value, "low": low, "high": high}


def _within(scores: Pool) -> float | None:
    """The AUC among scores of one unit, mean over units."""
    if scores.n_units < 2:
        return None
    found = [roc.auc(scores.scores[part], scores.is_member[part]) for part in parts_of_units(scores)]
    return float(np.mean(found)) if found else None


def draw_weights(draw: np.random.Generator, n: int, which: int) -> np.ndarray:
    """How often each of n clusters counts: units and groups are drawn with replacement; cells, being many, count twice or not at all."""
    if which == 2:
        return 2 * np.unpackbits(np.frombuffer(draw.bytes(-(-n // 8)), np.uint8), count=n).astype(np.int32)
    return np.bincount(draw.integers(0, n, n), minlength=n).astype(np.int32)


def resampled_tpr(pools: Sequence[Pool], which: int, levels: np.ndarray, n_draws: int) -> np.ndarray:
    """TPR at each FPR of `levels` when units (which = 0), groups (1) or cells (2) are resampled, [draws, pools, L].

    All pools (scores of several attacks for the same targets and samples) get the same draws.
    """
    draw = randomness.generator(0, "pooled bootstrap", which)
    n = len(pools[0].clusterings[which].members)
    tops = [one.prefix(min(2 * float(levels.max()) * one.n_others, one.n_others)) for one in pools]
    tpr = np.empty((n_draws, len(pools), len(levels)))
    for i in range(n_draws):
        weights = draw_weights(draw, n, which)
        for j, one in enumerate(pools):
            tpr[i, j] = _weighted_tpr(one, one.clusterings[which], weights, levels, tops[j])
    return tpr


def _weighted_tpr(scores: Pool, clusters: Clusters, weights: np.ndarray, levels: np.ndarray, top: int) -> np.ndarray:
    """TPR at each FPR when every score counts as often as its cluster; only the `top` highest scores are looked at if they suffice."""
    n_members, n_others = int(clusters.members @ weights), int(clusters.others @ weights)
    if n_members == 0 or n_others == 0:
        return np.full(len(levels), np.nan)
    allowed = np.floor(levels * n_others + 1e-9)
    weight, ends = weights[clusters.code[:top]], scores.ends[: np.searchsorted(scores.ends, top, side="right")]
    members = np.cumsum(weight * scores.is_member[:top])
    others = np.cumsum(weight) - members
    if top < len(scores.scores) and (top == 0 or others[-1] <= allowed.max()):
        return _weighted_tpr(scores, clusters, weights, levels, len(scores.scores))
    blocks = np.searchsorted(others[ends - 1], allowed, side="right")
    return np.append(0, members[ends - 1])[blocks] / n_members


def n_draws_for(pools: Sequence[Pool], levels: np.ndarray) -> int:
    looked_at = sum(one.prefix(min(2 * float(levels.max()) * one.n_others, one.n_others)) for one in pools)
    return int(np.clip(BUDGET // (3 * max(looked_at, 1)), *N_DRAWS))


def _bootstrap_intervals(scores: Pool, levels: np.ndarray, values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the TPR at each level, on the scale of arcsin sqrt, where the spread of a share hardly depends on it."""
    n_draws, centre = n_draws_for([scores], levels), np.arcsin(np.sqrt(values))
    spread = []
    for which in range(3):
        drawn = resampled_tpr([scores], which, levels, n_draws if which != 0 or scores.n_units > 1 else 1)[:, 0]
        spread.append(np.nanvar(np.arcsin(np.sqrt(drawn)), axis=0))
    spread[0] *= scores.n_units / max(scores.n_units - 1, 1)
    half = np.array([half_width(variances, scores.n_units, confidence, variances[2]) for variances in zip(*spread, strict=True)])
    inside = _within_tpr(scores, levels) if scores.n_units > 1 else [None] * len(levels)
    beyond = np.array([gaps(a, b, scores.n_units, confidence) for a, b in zip(inside, centre, strict=True)])
    low, high = centre - np.maximum(half, beyond[:, 0]), centre + np.maximum(half, beyond[:, 1])
    return np.sin(np.clip(low, 0, np.pi / 2)) ** 2, np.sin(np.clip(high, 0, np.pi / 2)) ** 2


def _within_tpr(scores: Pool, levels: np.ndarray) -> list[float | None]:
    """arcsin sqrt of the TPR at each FPR of `levels` among scores of one unit, mean over units."""
    found = []
    for part in parts_of_units(scores):
        fpr, tpr, _ = roc.curve(scores.scores[part], scores.is_member[part])
        found.append(np.arcsin(np.sqrt(tpr[np.searchsorted(fpr, levels + 1e-12, side="right") - 1])))
    return list(np.mean(found, axis=0)) if found else [None] * len(levels)


def rates(scores: Pool, levels: Sequence[float] | np.ndarray, confidence: float = 0.95) -> list[dict[str, Any]]:
    """The best TPR of the pool at each FPR, with an interval for the TPR at the threshold whose true FPR it is.

    The interval resamples clusters; where clustered false positives (or members caught, or missed) are worth fewer
    than ten, order statistics. `certified` is false where distinct non-members number less than 3 / FPR.
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"FPRs are {wanted.tolist()}, expected 0 to 1 of each")
    n, m = scores.n_others, scores.n_members
    if scores.is_plain:
        return [roc.tpr_at_fpr(scores.scores, scores.is_member, float(f), confidence).as_dict() | {"n_scores": n} for f in wanted]
    prefixes = [scores.prefix(np.floor(f * n + 1e-9)) for f in wanted]
    caught = [int(scores.is_member[:end].sum()) for end in prefixes]
    few = [_is_few(scores, int(np.floor(f * n + 1e-9)), k, confidence) for f, k in zip(wanted, caught, strict=True)]
    low, high = np.full(len(wanted), np.nan), np.full(len(wanted), np.nan)
    enough = np.array([effects is None for effects in few])
    if enough.any():
        low[enough], high[enough] = _bootstrap_intervals(scores, wanted[enough], np.array(caught)[enough] / m, confidence)
    others, members = scores.scores[~scores.is_member][::-1], scores.scores[scores.is_member][::-1]
    result = []
    for i, f in enumerate(wanted):
        effects = few[i]
        if effects is not None:
            low[i], high[i] = order_statistic_interval(members, effects[1], others, effects[0], f, confidence)
        if scores.n_targets == 1:
            alone = roc.tpr_at_fpr(scores.scores, scores.is_member, float(f), confidence)
            low[i], high[i] = min(low[i], alone.low), max(high[i], alone.high)
        n_false = prefixes[i] - caught[i]
        result.append({
            "at_fpr": float(f), "value": caught[i] / m, "low": float(min(low[i], caught[i] / m)) if f < 1 else 1.0, "high": float(max(high[i], caught[i] / m)),
            "achieved_fpr": n_false / n, "n_false_positives": n_false, "n_non_members": scores.n_distinct_others, "n_scores": n,
            "certified": bool(f > 0 and scores.n_distinct_others * f >= 3 - 1e-9),
        })  # fmt: skip
    return result


def _is_few(scores: Pool, allowed: int, caught: int, confidence: float) -> tuple[float, float] | None:
    """The design effects, where what the scores at a level are worth is too little for the bootstrap; else None."""
    n, m = scores.n_others, scores.n_members
    here = design_effects(scores, scores.prefix(allowed), confidence)
    further = design_effects(scores, scores.prefix(max(allowed, min(AT_LEAST, n // 2))), confidence)
    of_others, of_members = (max(a, b) for a, b in zip(here, further, strict=True))
    is_few = min(min(allowed, n - allowed) / of_others, min(caught, m - caught) / of_members) < FEW
    return (of_others, of_members) if is_few else None


def best_threshold(scores: Pool, confidence: float = 0.95) -> tuple[dict[str, Any], dict[str, Any]]:
    """Balanced accuracy and advantage (TPR - FPR) at the threshold that is best for these very scores: optimistic.

    The interval is for the largest advantage of any threshold in the world the scores are drawn from. Upwards the
    threshold counts as given; downwards the choice costs what `excess` says, since it profits from noise: without a
    leak the interval reaches chance.
    """
    n, m = scores.n_others, scores.n_members
    gains = scores.members_above / m - scores.others_above / n
    best = int(np.argmax(gains))
    end = int(scores.ends[best]) if gains[best] > 0 else 0
    hit = scores.is_member[:end]
    tpr, fpr = float(hit.sum()) / m, float((~hit).sum()) / n
    added = [(c.hits(hit) - tpr * c.members) / m - (c.hits(~hit) - fpr * c.others) / n for c in scores.clusterings]
    alone = tpr * (1 - tpr) / m + fpr * (1 - fpr) / n
    half = half_width(sums(added), scores.n_units, confidence, alone)
    design_effect = half**2 / (float(special.ndtri(0.5 + confidence / 2)) ** 2 * alone) if alone > 0 else 1.0
    half = max(half, 3 / min(scores.n_samples, n, m)) if half == 0 else half  # none of n: the rule of three
    down = max(half, excess(scores, gains, design_effect, confidence), gaps(_within_gain(scores), tpr - fpr, scores.n_units, confidence)[0])
    low, value, high = (float(np.clip(x, -1, 1)) for x in (tpr - fpr - down, tpr - fpr, tpr - fpr + half))
    advantage = {"value": value, "low": low, "high": high, "is_optimistic": True}
    return {key: (1 + x) / 2 if key != "is_optimistic" else x for key, x in advantage.items()}, advantage


def excess(scores: Pool, gains: np.ndarray, design_effect: float, confidence: float) -> float:
    """How far above the truth the largest of `gains` (TPR - FPR after each block of equal scores) may lie.

    On noise the gains are a Brownian bridge, whose maximum exceeds x of its largest standard deviations with
    probability exp(-x^2 / 2) (Smirnov 1939: 1.358 sqrt(1/m + 1/n) at 2.5 %). With a leak only thresholds nearly as good
    as the best can be the best in truth, and where few members are missed the gains of these spread less. Of few
    thresholds a normal quantile with Bonferroni's correction is smaller.
    """
    n, m, tail = scores.n_others, scores.n_members, (1 - confidence) / 2
    of_bridge = float(np.sqrt(-2 * np.log(tail)))
    of_few = float(special.ndtri(1 - tail / max(len(gains) - 1, 1)))
    tpr, fpr = scores.members_above / m, scores.others_above / n
    variance = design_effect * (tpr * (1 - tpr) / m + fpr * (1 - fpr) / n)
    near = gains >= gains.max() - of_bridge * np.sqrt(design_effect * (1 / m + 1 / n))  # twice Smirnov's bound
    return min(of_bridge, of_few) * float(np.sqrt(variance[near].max()))


def _within_gain(scores: Pool) -> float | None:
    """The largest advantage among scores of one unit, mean over units; profits from noise, so `gaps` errs to the safe side."""
    if scores.n_units < 2:
        return None
    curves = [roc.curve(scores.scores[part], scores.is_member[part]) for part in parts_of_units(scores)]
    return float(np.mean([np.max(tpr - fpr) for fpr, tpr, _ in curves])) if curves else None


def measure(
    scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    levels: Sequence[float] = LEVELS, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """AUC, TPR at each FPR of `levels`, balanced accuracy and advantage of scores [T, N], each with its interval."""
    everything = pool(scores, is_member, unit, group)
    balanced_accuracy, advantage = best_threshold(everything, confidence)
    return {
        "auc": auc(everything, confidence),
        "rates": rates(everything, levels, confidence),
        "balanced_accuracy": balanced_accuracy,
        "advantage": advantage,
        "n_targets": everything.n_targets,
        "n_units": everything.n_units,
        "n_samples": everything.n_samples,
    }


def per_target(scores: np.ndarray, is_member: np.ndarray, fpr: float = 0.01, confidence: float = 0.95) -> dict[str, Any]:
    """AUC and TPR of each target [T], conditional on that model, and how far apart targets lie."""
    found = []
    for s, truth in zip(np.asarray(scores, dtype=np.float64), np.asarray(is_member, dtype=bool), strict=True):
        there = ~np.isnan(s)
        found.append({
            "auc": roc.auc_with_interval(s[there], truth[there], confidence).as_dict(),
            "tpr": roc.tpr_at_fpr(s[there], truth[there], fpr, confidence).as_dict(),
        })  # fmt: skip
    return {"targets": found, "spread": {key: _spread([one[key]["value"] for one in found]) for key in ("auc", "tpr")}}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(np.mean(values)),
        "std": deviation,
        "lowest": float(min(values)),
        "median": float(np.median(values)),
        "highest": float(max(values)),
    }


def curve_band(
    scores: np.ndarray, is_member: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Points of the pooled ROC at FPRs that are even on a log scale, with their band: fpr, tpr, low, high, certified."""
    return band(pool(scores, is_member, unit, group), confidence)


def band(everything: Pool, confidence: float = 0.95) -> pd.DataFrame:
    """`curve_band` of scores that are pooled already."""
    points = pd.DataFrame(rates(everything, _curve_levels(everything), confidence))
    # the TPR rises with the FPR, so the band may: it is widened, never narrowed, to do so
    points["low"], points["high"] = points["low"][::-1].cummin()[::-1], points["high"].cummax()
    return points.rename(columns={"value": "tpr", "at_fpr": "fpr"})[["fpr", "tpr", "low", "high", "certified"]]


def curve_points(scores: np.ndarray, is_member: np.ndarray) -> pd.DataFrame:
    """The points of `curve_band` without a band: fpr, tpr, certified."""
    everything = pool(scores, is_member)
    levels = _curve_levels(everything)
    ends = [everything.prefix(np.floor(level * everything.n_others + 1e-9)) for level in levels]
    tpr = np.append(0, np.cumsum(everything.is_member))[ends] / everything.n_members
    return pd.DataFrame({"fpr": levels, "tpr": tpr, "certified": everything.n_distinct_others * levels >= 3 - 1e-9})


def _curve_levels(scores: Pool) -> np.ndarray:
    """FPRs that are even on a log scale, and some that are even on a linear one."""
    return np.unique(np.concatenate([np.geomspace(1 / scores.n_others, 1, N_POINTS)[:-1], np.linspace(0.05, 1.0, 20)]))


def per_class(
    scores: np.ndarray, is_member: np.ndarray, labels: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> list[dict[str, Any]]:  # fmt: skip
    """AUC and TPR within each class of `labels` [N], with intervals; None where a class lacks members or non-members."""
    s, truth = np.atleast_2d(scores), np.atleast_2d(is_member)
    if np.shape(labels) != s.shape[1:]:
        raise ValueError(f"labels have shape {np.shape(labels)}; expected one for each of {s.shape[1]} samples")
    found = []
    for label in np.unique(labels):
        here = np.asarray(labels) == label
        found.append({"class": int(label), "n_samples": int(here.sum()), **within(s, truth, here, unit, group, fpr, confidence)})
    return found


def within(
    s: np.ndarray, truth: np.ndarray, here: np.ndarray, unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> dict[str, Any]:  # fmt: skip
    """AUC and TPR of scores [T, N] among the samples that are `here` [N], with intervals; None where members or non-members are lacking."""
    scored = truth[:, here][~np.isnan(s[:, here])]
    if scored.all() or not scored.any():
        return {"auc": None, "tpr": None}
    part = pool(s[:, here], truth[:, here], unit, None if group is None else np.asarray(group)[here])
    return {"auc": auc(part, confidence), "tpr": rates(part, [fpr], confidence)[0]}
