"""The stages `fetch` (prepare a data set) and `plan` (draw who trains on what, now that the data is there)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic

from memleak import artefacts, data, params
from memleak.designs import resolve_target, roster_of, shard_of


def fetch(dataset: params.Dataset, output: Path) -> dict[str, Any]:
    """Prepare a data set and write its description as `output`."""
    return data.prepare(dataset, output)


def plan(data_path: Path, audit: dict[str, Any], output: Path, samples_output: Path) -> int:
    """Write who trains on what, one row a model, with the resolved audit beside it, and all samples that are asked about.

    Returns the number of models.
    """
    dataset = data.read(data_path)
    design = pydantic.TypeAdapter(params.Design).validate_python(audit["design"])
    params.check_sizes(f"audits.{audit['audit']}.design", design, len(dataset.labels))
    rosters = [(asked["samples"], roster_of(asked, dataset)) for asked in audit["asked"]]
    n_samples = max([len(dataset.labels), *(int(roster.sample_id.max()) + 1 for _, roster in rosters if len(roster))])
    rows: list[dict[str, Any]] = []
    n_targets = getattr(design, "n_targets", 0)  # of a pool: its first models
    for known in audit["shards"]:
        shard = shard_of(known)
        for task in shard.tasks(dataset):
            members = np.zeros(n_samples, dtype=bool)
            members[task.sample_ids] = True
            rows.append({
                "model_id": task.model_id, "shard": shard.name, "recipe": audit["recipe"], "seed": audit["seed"],
                "round": task.round, "role": task.role, "arm": task.arm, "target": task.target.name if task.target else None,
                "is_target": task.role == "holdout" or (task.role == "pool" and len(rows) < n_targets),
                "membership": np.packbits(members).tobytes(),
            })  # fmt: skip
    targets = {name: resolve_target(name, dataset, audit["seed"], design.pool) for name in design.targets.names()} if design.kind == "pairs" else {}
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
    asked = pd.concat([
        pd.DataFrame({
            "sample_id": roster.sample_id, "source_id": roster.source_id, "label": roster.label, "group_id": dataset.group_id[roster.source_id],
            "is_population": name == "population",
        })
        for name, roster in rosters
    ])  # fmt: skip
    artefacts.write_table(samples_output, asked.drop_duplicates(["sample_id", "is_population"]).sort_values(["is_population", "sample_id"]))
    return len(table)
