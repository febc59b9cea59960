"""Thresholds, decisions and numbers of an audit in which every model is the target in turn (`halves`, `canaries`).

Thresholds come from mock targets: other models of the target's fold, scored with the very references that the
target is scored with. Nothing about a target decides about itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from memleak import artefacts, randomness
from memleak.attacks import pools
from memleak.attacks.pools import Models
from memleak.metrics import calibration, compare, epsilon, exposure, pooled, usage
from memleak.metrics.intervals import holm, models_for_level, proportion

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)  # false-positive rates that are reported
CALIBRATED = (0.1, 0.01, 0.001)  # those for which thresholds are taken from mock targets
N_MOST_EXPOSED = 20
USAGE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
USAGE_SET = 500  # samples of a set whose use is estimated
USAGE_TARGETS = 8  # models that this is tried on, at most
DECISION = {"attack": pa.string(), "target_id": pa.string(), "sample_id": pa.int64(), "score": pa.float64(), "says_member": pa.bool_(), "is_member": pa.bool_()}  # fmt: skip


def read(plan_path: Path, score_path: Path, columns: Sequence[str]) -> tuple[Models, np.ndarray, dict[str, np.ndarray]]:
    """The models, the audited samples' ids [N], and columns of the scores, [M, N] each."""
    plan = artefacts.read_table(plan_path, ["model_id"])
    sample_id, scores = pools.read_scores(score_path, plan["model_id"].tolist(), columns)
    return pools.read_models(plan_path, sample_id), sample_id, scores


def threshold(plan_path: Path, score_path: Path, attack: dict[str, Any], output: Path) -> int:
    """Write the score beyond which each target is said to have trained on a sample, at FPR alpha. Returns the targets."""
    models, _, scores = read(plan_path, score_path, ["folded"])
    found = {}
    for target in models.targets.tolist():
        cut, n_fitted = threshold_of(models, target, scores["folded"], attack["alpha"])
        found[str(models.model_id[target])] = {"threshold": None if np.isinf(cut) else cut, "n_fitted": n_fitted}
    artefacts.write_json(output, {"attack": attack, "models_for_level": models_for_level(attack["alpha"]), "targets": found})
    return len(found)


def threshold_of(models: Models, target: int, folded: np.ndarray, fpr: float) -> tuple[float, int]:
    """A target's threshold, infinite where it has too few mock targets, and the number of scores that it was set on."""
    mocks = models.mocks(target)
    others = folded[mocks][~models.is_member[mocks]]
    others = others[~np.isnan(others)]
    return (calibration.threshold(others, fpr) if len(others) else np.inf), len(others)


def decide(plan_path: Path, threshold_paths: Sequence[Path], score_paths: Sequence[Path], output: Path) -> int:
    """Apply every attack's thresholds, one row a (target, sample), the truth beside it. Returns the rows."""
    rows = 0
    with artefacts.atomic(output) as temporary, pq.ParquetWriter(temporary, pa.schema(DECISION), compression="zstd") as writer:
        for threshold_path, score_path in zip(threshold_paths, score_paths, strict=True):
            fitted = artefacts.read_json(threshold_path)
            models, sample_id, scores = read(plan_path, score_path, ["folded"])
            for target in models.targets:
                cut, own = fitted["targets"][models.model_id[target]]["threshold"], scores["folded"][target]
                if np.isnan(own).all():
                    continue
                said = own > cut if cut is not None else np.zeros(len(own), dtype=bool)
                columns = {"attack": [fitted["attack"]["id"]] * len(own), "target_id": [models.model_id[target]] * len(own), "sample_id": sample_id}
                writer.write_table(pa.table(columns | {"score": own, "says_member": said, "is_member": models.is_member[target]}, schema=pa.schema(DECISION)))  # fmt: skip
                rows += len(own)
    return rows


def measure(
    plan_path: Path, samples_path: Path, thresholds: dict[str, Any], score_paths: Sequence[Path], settings: dict[str, Any], models_found: dict[str, Any]
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """All numbers of the report, each with its interval and counts; exposure by sample; ROC points of every attack."""
    plan, headline = artefacts.read_facts(plan_path), settings["headline"]
    samples, population = pools.read_samples(samples_path)
    audit = Audited(pools.read_models(plan_path, samples["sample_id"].to_numpy()), samples)
    own, attacks, nulls = {}, {}, {}
    chosen: dict[str, np.ndarray] = {}
    named = zip(thresholds, score_paths, strict=True)
    for name, path in tqdm(list(named), desc=plan["audit"], unit="attack", disable=None):  # one attack's scores in memory at a time
        scores = read(plan_path, path, artefacts.POOL_SCORE_COLUMNS[2:])[2]
        own[name] = scores["score"][audit.rows]
        attacks[name] = audit.attack(scores, thresholds[name]["attack"], artefacts.read_facts(path), is_headline=name == headline)
        nulls[name] = audit.null(scores["folded"])
        chosen = scores if name == headline else chosen
    exposed = audit.exposure(chosen["folded"], thresholds[headline])
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
        "classes": pooled.per_class(own[headline], audit.truth, samples["label"].to_numpy(), audit.unit, audit.group),
        "controls": {"null": worst(nulls), "count": worst(audit.counts([fitted["attack"].get("references") for fitted in thresholds.values()]))},
        "exposure": audit.exposure_summary(exposed, thresholds[headline]["attack"]["alpha"]),
        "usage": audit.usage(chosen["score"], plan["seed"]),
        "epsilon": audit.epsilon(own[headline], plan["design"]["kind"], settings["epsilon"]),
    }
    curves = [pooled.curve_band(own[headline], audit.truth, audit.unit, audit.group).assign(subject=headline)]
    curves += [
        pooled.curve_points(scores, audit.truth).assign(subject=name, low=np.nan, high=np.nan) for name, scores in own.items() if name != headline
    ]
    return metrics, exposed, pd.concat(curves, ignore_index=True)


@dataclass(frozen=True)
class Audited:
    """The audited models and samples; all that follows reads scores [M, N] of one attack."""

    models: Models
    samples: pd.DataFrame

    @cached_property
    def rows(self) -> np.ndarray:
        return self.models.targets

    @cached_property
    def truth(self) -> np.ndarray:
        return self.models.is_member[self.rows]

    @cached_property
    def unit(self) -> np.ndarray:
        return self.models.unit[self.rows]

    @cached_property
    def group(self) -> np.ndarray:
        return self.samples["group_id"].to_numpy()

    def attack(self, scores: dict[str, np.ndarray], attack: dict[str, Any], facts: dict[str, Any], *, is_headline: bool) -> dict[str, Any]:
        """One attack: pooled figures and those of each target, thresholds from mock targets, agreement of halves of the references."""
        own = scores["score"][self.rows]
        found = {"name": attack["name"], "options": attack["options"], "alpha": attack["alpha"], "n_references": facts["n_references"]}
        found |= {"n_references_of_mocks": facts["n_references_of_mocks"]}
        found |= pooled.measure(own, self.truth, self.unit, self.group, LEVELS)
        found["per_target"] = pooled.per_target(own, self.truth)
        levels = (attack["alpha"], *(level for level in CALIBRATED if is_headline and level != attack["alpha"]))
        is_judged = not np.isnan(scores["folded"]).all()
        found["calibrated"] = [self.calibrated(scores["folded"], level) for level in levels] if is_judged else []
        halves = [scores[name][self.rows] for name in ("odd", "even")]
        found["halves_of_references"] = (
            None if any(np.isnan(half).any() for half in halves) else calibration.agreement(halves[0], halves[1], self.unit)
        )
        return found

    def calibrated(self, folded: np.ndarray, fpr: float) -> dict[str, Any]:
        """Rates at thresholds from mock targets, each target its own."""
        cuts = np.array([threshold_of(self.models, target, folded, fpr)[0] for target in self.rows.tolist()])
        return calibration.rates_at_thresholds(folded[self.rows], cuts, self.truth, fpr, self.unit, self.group)

    def null(self, folded: np.ndarray) -> dict[str, Any] | None:
        """Scores of a target against the membership of an independent model of its fold, which is nobody's reference: AUC 1/2."""
        scored = [target for target in self.rows.tolist() if len(self.models.mocks(target)) and not np.isnan(folded[target]).all()]
        if not scored:
            return None
        independent = self.models.is_member[[self.models.mocks(target)[0] for target in scored]]
        return calibration.null(folded[scored], independent, self.models.unit[scored], self.group)

    def counts(self, n_references: Sequence[int | None]) -> dict[str, dict[str, Any] | None]:
        """The number of IN references of a sample against the target's own membership, for each number of references that is used.

        Where it tells anything the references were not chosen blindly, and no figure can be believed.
        """
        found: dict[str, dict[str, Any] | None] = {}
        for n in set(n_references) if len(self.models.units) > 1 else ():
            turns = pools.turns_of(self.models, n)["score"]
            counts = np.stack([self.models.is_member[turn.references].sum(axis=0) for turn in turns])
            found[str(n)] = calibration.null(counts, self.models.is_member[[turn.target for turn in turns]], self.unit, self.group)
        return found

    def exposure(self, folded: np.ndarray, fitted: dict[str, Any]) -> pd.DataFrame:
        """How often each sample is found, one row a sample, the most exposed first; no row where there are no mock targets."""
        cuts = [fitted["targets"][self.models.model_id[target]]["threshold"] for target in self.rows]
        if np.isnan(folded[self.rows]).all():
            return pd.DataFrame(columns=["sample_id", "source_id", "label", "n_holding", "n_detected", "rate", "low", "high", "p", "bh"])
        says = folded[self.rows] > np.array([np.inf if cut is None else cut for cut in cuts])[:, None]
        found = exposure.exposure(says, self.truth, self.unit, fitted["attack"]["alpha"], has_score=~np.isnan(folded[self.rows]))
        table = pd.concat([self.samples[["sample_id", "source_id", "label"]], found.drop(columns="position")], axis=1)
        return table.sort_values(["bh", "low", "rate", "sample_id"], ascending=[False, False, False, True], ignore_index=True)

    def exposure_summary(self, exposed: pd.DataFrame, alpha: float) -> dict[str, Any] | None:
        """How many samples are exposed, and the most exposed of them."""
        if not len(exposed):
            return None
        return {
            "alpha": alpha,
            "n_flagged": int(exposed["bh"].sum()),
            "n_samples": len(exposed),
            "most": exposed[exposed["n_holding"] > 0].head(N_MOST_EXPOSED).astype({"bh": bool}).to_dict("records"),
        }

    def usage(self, scores: np.ndarray, seed: int) -> list[dict[str, Any]] | None:
        """Which share of a set was used? Sets of known shares of each target's members, estimated with the models of all other units.

        These mock targets have the target among their many references, which moves their rates by next to nothing.
        """
        draw, n = randomness.generator(seed, "usage"), min(USAGE_SET, int(self.truth.sum(axis=1).min()), int((~self.truth).sum(axis=1).min()))
        is_scored = ~np.isnan(scores).any(axis=1)
        if len(np.unique(self.models.unit[is_scored])) < 3 or n < 20:
            return None
        found = []
        for share in USAGE_SHARES:
            estimates = []
            for target, truth in list(zip(self.rows.tolist(), self.truth, strict=True))[:: -(-len(self.rows) // USAGE_TARGETS)]:
                mocks = np.flatnonzero(is_scored & (self.models.unit != self.models.unit[target]))
                k = round(share * n)
                chosen = np.concatenate([draw.permutation(np.flatnonzero(side))[:m] for side, m in ((truth, k), (~truth, n - k))])
                estimates.append(
                    usage.estimate(scores[target, chosen], scores[mocks][:, chosen], self.models.is_member[mocks][:, chosen], self.models.unit[mocks])
                )
            known = [one.value for one in estimates if one.value is not None]
            found.append({
                "share": share, "n": n, "n_sets": len(estimates), "n_refused": len(estimates) - len(known), "mean": float(np.mean(known)) if known else None,
                "width": float(np.mean([one.high - one.low for one in estimates])),
                "held": proportion(np.array([one.low <= share <= one.high for one in estimates])).as_dict(),
            })  # fmt: skip
        return found

    def epsilon(self, own: np.ndarray, kind: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Lower bounds from one-run audits: one a training, all of which hold together; None where membership was no matter of independent coins."""
        if kind != "canaries":
            return None
        each = 1 - (1 - settings["confidence"]) / len(own)
        runs = [
            epsilon.audit_one_run(scores, truth, delta=settings["delta"], confidence=each, strategy=settings["strategy"]).as_dict()
            for scores, truth in zip(own, self.truth, strict=True)
        ]
        best = max(runs, key=lambda run: run["epsilon"])
        return {
            "epsilon": best["epsilon"],
            "delta": settings["delta"],
            "confidence": settings["confidence"],
            "strategy": settings["strategy"],
            "runs": runs,
        }


def worst(found: dict[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """The least p of several nulls, corrected for their number; None where none could be made."""
    made = {name: {key: one[key] for key in ("p", "auc")} for name, one in found.items() if one is not None}
    if not made:
        return None
    p = float(holm([one["p"] for one in made.values()]).min())
    return {"p": p, "alarm": p <= calibration.ALARM, "attacks": made}
