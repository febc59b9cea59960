"""Thresholds, decisions and numbers of an audit in which every model is the target in turn (`halves`, `canaries`).

Thresholds come from mock targets: other models of the target's fold, scored with the very references that the
target is scored with. Nothing about a target decides about itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from memleak.metrics import blind, calibration, compare, crossfit, epsilon, exposure, pooled, slices, units, usage
from memleak.metrics.intervals import holm, models_for_level, proportion
from memleak.params import attack_options

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)  # false-positive rates that are reported
CALIBRATED = (0.1, 0.01, 0.001)  # those for which thresholds are taken from mock targets
N_MOST_EXPOSED = 20
EXPOSED = (
    "sample_id",
    "source_id",
    "label",
    "n_holding",
    "n_detected",
    "rate",
    "low",
    "high",
    "p",
)  # after unit and n_records, where there are units
USAGE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
USAGE_SET = 500  # samples of a set whose use is estimated
USAGE_TARGETS = 8  # models that this is tried on, at most
DECISION = {"attack": pa.string(), "target_id": pa.string(), "sample_id": pa.int64(), "score": pa.float64(), "says_member": pa.bool_(), "is_member": pa.bool_()}  # fmt: skip
OF_UNIT = {"unit": pa.string(), "n_records": pa.int64()}  # further columns where records are measured by unit


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


def threshold_of(models: Models, target: int, folded: np.ndarray, fpr: float) -> tuple[float, int]:
    """A target's threshold, infinite where it has too few mock targets, and the number of scores that it was set on."""
    mocks = models.mocks(target)
    others = folded[mocks][~models.is_member[mocks]]
    others = others[~np.isnan(others)]
    return (calibration.threshold(others, fpr) if len(others) else np.inf), len(others)


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
        "classes": pooled.per_class(own[headline], audit.truth, samples["label"].to_numpy(), audit.unit, audit.group),
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


def audited(plan_path: Path, samples_path: Path | None = None) -> Audited:
    """The audited models, and the samples or the units of them; samples lie beside the plan, which was written with them."""
    samples_path = samples_path or plan_path.with_name("samples.parquet")
    samples, of_units = units.read_samples(plan_path, samples_path), units.read(plan_path, samples_path)
    models = pools.read_models(plan_path, samples["sample_id"].to_numpy())
    return Audited(models, samples) if of_units is None else Audited(of_units.models(models), of_units.table)


def blind_controls(plan_path: Path, samples_path: Path, features_path: Path, score_path: Path) -> dict[str, Any]:
    """Controls of a given model, whose members nobody drew: can they be told without it, and do the metrics hold their level?"""
    samples, seen = units.read_samples(plan_path, samples_path), pd.read_parquet(features_path)
    if not np.array_equal(seen["sample_id"], samples["sample_id"]):
        raise artefacts.ArtefactError(f"{features_path}: speaks of other samples than the plan; delete it and run again")
    is_member = pools.read_models(plan_path, samples["sample_id"].to_numpy()).is_member[0]
    audit, scores = audited(plan_path, samples_path), read(plan_path, score_path, ["score"])[2]
    return {
        "blind": blind.measure(seen.drop(columns="sample_id").to_numpy(), is_member, samples["group_id"].to_numpy()),
        "permuted": blind.permuted(scores["score"][audit.rows[0]], audit.truth[0], audit.group),
    }


def flagged(exposed: pd.DataFrame) -> pd.DataFrame:
    """The exposed samples, or units, of a table of all."""
    columns = [*(name for name in OF_UNIT if name in exposed), *EXPOSED]
    return exposed.loc[exposed["bh"].to_numpy(dtype=bool), columns]


@dataclass(frozen=True)
class Judged:
    """What decisions about a target read, and the thresholds that other models or other samples set for them."""

    scores: np.ndarray  # [N]
    placed: np.ndarray  # [N], the scores, or their places where a coin orders equal ones: what the thresholds are for
    cuts: np.ndarray  # [N], infinite where nothing sets one
    n_fitted: int  # scores that a threshold was set on
    is_cross_fitted: bool  # on other non-members of the same model, not on mock targets


@dataclass(frozen=True)
class Audited:
    """The audited models and samples (or units, one row each); all that follows reads scores [M, N] of one attack."""

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

    @property
    def is_cross_fitted(self) -> bool:
        """Whether thresholds come from other non-members of the same model: a given one was not trained as its references, so those are no mock targets."""
        return self.models.is_given

    def judged(self, target: int, scores: Mapping[str, np.ndarray], fpr: float) -> Judged:
        """A target's scores and their thresholds, from columns `score` and `folded` [M, N]."""
        if self.is_cross_fitted:
            own = scores["score"][target]
            placed = crossfit.places(own, self.group)
            cuts, n_fitted = crossfit.cuts(placed, self.models.is_member[target], self.group, fpr)
            return Judged(own, placed, cuts, n_fitted, True)
        cut, n_fitted = threshold_of(self.models, target, scores["folded"], fpr)
        own = scores["folded"][target]
        return Judged(own, own, np.full(len(own), cut), n_fitted, False)

    def columns(self, names: Sequence[str], class_names: Sequence[str] | None) -> dict[str, pd.Series]:
        """What samples are sliced by, [N] each."""
        known = {name: self.samples[artefacts.SLICE + name] for name in names if name != "label"}
        return {name: slices.classes(self.samples["label"], class_names) if name == "label" else known[name] for name in names}

    def attack(self, scores: dict[str, np.ndarray], attack: dict[str, Any], facts: dict[str, Any], *, is_headline: bool) -> dict[str, Any]:
        """One attack: pooled figures and those of each target, thresholds from mock targets, agreement of halves of the references."""
        own = scores["score"][self.rows]
        found = {"name": attack["name"], "options": attack["options"], "alpha": attack["alpha"], "n_references": facts["n_references"]}
        found |= {key: facts[key] for key in ("n_references_of_mocks", "n_queries")}
        found |= pooled.measure(own, self.truth, self.unit, self.group, LEVELS)
        found["per_target"] = pooled.per_target(own, self.truth)
        levels = (attack["alpha"], *(level for level in CALIBRATED if is_headline and level != attack["alpha"]))
        is_judged = not np.isnan(scores["folded"][self.rows]).all() or self.is_cross_fitted
        found["calibrated"] = [rates for level in levels if (rates := self.calibrated(scores, level))] if is_judged else []
        cut = natural_threshold(attack)
        if cut is not None:
            rates = calibration.rates_of_decisions(own > cut, self.truth, self.unit, self.group, has_score=~np.isnan(own))
            found["natural"] = rates | {"is_only": is_correctness(attack)}
        halves = [scores[name][self.rows] for name in ("odd", "even")]
        found["halves_of_references"] = (
            None if any(np.isnan(half).any() for half in halves) else calibration.agreement(halves[0], halves[1], self.unit)
        )
        return found

    def calibrated(self, scores: Mapping[str, np.ndarray], fpr: float) -> dict[str, Any] | None:
        """Rates at thresholds that were set beforehand, each target its own; None where so few scores set them that nobody can be accused.

        A rate of 0 would then be read as "no leak", whatever the scores say.
        """
        judged = [self.judged(target, scores, fpr) for target in self.rows.tolist()]
        own, cuts = np.stack([one.placed for one in judged]), np.stack([one.cuts for one in judged])
        if np.isinf(cuts[~np.isnan(own)]).any():
            return None
        return calibration.rates_at_thresholds(own, cuts, self.truth, fpr, self.unit, self.group)

    def null(self, folded: np.ndarray, *, is_balanced: bool = False) -> dict[str, Any] | None:
        """Scores of a target against the membership of an independent model of its fold, which is nobody's reference: AUC 1/2.

        Models that were drawn together, so that every sample has as many members (`is_balanced`), are independent
        given the target's own membership only: there they are compared among its members, and among the others.
        """
        scored = [target for target in self.rows.tolist() if len(self.models.mocks(target)) and not np.isnan(folded[target]).all()]
        if not scored:
            return None
        independent = self.models.is_member[[self.models.mocks(target)[0] for target in scored]]
        if not independent.any(axis=1).all():  # shadow models, none of which trained on what is audited
            return None
        strata = self.models.is_member[scored] if is_balanced else None
        return calibration.null(folded[scored], independent, self.models.unit[scored], self.group, strata)

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
        named = [*(name for name in OF_UNIT if name in self.samples), "sample_id", "source_id", "label"]
        if np.isnan(folded[self.rows]).all() or self.models.is_given:  # one model holds a sample, or does not
            return pd.DataFrame(columns=[*named, "n_holding", "n_detected", "rate", "low", "high", "p", "bh"])
        says = folded[self.rows] > np.array([np.inf if cut is None else cut for cut in cuts])[:, None]
        found = exposure.exposure(says, self.truth, self.unit, fitted["attack"]["alpha"], has_score=~np.isnan(folded[self.rows]))
        table = pd.concat([self.samples[named], found.drop(columns="position")], axis=1)
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


def is_correctness(attack: dict[str, Any]) -> bool:
    """Whether an attack's score is 1 or 0, of which right is the only threshold: at a low false-positive rate it accuses nobody."""
    options = attack["options"]
    return attack["name"] == "threshold" and options["signal"] == "correctness" and options["thresholds"] == "none"


def natural_threshold(attack: dict[str, Any]) -> float | None:
    """The score beyond which an attack itself says member: right answers, and log-odds or margins above 0 of a rule that was fitted on references."""
    if is_correctness(attack):
        return 0.5
    needs = getattr(attack_options({"name": attack["name"], **attack["options"]}), "needs", None)
    return 0.0 if needs is not None and needs.fits else None


def worst(found: dict[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """The least p of several nulls, corrected for their number; None where none could be made."""
    made = {name: {key: one[key] for key in ("p", "auc")} for name, one in found.items() if one is not None}
    if not made:
        return None
    p = float(holm([one["p"] for one in made.values()]).min())
    return {"p": p, "alarm": p <= calibration.ALARM, "attacks": made}
