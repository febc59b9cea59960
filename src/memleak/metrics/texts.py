"""Controls of an audit of texts: do members differ from non-members in length, or for a model that never saw them, and how alike are the two sets?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from memleak.metrics import calibration, pooled
from memleak.metrics.clusters import pool
from memleak.metrics.intervals import holm

BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of containment


def length(sizes: Mapping[str, np.ndarray], is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, Any]:
    """Can members be told by their length alone? The AUC of each size (bytes, tokens) [N] with its interval; alarm at .001, two-sided.

    Attacks that divide by a length, and texts that are cut at the context, turn such a difference into a score.
    """
    measured = aucs(sizes, is_member, group)
    least = min(one["p"] for one in measured.values())
    return {"p": least, "alarm": least <= calibration.ALARM, "sizes": measured}


def placebo(reference_loss: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, Any]:
    """The loss attack on the reference model [N], which cannot have seen the members: AUC .5; alarm at .001, two-sided.

    Where it is not, the reference has seen members after all, or one of the two sets is the more ordinary.
    """
    found = _without_model(-np.asarray(reference_loss, dtype=np.float64), is_member, group)
    return found | {"alarm": found["p"] <= calibration.ALARM}


def aucs(values: Mapping[str, np.ndarray], is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
    """Of several numbers [N] each: how well members can be told by it, AUC with interval, and p, corrected by Holm for how many there are."""
    found = {name: _without_model(one, is_member, group) for name, one in values.items()}
    p = holm([one["p"] for one in found.values()])
    return {name: one | {"p": float(corrected)} for (name, one), corrected in zip(found.items(), p, strict=True)}


def _without_model(values: np.ndarray, is_member: np.ndarray, group: np.ndarray | None) -> dict[str, Any]:
    """AUC with interval, and p of a rank-sum test of groups, each by its mean.

    By their mean, since copies that stand on one side alone make its groups larger: as so many texts they would alarm where nothing differs.
    """
    s, truth = np.asarray(values, dtype=np.float64), np.asarray(is_member, dtype=bool)
    groups = np.arange(len(s)) if group is None else np.unique(group, return_inverse=True)[1]
    cells, there = 2 * groups + truth, np.isfinite(s)
    names, which = np.unique(cells[there], return_inverse=True)
    found = calibration.null(np.bincount(which, s[there]) / np.bincount(which), names % 2 == 1)
    return {"auc": pooled.auc(pool(s, truth, group=cells)), "p": found["p"]}


def excess(auc: Mapping[str, float], blind: Mapping[str, float]) -> dict[str, float]:
    """What an attack's AUC has above that of a classifier that never asks the model; both intervals added up, since they share texts."""
    return {
        "value": auc["value"] - blind["value"],
        "low": auc["low"] - blind["high"],
        "high": auc["high"] - blind["low"],
    }


def histogram(containment: np.ndarray) -> list[dict[str, Any]]:
    """How many non-members share which part of their word sequences with a member, [N] 0 to 1, in five bins and one for whole copies."""
    values = np.asarray(containment, dtype=np.float64)
    counts = np.histogram(values[values < 1], BINS)[0].tolist()
    rows = [{"low": low, "high": high, "n": n} for low, high, n in zip(BINS, BINS[1:], counts, strict=False)]
    return [*rows, {"low": 1.0, "high": 1.0, "n": int((values >= 1).sum())}]
