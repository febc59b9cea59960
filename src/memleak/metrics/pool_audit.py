"""Thresholds, decisions and numbers of an audit in which every model is the target in turn (`halves`, `canaries`).

Thresholds come from mock targets: the models of the next unit, scored with the very references that the target is
scored with when that unit is left out. Nothing about a target decides about itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from memleak import artefacts
from memleak.attacks import pools
from memleak.attacks.pools import Models
from memleak.metrics import calibration, compare, epsilon, exposure, pooled, usage
from memleak.metrics.intervals import models_for_level

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)  # false-positive rates that are reported
DECISION = {"attack": pa.string(), "target_id": pa.string(), "sample_id": pa.int64(), "score": pa.float64(), "says_member": pa.bool_(), "is_member": pa.bool_()}  # fmt: skip


def read(plan_path: Path, score_path: Path, columns: Sequence[str]) -> tuple[Models, np.ndarray, dict[str, np.ndarray]]:
    """The models, the audited samples' ids [N], and columns of the scores, [M, N] each."""
    plan = artefacts.read_table(plan_path, ["model_id"])
    sample_id, scores = pools.read_scores(score_path, plan["model_id"].tolist(), columns)
    return pools.read_models(plan_path, sample_id), sample_id, scores


def mocks_of(models: Models, target: int) -> np.ndarray:
    """Rows of a target's mock targets: the models of the next unit; none where there are fewer than three units."""
    if len(models.units) < 3:
        return np.empty(0, dtype=int)
    return np.flatnonzero(models.unit == models.next_unit(int(models.unit[target])))


def threshold(plan_path: Path, score_path: Path, attack: dict[str, Any], output: Path) -> int:
    """Write the score beyond which each target is said to have trained on a sample, at FPR alpha. Returns the targets."""
    models, _, scores = read(plan_path, score_path, ["without_previous"])
    found = {}
    for target in models.targets:
        mocks = mocks_of(models, target)
        others = scores["without_previous"][mocks][~models.is_member[mocks]]
        others = others[~np.isnan(others)]
        cut = calibration.threshold(others, attack["alpha"]) if len(others) else np.inf
        found[str(models.model_id[target])] = {"threshold": None if np.isinf(cut) else cut, "n_fitted": len(others)}
    artefacts.write_json(output, {"attack": attack, "models_for_level": models_for_level(attack["alpha"]), "targets": found})
    return len(found)


def decide(plan_path: Path, threshold_paths: Sequence[Path], score_paths: Sequence[Path], output: Path) -> int:
    """Apply every attack's thresholds, one row a (target, sample), the truth beside it. Returns the rows."""
    rows = 0
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, pa.schema(DECISION), compression="zstd") as writer:
        for threshold_path, score_path in zip(threshold_paths, score_paths, strict=True):
            fitted = artefacts.read_json(threshold_path)
            models, sample_id, scores = read(plan_path, score_path, ["without_next"])
            for target in models.targets:
                cut, own = fitted["targets"][models.model_id[target]]["threshold"], scores["without_next"][target]
                if np.isnan(own).all():
                    continue
                said = own > cut if cut is not None else np.zeros(len(own), dtype=bool)
                columns = {"attack": [fitted["attack"]["id"]] * len(own), "target_id": [models.model_id[target]] * len(own), "sample_id": sample_id}
                writer.write_table(pa.table(columns | {"score": own, "says_member": said, "is_member": models.is_member[target]}, schema=pa.schema(DECISION)))  # fmt: skip
                rows += len(own)
    return rows
