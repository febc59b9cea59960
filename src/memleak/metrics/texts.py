"""Controls of an audit of texts: do members differ from non-members in length, in how they are written, or for a model that never saw them, and how alike are the two sets?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from memleak.metrics import calibration, pooled
from memleak.metrics.clusters import pool
from memleak.metrics.intervals import holm

BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of containment
EXPECTED = 10  # of the smaller side who have what is rare; with fewer the rank-sum test is no normal variable (Cochran 1954 asks for 5)


def length(sizes: Mapping[str, np.ndarray], is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, Any]:
    """Can members be told by their length alone? The AUC of each size (bytes, tokens) [N] with its interval; alarm at .001, two-sided.

    Attacks that divide by a length, and texts that are cut at the context, turn such a difference into a score. Bytes alone alarm where they
    are known: a tokenizer that was trained on the members cuts them into fewer tokens (`tokens_differ`), which is no fault of the lists.
    """
    measured = aucs(sizes, is_member, group)
    judged = measured["bytes"] if "bytes" in measured else min(measured.values(), key=lambda one: one["p"])
    is_alarm = judged["p"] <= calibration.ALARM
    tokens_differ = not is_alarm and "tokens" in measured and measured["tokens"]["p"] <= calibration.ALARM
    return {"p": judged["p"], "alarm": is_alarm, "tokens_differ": tokens_differ, "sizes": measured}


def form(columns: Mapping[str, np.ndarray], is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, Any]:
    """Can members be told by how they are written? The AUC of each column [N], such as the share of capitals; alarm at .001, two-sided.

    One such habit is easily lost among the hundred columns of the blind classifier. Of what few texts have, p is no smaller than that of
    Fisher's exact test of who has it.
    """
    found = {name: _without_model(values, is_member, group) for name, values in columns.items()}
    exact = {name: _of_few(*_by_group(values, is_member, group)) for name, values in columns.items()}
    measured = _corrected({name: one | {"p": max(one["p"], exact[name])} for name, one in found.items()})
    least = min(one["p"] for one in measured.values())
    return {"p": least, "alarm": least <= calibration.ALARM, "columns": measured}


def placebo(reference_loss: np.ndarray, is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, Any]:
    """The loss attack on the reference model [N], which cannot have seen the members: AUC .5; alarm at .001, two-sided.

    Where it is not, the reference has seen members after all, or one of the two sets is the more ordinary.
    """
    found = _without_model(-np.asarray(reference_loss, dtype=np.float64), is_member, group)
    return found | {"alarm": found["p"] <= calibration.ALARM}


def aucs(values: Mapping[str, np.ndarray], is_member: np.ndarray, group: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
    """Of several numbers [N] each: how well members can be told by it, AUC with interval, and p, corrected by Holm for how many there are."""
    return _corrected({name: _without_model(one, is_member, group) for name, one in values.items()})


def _corrected(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same with p corrected by Holm."""
    p = holm([one["p"] for one in found.values()])
    return {name: one | {"p": float(corrected)} for (name, one), corrected in zip(found.items(), p, strict=True)}


def _without_model(values: np.ndarray, is_member: np.ndarray, group: np.ndarray | None) -> dict[str, Any]:
    """AUC with interval, and p of a rank-sum test of groups, each by its mean.

    By their mean, since copies that stand on one side alone make its groups larger: as so many texts they would alarm where nothing differs.
    """
    s, truth = np.asarray(values, dtype=np.float64), np.asarray(is_member, dtype=bool)
    found = calibration.null(*_by_group(s, truth, group))
    return {"auc": pooled.auc(pool(s, truth, group=_cells(truth, group))), "p": found["p"]}


def _cells(is_member: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """Groups, those with members and non-members taken apart, [N]."""
    return 2 * (np.arange(len(is_member)) if group is None else np.unique(group, return_inverse=True)[1]) + is_member


def _by_group(values: np.ndarray, is_member: np.ndarray, group: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each group's known values, and whether it is one of members."""
    there = np.isfinite(values)
    names, which = np.unique(_cells(np.asarray(is_member, dtype=bool), group)[there], return_inverse=True)
    return np.bincount(which, values[there]) / np.bincount(which), names % 2 == 1


def _of_few(values: np.ndarray, is_member: np.ndarray) -> float:
    """p of Fisher's exact test of who differs from the commonest value; 0, which says nothing, where so many do that ranks are to be trusted."""
    kinds, counts = np.unique(values, return_counts=True)
    differs = values != kinds[counts.argmax()]
    n, n_members = len(values), int(is_member.sum())
    if 2 * differs.sum() > n or differs.sum() * min(n_members, n - n_members) / n >= EXPECTED:
        return 0.0
    table = [[int((differs & side).sum()), int((~differs & side).sum())] for side in (is_member, ~is_member)]
    return float(stats.fisher_exact(table).pvalue)


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
