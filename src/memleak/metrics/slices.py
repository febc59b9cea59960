"""The headline attack within parts of the data: within each value of a column, or each quarter of a column of many numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from memleak.metrics import compare, pooled
from memleak.metrics.clusters import pool
from memleak.metrics.intervals import holm

AT_LEAST = 20  # distinct members, and non-members, of a slice that is given figures
MOST_NUMBERS = 12  # a column with more different numbers is cut at its quartiles
MISSING = "missing"


def is_measure(values: pd.Series) -> bool:
    """Whether a column holds so many different numbers that it is cut into quarters."""
    return values.dtype.kind in "iuf" and values.nunique() > MOST_NUMBERS


def parts_of(values: pd.Series) -> dict[str, np.ndarray]:
    """Which samples are in each slice of a column, [N] bool each: by value, or by quarter, in rising order, the missing last.

    A quarter is named by the lowest and the highest value in it. Samples of equal value are in one quarter, so quarters may
    differ in size, and there may be fewer.
    """
    there = values.notna().to_numpy()
    if is_measure(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        cuts = np.unique(np.quantile(numbers[there], (0.25, 0.5, 0.75)))
        code = np.where(there, np.searchsorted(cuts, numbers, side="left"), -1)
        found = {f"{numbers[code == k].min():g} to {numbers[code == k].max():g}": code == k for k in np.unique(code[there])}
    else:
        texts = np.array([_text(value) for value in values], dtype=object)
        found = {_text(value): texts == _text(value) for value in values[there].sort_values().unique()}
    return found if there.all() else found | {MISSING: ~there}


def classes(labels: pd.Series, names: Sequence[str] | None) -> pd.Series:
    """Labels [N] as the names of their classes, in the order of labels; numbers where there are no names, or not one for each. -1: not known."""
    numbers = range(int(labels.max()) + 1)
    known = [str(names[k]) if names and k < len(names) else str(k) for k in numbers]
    known = known if len(set(known)) == len(known) else [str(k) for k in numbers]
    return pd.Series(pd.Categorical.from_codes(labels.to_numpy(), known, ordered=True))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def measure(
    scores: np.ndarray, is_member: np.ndarray, columns: Mapping[str, pd.Series], unit: np.ndarray | None = None, group: np.ndarray | None = None,
    fpr: float = 0.01, confidence: float = 0.95,
) -> list[dict[str, Any]]:  # fmt: skip
    """AUC and TPR at `fpr` of scores [T, N] within each slice of each column [N], with intervals.

    `difference`: the slice's AUC less that of all other samples, with its p; both are pools of the same targets, so
    what units of models have in common goes out (two-way clusters, as for two attacks). `p_holm` corrects for all slices
    of all columns. Slices of fewer than 20 distinct members or non-members are counted and given no figure.
    """
    s, truth = np.atleast_2d(scores), np.atleast_2d(is_member)
    found: list[dict[str, Any]] = []
    for column, values in columns.items():
        if len(values) != s.shape[1]:
            raise ValueError(f"slices: column {column} has {len(values)} values; expected one for each of {s.shape[1]} samples")
        parts = parts_of(values)
        slices = [{"value": value, **_one(s, truth, here, unit, group, fpr, confidence)} for value, here in parts.items()]
        found.append({"column": column, "is_measure": is_measure(values), "slices": slices})
    tested = [one["difference"] for column in found for one in column["slices"] if one["difference"]]
    for difference, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        difference["p_holm"] = float(p)
    return found


def _one(
    s: np.ndarray, truth: np.ndarray, here: np.ndarray, unit: np.ndarray | None, group: np.ndarray | None, fpr: float, confidence: float
) -> dict[str, Any]:
    members, others = _n_distinct(s, truth, here)
    counts: dict[str, Any] = {"n_samples": int(here.sum()), "n_members": members, "n_non_members": others}
    if min(members, others) < AT_LEAST:
        return counts | {"auc": None, "tpr": None, "difference": None}
    has_rest = min(_n_distinct(s, truth, ~here)) >= AT_LEAST
    return counts | {
        **pooled.within(s, truth, here, unit, group, fpr, confidence),
        "difference": _difference(s, truth, here, unit, group, confidence) if has_rest else None,
    }


def _n_distinct(s: np.ndarray, truth: np.ndarray, here: np.ndarray) -> tuple[int, int]:
    """Samples of a slice that some target holds, and those that some target does not."""
    there = ~np.isnan(s[:, here])
    return int((truth[:, here] & there).any(axis=0).sum()), int((~truth[:, here] & there).any(axis=0).sum())


def _difference(
    s: np.ndarray, truth: np.ndarray, here: np.ndarray, unit: np.ndarray | None, group: np.ndarray | None, confidence: float
) -> dict[str, float]:
    # masked, not cut: the two pools count units and groups alike
    inside, outside = (pool(np.where(part, s, np.nan), truth, unit, group) for part in (here, ~here))
    return compare._auc_difference(inside, outside, confidence)
