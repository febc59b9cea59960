"""The stages `fetch` (prepare a data set), `plan` (draw who trains on what, now that the data is there) and `features` (for the blind control)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic

from memleak import artefacts, data, params
from memleak.data import blind, columns
from memleak.designs import Audited, Roster, Shard, Task, audited, is_among, resolve_target, roster_of, rows_of, shard_of

GIVEN_ROUND = -1  # of a given model: of no unit of the references'


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
    known = columns.of_audit(dataset, audit.get("slices", ()), f"audits.{audit['audit']}.slices")
    samples = pd.concat([_samples(roster, dataset, known, is_population=name == "population") for name, roster in rosters])
    described = {key: dataset.facts[key] for key in ("name", "n", "n_classes", "shape", "class_names", "licence", "n_groups")}
    described |= {key: dataset.facts[key] for key in ("unit", "kind", "labelled", "vocabulary", "n_near_duplicates") if key in dataset.facts}
    facts = audit | {"targets": _targets(design, audit["seed"], dataset), "data": described, "n_samples": n_samples}
    if isinstance(design, params.Given):
        given = next(audited(asked, dataset) for asked in audit["asked"] if asked["samples"] == "given")
        rows = _given_models(audit, design, dataset)
        facts["parts"] = _parts(design, given, dataset)
        samples["is_audited"] = np.isin(samples["sample_id"], np.concatenate([given.members, given.non_members]))
    else:
        rows = _models(audit, getattr(design, "n_targets", 0), dataset, n_samples)
    table = pd.DataFrame(rows, columns=list(artefacts.PLAN_COLUMNS)).astype({"target": "string", "round": "int64"})
    artefacts.write_table(output, table, facts)
    artefacts.write_table(samples_output, samples.drop_duplicates(["sample_id", "is_population"]).sort_values(["is_population", "sample_id"]))
    return len(table)


def features(data_path: Path, samples_path: Path, output: Path) -> int:
    """Write what a classifier that never asks a model sees of the audited records, one row each. Returns the rows."""
    dataset, samples = data.read(data_path), artefacts.read_table(samples_path, ["sample_id", "source_id", "label", "group_id", "is_audited"])
    samples = samples[samples["is_audited"]].reset_index(drop=True)
    inputs = dataset.inputs[samples["source_id"].to_numpy()]
    seen = blind.features(inputs, samples["label"].to_numpy(), samples["group_id"].to_numpy())
    table = pd.DataFrame(seen, columns=[f"f{column}" for column in range(seen.shape[1])])
    form = pd.DataFrame({f"{artefacts.FORM}{name}": values for name, values in (blind.form(inputs) if dataset.is_text else {}).items()})
    artefacts.write_table(output, pd.concat([samples[["sample_id"]], table, form], axis=1))
    return len(table)


def _samples(roster: Roster, dataset: data.Dataset, known: dict[str, np.ndarray], *, is_population: bool) -> pd.DataFrame:
    """Samples that are asked about, one row each, with what is known of them."""
    # a canary that is a gradient equals nothing
    group_id = np.where(roster.source_id < 0, dataset.group_id.max() + 1 + roster.sample_id, dataset.group_id[roster.source_id])
    return pd.DataFrame({
        "sample_id": roster.sample_id, "source_id": roster.source_id, "label": roster.label, "group_id": group_id,
        "is_population": is_population, "is_audited": not is_population, **{name: values[roster.source_id] for name, values in known.items()},
    })  # fmt: skip


def _targets(design: params.Design, seed: int, dataset: data.Dataset) -> dict[str, dict[str, Any]]:
    """The records that a `pairs` design audits, resolved."""
    names = design.targets.names() if isinstance(design, params.Pairs) else []
    targets = {name: resolve_target(name, dataset, seed, getattr(design, "pool", None)) for name in names}
    return {
        name: {
            "sample_id": target.sample_id, "source_id": target.source_id, "kind": target.kind, "label": target.label,
            "true_label": int(dataset.labels[target.source_id]), "is_canary": target.is_canary,
            "n_twins": int((dataset.group_id == dataset.group_id[target.source_id]).sum()) - 1,
        }
        for name, target in targets.items()
    }  # fmt: skip


def _models(audit: dict[str, Any], n_targets: int, dataset: data.Dataset, n_samples: int) -> list[dict[str, Any]]:
    """The models that are trained, one row each; the first `n_targets` of a pool are audited."""
    rows: list[dict[str, Any]] = []
    for shard, task in _tasks(audit, dataset):
        members = np.zeros(n_samples, dtype=bool)
        members[np.concatenate([task.sample_ids, task.directions])] = True
        is_target = task.role == "holdout" or (task.role == "pool" and len(rows) < n_targets)
        rows.append(_row(task.model_id, shard.name, audit["recipe"], audit["seed"], members, task, is_target=is_target))
    return rows


def _given_models(audit: dict[str, Any], design: params.Given, dataset: data.Dataset) -> list[dict[str, Any]]:
    """The given model and its references, one row each. Whoever trained on a record knows those that equal it, in whatever part."""

    def knows(rows: np.ndarray) -> np.ndarray:
        return is_among(dataset.group_id, dataset.group_id[rows])

    found = [_row(audit["recipe"], "given", audit["recipe"], audit["seed"], knows(rows_of(dataset, [design.members])), None, is_target=True)]
    for shard, task in _tasks(audit, dataset):
        found.append(_row(task.model_id, shard.name, audit["references"], audit["seed"], knows(task.sample_ids), task, is_target=False))
    return found


def _tasks(audit: dict[str, Any], dataset: data.Dataset) -> Iterator[tuple[Shard, Task]]:
    for known in audit["shards"]:
        shard = shard_of(known)
        for task in shard.tasks(dataset):
            yield shard, task


def _row(model_id: str, shard: str, recipe: str, seed: int, members: np.ndarray, task: Task | None, *, is_target: bool) -> dict[str, Any]:
    """One model of the plan; `members` [samples] bool. Without a task it is a given one."""
    return {
        "model_id": model_id, "shard": shard, "recipe": recipe, "seed": seed, "round": task.round if task else GIVEN_ROUND,
        "role": task.role if task else "pool", "arm": task.arm if task else "given", "target": task.target.name if task and task.target else None,
        "is_target": is_target, "membership": np.packbits(members).tobytes(),
    }  # fmt: skip


def _parts(design: params.Given, given: Audited, dataset: data.Dataset) -> list[dict[str, Any]]:
    """What an audit of a given model is made of: each part's records, and how many of them are audited."""
    n_audited = {design.members: len(given.members), design.non_members: len(given.non_members)}
    return [
        {"name": name, "is_member": name == design.members, "length": len(rows_of(dataset, [name])), "n_audited": n_audited.get(name, 0)}
        for name in design.parts
    ]
