"""Thresholds, decisions and numbers of every audit but `pairs`: each audited model is the target in turn.

Thresholds come from mock targets: other models of the target's fold, scored with the very references that the
target is scored with. Of a given model, which was not trained as its references, they come from other non-members.
Nothing about a target, and nothing about a sample, decides about itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from memleak import artefacts
from memleak.attacks import pools
from memleak.attacks.pools import Models
from memleak.metrics import blind, calibration, compare, pooled, slices, texts, units
from memleak.metrics.audited import OF_UNIT, audited, worst
from memleak.metrics.intervals import models_for_level

# of exposed.csv, after unit and n_records where there are units
EXPOSED = ("sample_id", "source_id", "label", "n_holding", "n_detected", "rate", "low", "high", "p")
DECISION = {"attack": pa.string(), "target_id": pa.string(), "sample_id": pa.int64(), "score": pa.float64(), "says_member": pa.bool_(), "is_member": pa.bool_()}  # fmt: skip


def read(plan_path: Path, score_path: Path, columns: Sequence[str]) -> tuple[Models, np.ndarray, dict[str, np.ndarray]]:
    """The models, the audited samples' ids [N], and columns of the scores, [M, N] each.

    Where the data set names units, a sample is a unit: its id is that of its first record, its score their mean.
    """
    plan = artefacts.read_table(plan_path, ["model_id"])
    sample_id, scores = pools.read_scores(score_path, plan["model_id"].tolist(), columns)
    models, of_units = pools.read_models(plan_path, sample_id), units.read(plan_path)
    if of_units is None:
        return models, sample_id, scores
    units.check(of_units, sample_id, score_path)
    return of_units.models(models), of_units.table["sample_id"].to_numpy(), {name: of_units.mean(values) for name, values in scores.items()}


def threshold(plan_path: Path, score_path: Path, attack: dict[str, Any], output: Path) -> int:
    """Write the score beyond which each target is said to have trained on a sample, at FPR alpha. Returns the targets."""
    models, _, scores = read(plan_path, score_path, ["score", "folded"])
    audit, found = audited(plan_path), {}
    for target in models.targets.tolist():
        judged = audit.judged(target, scores, attack["alpha"])
        cut = None if judged.is_cross_fitted or np.isinf(judged.cuts[0]) else float(judged.cuts[0])
        found[str(models.model_id[target])] = {"threshold": cut, "n_fitted": judged.n_fitted, "is_cross_fitted": judged.is_cross_fitted}
    artefacts.write_json(output, {"attack": attack, "models_for_level": models_for_level(attack["alpha"]), "targets": found})
    return len(found)


def decide(plan_path: Path, threshold_paths: Sequence[Path], score_paths: Sequence[Path], output: Path) -> int:
    """Apply every attack's thresholds, one row a (target, sample), the truth beside it. Returns the rows."""
    audit, rows, of_units = audited(plan_path), 0, units.read(plan_path)
    more = {} if of_units is None else {name: of_units.table[name].to_numpy() for name in OF_UNIT}
    schema = pa.schema(DECISION | {name: OF_UNIT[name] for name in more})
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for threshold_path, score_path in zip(threshold_paths, score_paths, strict=True):
            fitted = artefacts.read_json(threshold_path)
            models, sample_id, scores = read(plan_path, score_path, ["score", "folded"])
            for target in models.targets.tolist():
                judged = audit.judged(target, scores, fitted["attack"]["alpha"])
                own, said = judged.scores, judged.placed > judged.cuts
                if np.isnan(own).all():
                    continue
                columns = {"attack": [fitted["attack"]["id"]] * len(own), "target_id": [models.model_id[target]] * len(own), "sample_id": sample_id}
                writer.write_table(pa.table(columns | {"score": own, "says_member": said, "is_member": models.is_member[target]} | more, schema=schema))  # fmt: skip
                rows += len(own)
    return rows


def measure(
    plan_path: Path, samples_path: Path, thresholds: dict[str, Any], score_paths: Sequence[Path], settings: dict[str, Any], models_found: dict[str, Any]
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """All numbers of the report, each with its interval and counts; exposure by sample; ROC points of every attack."""
    plan, headline = artefacts.read_facts(plan_path), settings["headline"]
    _, population = pools.read_samples(samples_path)
    audit, is_balanced = audited(plan_path, samples_path), plan.get("is_balanced", False)
    samples = audit.samples
    own, attacks, nulls = {}, {}, {}
    chosen: dict[str, np.ndarray] = {}
    named = zip(thresholds, score_paths, strict=True)
    for name, path in tqdm(list(named), desc=plan["audit"], unit="attack", disable=None):  # one attack's scores in memory at a time
        scores = read(plan_path, path, artefacts.POOL_SCORE_COLUMNS[2:])[2]
        own[name] = scores["score"][audit.rows]
        attacks[name] = audit.attack(scores, thresholds[name]["attack"], artefacts.read_facts(path), is_headline=name == headline)
        nulls[name] = audit.null(scores["folded"], is_balanced=is_balanced)
        chosen = scores if name == headline else chosen
    exposed = audit.exposure(chosen["folded"], thresholds[headline])
    n_references = [fitted["attack"].get("references") for fitted in thresholds.values()]
    metrics = {
        "audit": plan["audit"],
        "kind": plan["design"]["kind"],
        "headline": headline,
        "alpha": thresholds[headline]["attack"]["alpha"],
        "design": plan["design"],
        "recipe": plan["recipe"],
        "data": plan["data"],
        "seed": plan["seed"],
        "models": models_found,
        "n_targets": len(audit.rows),
        "n_samples": len(samples),
        "n_population": len(population),
        "attacks": attacks,
        "comparison": compare.against_headline(own, headline, audit.truth, audit.unit, audit.group) if len(own) > 1 else {},
        "agreement": {name: calibration.agreement(own[headline], scores, audit.unit) for name, scores in own.items() if name != headline},
        "classes": None  # of canaries that are gradients, and of texts without labels
        if plan["design"].get("space") == "gradient" or plan["data"]["n_classes"] == 1
        else pooled.per_class(own[headline], audit.truth, samples["label"].to_numpy(), audit.unit, audit.group),
        # of a balanced audit the scores are made with equal counts, and those of a given model's references are equal
        "controls": {"null": worst(nulls), "count": None if is_balanced or audit.models.is_given else worst(audit.counts(n_references))},
        "thresholds_from": "other non-members" if audit.is_cross_fitted else "mock targets",
        "exposure": audit.exposure_summary(exposed, thresholds[headline]["attack"]["alpha"]),
        "usage": audit.usage(chosen["score"], plan["seed"]),
        "epsilon": audit.epsilon(own[headline], plan["design"]["kind"], settings["epsilon"]),
    }
    if "unit" in samples:
        metrics["unit"] = {**plan["data"]["unit"], "n_records": int(samples["n_records"].sum()), "largest": int(samples["n_records"].max())}
    if plan.get("slices"):
        of_columns = audit.columns(plan["slices"], plan["data"]["class_names"])
        metrics["slices"] = slices.measure(own[headline], audit.truth, of_columns, audit.unit, audit.group, metrics["alpha"])
    metrics |= {key: plan[key] for key in ("parts", "references", "is_balanced", "notes") if key in plan}
    curves = [pooled.curve_band(own[headline], audit.truth, audit.unit, audit.group).assign(subject=headline)]
    curves += [
        pooled.curve_points(scores, audit.truth).assign(subject=name, low=np.nan, high=np.nan) for name, scores in own.items() if name != headline
    ]
    return metrics, exposed, pd.concat(curves, ignore_index=True)


def given_controls(plan_path: Path, samples_path: Path, features_path: Path, score_path: Path, signal_paths: Sequence[Path]) -> dict[str, Any]:
    """Controls of a given model, whose members nobody drew: can they be told without it, and do the metrics hold their level?"""
    samples, seen = units.read_samples(plan_path, samples_path), pd.read_parquet(features_path)
    if not np.array_equal(seen["sample_id"], samples["sample_id"]):
        raise artefacts.ArtefactError(f"{features_path}: speaks of other samples than the plan; delete it and run again")
    is_member = pools.read_models(plan_path, samples["sample_id"].to_numpy()).is_member[0]
    audit, scores = audited(plan_path, samples_path), read(plan_path, score_path, ["score"])[2]
    group = samples["group_id"].to_numpy()
    written = [name for name in seen if name.startswith(artefacts.FORM)]
    looks = seen.drop(columns=["sample_id", *written]).to_numpy()
    # near duplicates on one side alone make its groups larger, which is a difference, and none that a model of texts can see
    first = np.unique(2 * group + is_member, return_index=True)[1] if written else np.arange(len(looks))
    form = {name.removeprefix(artefacts.FORM): seen[name].to_numpy() for name in written}
    return {
        "blind": blind.measure(looks[first], is_member[first], group[first]),
        "permuted": blind.permuted(scores["score"][audit.rows[0]], audit.truth[0], audit.group),
        **({"form": texts.form(form, is_member, group)} if form else {}),
        **_text_controls(artefacts.read_facts(plan_path)["recipe"], samples_path, signal_paths, samples, is_member),
    }


def _text_controls(model: str, samples_path: Path, signal_paths: Sequence[Path], samples: pd.DataFrame, is_member: np.ndarray) -> dict[str, Any]:
    """Of a language model: can members be told by their length alone, or by its reference, which has not seen them? Nothing of other models."""
    path = next(path for path in signal_paths if any(one["model_id"] == model for one in artefacts.read_facts(path)["models"]))
    columns = artefacts.columns_of(path)
    if "n_tokens" not in columns:
        return {}
    asked = pools.read_samples(samples_path)[0]["sample_id"].to_numpy()  # what references know besides included
    names = ["n_bytes", "n_tokens", *(["reference_log_prob"] if "reference_log_prob" in columns else [])]
    said = {name: values[0, :, 0] for name, values in pools.read_signals([path], [model], asked, names).items()}
    said = {name: values[np.isin(asked, samples["sample_id"])].astype(np.float64) for name, values in said.items()}
    group = samples["group_id"].to_numpy()
    found: dict[str, Any] = {"length": texts.length({"bytes": said["n_bytes"], "tokens": said["n_tokens"]}, is_member, group)}
    if "reference_log_prob" in said:
        found["placebo"] = texts.placebo(-np.nanmean(said["reference_log_prob"], axis=-1), is_member, group)
    return found


def flagged(exposed: pd.DataFrame) -> pd.DataFrame:
    """The exposed samples, or units, of a table of all."""
    columns = [*(name for name in OF_UNIT if name in exposed), *EXPOSED]
    return exposed.loc[exposed["bh"].to_numpy(dtype=bool), columns]
