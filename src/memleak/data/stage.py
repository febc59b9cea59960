"""The stages `fetch` (prepare a data set) and `plan` (draw who trains on what, now that the data is there)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memleak import artefacts, data, params
from memleak.designs import Rounds, resolve_target


def fetch(dataset: params.Dataset, output: Path) -> dict[str, Any]:
    """Prepare a data set and write its description as `output`."""
    return data.prepare(dataset, output)


def plan(data_path: Path, audit: dict[str, Any], output: Path) -> int:
    """Write who trains on what, one row a model, with the resolved audit beside it. Returns the number of models."""
    dataset = data.read(data_path)
    design = params.Pairs(**audit["design"])
    params.check_sizes(f"audits.{audit['audit']}.design", design, len(dataset.labels))
    targets = {name: resolve_target(name, dataset, audit["seed"], design.pool) for name in design.targets.names()}
    n_samples = max([len(dataset.labels), *(target.sample_id + 1 for target in targets.values())])
    rows = []
    for shard in audit["shards"]:
        rounds = Rounds(**{"target": None, **shard})
        for task in rounds.tasks(dataset):
            members = np.zeros(n_samples, dtype=bool)
            members[task.sample_ids] = True
            rows.append({
                "model_id": task.model_id, "shard": rounds.name, "recipe": audit["recipe"], "seed": audit["seed"],
                "round": task.round, "role": task.role, "arm": task.arm, "target": rounds.target,
                "is_target": task.role == "holdout", "membership": np.packbits(members).tobytes(),
            })  # fmt: skip
    resolved = {
        name: {
            "sample_id": target.sample_id, "source_id": target.source_id, "kind": target.kind, "label": target.label,
            "true_label": int(dataset.labels[target.source_id]), "is_canary": target.is_canary,
            "n_twins": int((dataset.group_id == dataset.group_id[target.source_id]).sum()) - 1,
        }
        for name, target in targets.items()
    }  # fmt: skip
    described = {key: dataset.facts[key] for key in ("name", "n", "n_classes", "shape", "class_names", "licence", "n_groups")}
    facts = audit | {"targets": resolved, "data": described, "n_samples": n_samples}
    table = pd.DataFrame(rows, columns=list(artefacts.PLAN_COLUMNS)).astype({"target": "string", "round": "int64"})
    artefacts.write_table(output, table, facts)
    return len(table)
