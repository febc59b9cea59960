"""The audited models and samples of a pool audit, and what is measured of one attack's scores [M, N]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from memleak import artefacts, randomness
from memleak.attacks import pools
from memleak.attacks.pools import Models
from memleak.metrics import calibration, crossfit, epsilon, exposure, pooled, slices, units, usage
from memleak.metrics.intervals import holm, proportion
from memleak.params import attack_options

LEVELS = (0.1, 0.01, 0.001, 0.0001, 0.0)  # false-positive rates that are reported
CALIBRATED = (0.1, 0.01, 0.001)  # those for which thresholds are taken from mock targets
N_MOST_EXPOSED = 20
USAGE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
USAGE_SET = 500  # samples of a set whose use is estimated
USAGE_TARGETS = 8  # models that this is tried on, at most
OF_UNIT = {"unit": pa.string(), "n_records": pa.int64()}  # further columns where records are measured by unit


def audited(plan_path: Path, samples_path: Path | None = None) -> Audited:
    """The audited models, and the samples or the units of them; samples lie beside the plan, which was written with them."""
    samples_path = samples_path or plan_path.with_name("samples.parquet")
    samples, of_units = units.read_samples(plan_path, samples_path), units.read(plan_path, samples_path)
    models = pools.read_models(plan_path, samples["sample_id"].to_numpy())
    return Audited(models, samples) if of_units is None else Audited(of_units.models(models), of_units.table)


def threshold_of(models: Models, target: int, folded: np.ndarray, fpr: float) -> tuple[float, int]:
    """A target's threshold, infinite where it has too few mock targets, and the number of scores that it was set on."""
    mocks = models.mocks(target)
    others = folded[mocks][~models.is_member[mocks]]
    others = others[~np.isnan(others)]
    return (calibration.threshold(others, fpr) if len(others) else np.inf), len(others)


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
        """Lower bounds from one-run audits: one a training, all of which hold together; None where membership was no matter of independent coins.

        `p`, of the claim that `settings` have from `epsilon.held_against`, is that of the worst training, times their number.
        """
        if kind != "canaries":
            return None
        each = 1 - (1 - settings["confidence"]) / len(own)
        runs = [
            epsilon.audit_one_run(
                scores, truth, delta=settings["delta"], confidence=each, strategy=settings["strategy"], claimed=settings.get("claimed")
            ).as_dict()
            for scores, truth in zip(own, self.truth, strict=True)
        ]
        best = max(runs, key=lambda run: run["epsilon"])
        p = None if settings.get("claimed") is None else min(1.0, len(runs) * min(run["p"] for run in runs))
        return {
            "epsilon": best["epsilon"],
            "delta": settings["delta"],
            "confidence": settings["confidence"],
            "strategy": settings["strategy"],
            "runs": runs,
            **epsilon.against_claim(settings, best["epsilon"], p),
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
