"""Anybody's scores: read, checked, and measured with the same statistics as an audit's.

A table has `score` (higher: rather a member) and `is_member`; with `target_id` scores of one model depend on each
other, with `sample_id` those of one sample do, and intervals know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from memleak.metrics import clusters, pooled

NAMED = 3  # wrong values that an error shows


class ScoresError(ValueError):
    """A table of scores that cannot be measured; the text says what was found and what is expected."""


@dataclass(frozen=True)
class Scores:
    """Scores of targets on samples, one row each, [S]; target and sample are codes from 0, or None where they are not told."""

    score: np.ndarray
    is_member: np.ndarray
    target: np.ndarray | None = None
    sample: np.ndarray | None = None

    @property
    def dependence(self) -> str:
        """What the intervals take to depend on each other, as a sentence."""
        n = f"{len(self.score):,} scores"
        if self.target is None and self.sample is None:
            return f"{n}; intervals take them to be independent and are conditional on the model that they are of."
        parts = [f"{_count(codes):,} {name}" for codes, name in ((self.target, "targets"), (self.sample, "samples")) if codes is not None]
        known = " and ".join(name for codes, name in ((self.target, "target"), (self.sample, "sample")) if codes is not None)
        one = self.target is None or _count(self.target) == 1
        tail = "are conditional on the one model that they are of" if one else "speak of models like these"
        return f"{n} of {' and '.join(parts)}; intervals know that scores of one {known} depend on each other, and {tail}."


def _count(codes: np.ndarray) -> int:
    return int(codes.max()) + 1


def read(path: Path) -> Scores:
    """Scores from Parquet or CSV with the columns score, is_member and, if known, target_id and sample_id."""
    table = _table(path)
    missing = [name for name in ("score", "is_member") if name not in table]
    if missing:
        raise ScoresError(
            f"{path}: has no column {' and '.join(missing)}; found {', '.join(map(str, table)) or 'none'}; expected score and is_member"
        )
    score, truth = _numbers(table["score"], path), _truth(table["is_member"], path)
    codes = {name: _codes(table[name], path) if name in table else None for name in ("target_id", "sample_id")}
    found = Scores(score, truth, codes["target_id"], codes["sample_id"])
    _check(found, table, path)
    return found


def _table(path: Path) -> pd.DataFrame:
    wanted = ("score", "is_member", "target_id", "sample_id")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            names = pq.read_schema(path).names
            return pq.read_table(path, columns=[name for name in names if name in wanted] or names).to_pandas()
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    except FileNotFoundError:
        raise ScoresError(f"{path}: there is no such file (looked in {Path.cwd()})") from None
    except (pa.ArrowInvalid, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise ScoresError(f"{path}: truncated or not a table ({str(error).splitlines()[0]}); expected Parquet or CSV") from None
    raise ScoresError(f"{path}: a file ending in '{path.suffix}'; expected .parquet or .csv")


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        shown = ", ".join(f"{column.iloc[i]!r} in row {i}" for i in wrong[:NAMED])
        raise ScoresError(f"{path}: {len(wrong):,} of {len(values):,} scores are not finite numbers ({shown}); drop those rows or mend them")
    return values


def _truth(column: pd.Series, path: Path) -> np.ndarray:
    if column.dtype == bool:
        return column.to_numpy()
    texts = column.astype("string").str.strip().str.lower().str.removesuffix(".0")
    values = texts.map({"true": 1, "false": 0, "1": 1, "0": 0})
    wrong = np.flatnonzero(values.isna())
    if len(wrong):
        shown = ", ".join(f"{column.iloc[i]!r} in row {i}" for i in wrong[:NAMED])
        raise ScoresError(f"{path}: is_member is neither true or false nor 1 or 0 in {len(wrong):,} rows ({shown})")
    return values.to_numpy(dtype=bool)


def _codes(column: pd.Series, path: Path) -> np.ndarray:
    codes, _ = pd.factorize(column)
    if (codes < 0).any():
        raise ScoresError(f"{path}: {column.name} is missing in {int((codes < 0).sum()):,} rows; fill it, or leave the whole column out")
    return codes


def _check(found: Scores, table: pd.DataFrame, path: Path) -> None:
    n_members, n = int(found.is_member.sum()), len(found.score)
    if n_members in (0, n):
        raise ScoresError(f"{path}: {n_members:,} scores of members and {n - n_members:,} of non-members; one or more of each are expected")
    if found.sample is not None and found.target is not None:
        twice = table.duplicated(["target_id", "sample_id"])
        if twice.any():
            row = table[twice].iloc[0]
            raise ScoresError(
                f"{path}: {int(twice.sum()):,} rows repeat a target and sample (target {row['target_id']}, sample {row['sample_id']}); average them, so that there is one score each"
            )


def pool(found: Scores) -> clusters.Pool:
    """The scores in descending order with their clusters: units are targets, groups are samples."""
    order = np.argsort(-found.score, kind="stable")
    n, truth = len(order), found.is_member[order]
    targets, n_targets = (np.zeros(n, dtype=int), 1) if found.target is None else (found.target[order], _count(found.target))
    samples, n_groups = (np.arange(n), n) if found.sample is None else (found.sample[order], _count(found.sample))
    # a cell is a target and a sample at once: of one target its samples, of several each score
    cells, n_cells = (samples, n_groups) if n_targets == 1 else (np.arange(n), n)
    return clusters.Pool(
        scores=found.score[order],
        is_member=truth,
        target=targets,
        units=clusters.Clusters.of(targets, n_targets, truth),
        groups=clusters.Clusters.of(samples, n_groups, truth),
        cells=clusters.Clusters.of(cells, n_cells, truth),
        n_units=n_targets,
        n_targets=n_targets,
        n_samples=n if n_targets == 1 else n_groups,  # a sample that one target has several scores of counts as often
    )


def measure(found: Scores, levels: Sequence[float] = pooled.LEVELS, confidence: float = 0.95) -> tuple[dict[str, Any], pd.DataFrame]:
    """AUC, TPR at each FPR, balanced accuracy and advantage, each with its interval; and points of the ROC with their band."""
    everything = pool(found)
    balanced_accuracy, advantage = pooled.best_threshold(everything, confidence)
    auc = pooled.auc(everything, confidence)
    metrics = {
        "n_scores": len(found.score),
        "n_members": everything.n_members,
        "n_non_members": everything.n_others,
        "n_targets": everything.n_targets if found.target is not None else None,
        "n_samples": _count(found.sample) if found.sample is not None else None,
        "dependence": found.dependence,
        "auc": auc,
        "rates": pooled.rates(everything, levels, confidence),
        "balanced_accuracy": balanced_accuracy,
        "advantage": advantage,
        "warnings": _warnings(auc, everything),
    }
    return metrics, pooled.band(everything, confidence)


def _warnings(auc: dict[str, float], everything: clusters.Pool) -> list[str]:
    found = []
    if auc["high"] < 0.5:
        found.append(
            f"The AUC is {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}], worse than guessing: higher scores must mean rather a member; if they are losses, change their sign."
        )
    if len(everything.ends) < 10:
        found.append(f"There are only {len(everything.ends)} different scores: most false-positive rates cannot be reached, see the false positives.")
    return found
