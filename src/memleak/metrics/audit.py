"""What a `pairs` audit found: models, targets, attacks and controls, as one nested dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from memleak.attacks.pairs import Arms
from memleak.metrics import paired, roc
from memleak.metrics.intervals import clopper_pearson, clustered_proportion, holm, level_p, proportion

SIGNIFICANCE = 0.05  # of the paired tests, over all targets together (Holm)
ALARM = 0.001  # of the controls: their smallest p-value, corrected by Holm


class AuditError(ValueError):
    """An audit whose parts do not belong together."""


def measure_audit(
    plan: dict[str, Any], models: Sequence[dict[str, Any]], arms: Sequence[Arms], thresholds: dict[str, Any],
    decided: pd.DataFrame, headline: str, allow_mixed: bool,
) -> dict[str, Any]:  # fmt: skip
    """All numbers of the report, each with its interval and counts.

    `plan` are the facts of plan.parquet, `models` those of each trained model, `decided` the hold-out decisions.
    """
    alpha = thresholds[headline]["attack"]["alpha"]
    targets = _targets(plan, arms, thresholds, decided, headline, alpha)
    return {
        "audit": plan["audit"],
        "kind": "pairs",
        "headline": headline,
        "alpha": alpha,
        "design": plan["design"],
        "recipe": plan["recipe"],
        "data": plan["data"],
        "seed": plan["seed"],
        "models": models_found(plan, models, allow_mixed),
        "attacks": {name: _attack(name, fitted, decided, plan) for name, fitted in thresholds.items()},
        "targets": targets,
        "controls": _controls(plan, targets, arms, decided, headline, alpha),
    }


def models_found(plan: dict[str, Any], models: Sequence[dict[str, Any]], allow_mixed: bool) -> dict[str, Any]:
    """Fit and generalisation over the audited models; beside a given one, those of its references."""
    given = [model for model in models if model["engine"] == "given"]
    trained = [model for model in models if model["engine"] not in ("given", "imported")]
    mixed = {
        "devices": sorted({model["device"] for model in trained}),
        "torch versions": sorted({".".join(model["torch"].split("+")[0].split(".")[:2]) for model in trained}),
    }
    mixed = {what: found for what, found in mixed.items() if len(found) > 1}
    for what, found in mixed.items():
        if not allow_mixed:
            raise AuditError(
                f"the models were trained with several {what} ({', '.join(found)}); their signals may differ for that alone; retrain, or set allow_mixed: true"
            )
    summary = _summary(given or models, plan["data"]["n_classes"]) | {"mixed": list(mixed)}  # what the models differ in, though they should not
    if given:
        summary["given"] = {key: given[0].get(key) for key in ("form", "name", "weights", "output", "sha256", "device", "is_repeatable")}
        summary["given"] |= {"reference": given[0]["reference"]} if given[0].get("reference") else {}
        summary["references"] = _summary(trained, plan["data"]["n_classes"]) if trained else None
    return summary


def _summary(models: Sequence[dict[str, Any]], n_classes: int | None) -> dict[str, Any]:
    """How well some models do; None for what nobody knows of imported ones, or of a given one that tells labels alone."""
    counted = Counter((model.get("device", "unknown"), model.get("torch", "unknown"), model["engine"]) for model in models)
    accuracy = {part: _spread([model.get(f"{part}_accuracy") for model in models]) for part in ("train", "test")}
    train, test = accuracy["train"], accuracy["test"]
    private, of_tokens = [model["dp"] for model in models if model.get("dp")], any(model.get("of_tokens") for model in models)
    return {
        "n": len(models),
        "n_train": int(models[0]["n_train"]),
        "n_test": int(models[0]["n_test"]),
        "trained_on": [  # the most frequent first
            {"n": n, "device": device, "torch": torch, "engine": engine}
            for (device, torch, engine), n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        ],
        "chance": 1 / n_classes if n_classes and not of_tokens else None,
        "train_accuracy": accuracy["train"],  # low and high: the middle 95 % of the models
        "test_accuracy": accuracy["test"],
        "generalisation_gap": train["value"] - test["value"] if train and test else None,
        "train_loss": _mean([model.get("train_loss") for model in models]),
        "test_loss": _mean([model.get("test_loss") for model in models]),
        "loss_curve": _mean_curve(models, "loss_curve"),
        "accuracy_curve": _mean_curve(models, "accuracy_curve"),
        **({"of_tokens": True, "n_truncated": int(max(model.get("n_truncated", 0) for model in models))} if of_tokens else {}),  # accuracy, losses
        **({"dp": max(private, key=lambda facts: facts["epsilon"])} if private else {}),  # of the model that promises least
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"value": float(np.mean(known)), "low": float(np.quantile(known, 0.025)), "high": float(np.quantile(known, 0.975))}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_curve(models: Sequence[dict[str, Any]], name: str) -> list[float] | None:
    """The mean over the models that still trained, epoch by epoch; None where the user's own trainer trained them, which tells none."""
    curves = [model[name] for model in models if name in model]
    if not curves:
        return None
    known = np.full((len(curves), max(map(len, curves))), np.nan)  # with early stopping each model has its own last epoch
    for row, curve in zip(known, curves, strict=True):
        row[: len(curve)] = curve
    return np.nanmean(known, axis=0).tolist()


def _attack(name: str, fitted: dict[str, Any], decided: pd.DataFrame, plan: dict[str, Any]) -> dict[str, Any]:
    """One attack over all natural targets (canaries, where there are no others): achieved rates on the hold-out models, beside the optimistic in-sample ones."""
    natural = [target for target, known in plan["targets"].items() if not known["is_canary"]] or list(plan["targets"])
    own = decided[(decided["attack"] == name) & decided["target"].isin(natural)]
    found: dict[str, Any] = {
        "name": fitted["attack"]["name"],
        "alpha": fitted["attack"]["alpha"],
        "statistic": fitted["attack"]["options"]["signal"] if fitted["attack"]["name"] == "single_point" else "score",
        "options": fitted["attack"]["options"],
        "n_fitted": plan["design"]["rounds"],
        "models_for_level": fitted["models_for_level"],
        "optimistic_fpr": float(np.mean([fitted["targets"][target]["optimistic"]["fpr"] for target in natural])),
        "optimistic_tpr": float(np.mean([fitted["targets"][target]["optimistic"]["tpr"] for target in natural])),
    }
    if len(own):
        for rate, truth in (("fpr", False), ("tpr", True)):
            table = own[own["is_member"] == truth].pivot(index="round", columns="target", values="says_member")
            found[rate] = clustered_proportion(table.to_numpy()).as_dict()
    return found


def _targets(
    plan: dict[str, Any], arms: Sequence[Arms], thresholds: dict[str, Any], decided: pd.DataFrame, headline: str, alpha: float
) -> dict[str, Any]:
    p_values = [paired.sign_flip_test(_difference(arm)) for arm in arms]
    corrected = holm(p_values)
    targets = {}
    for arm, p, p_holm in zip(arms, p_values, corrected, strict=True):
        attacks = {name: _target_attack(arm.target, name, fitted, decided, len(arms)) for name, fitted in thresholds.items()}
        found = plan["targets"][arm.target] | {
            "p": p,
            "p_holm": float(p_holm),
            "effect": _effect(arm, len(arms)),
            "means": {
                f"{signal}_{place}": float(values[signal].mean())
                for signal in ("margin", "loss")
                for place, values in (("in", arm.inside), ("out", arm.outside))
            },
            "auc": _auc(arm),
            "attacks": attacks,
        }
        found |= _exposure(found, attacks[headline], alpha, len(arms))
        targets[arm.target] = found
    return dict(sorted(targets.items(), key=lambda item: (-item[1]["exposure"], -item[1]["auc"]["value"], item[0])))


def _difference(arm: Arms) -> np.ndarray:
    """Margin of the IN arm less that of the OUT arm, all rounds, [R] nats."""
    inside, outside = arm.statistic("margin")
    return inside - outside


def _effect(arm: Arms, n_targets: int) -> dict[str, Any]:
    """The paired difference with its interval, and the rounds that would show it with power 0.8."""
    d = _difference(arm)
    effect, low, high = paired.effect_interval(d)
    level = SIGNIFICANCE / n_targets  # what Holm asks of the first of the tests
    found: dict[str, Any] = {"mean_difference": float(d.mean()), "n_rounds": len(d), "standardised": None if np.isinf(effect) else effect}
    for name, value in (("low", low), ("high", high)):
        found[name] = None if np.isinf(value) else value
    for name, value in (("rounds_needed", effect), ("rounds_needed_if_low", low), ("rounds_needed_if_high", high)):
        found[name] = paired.rounds_needed(value, level)
    found["testable"] = paired.smallest_p(len(d)) <= level
    found["least_rounds"] = int(np.ceil(-np.log2(level)))
    return found


def _auc(arm: Arms) -> dict[str, Any]:
    inside, outside = arm.statistic("margin")
    found = roc.auc_with_interval(np.concatenate([inside, outside]), np.repeat([True, False], len(inside)))
    return {"value": found.value, "low": found.low, "high": found.high, "n": len(inside)}


def _target_attack(target: str, name: str, fitted: dict[str, Any], decided: pd.DataFrame, n_targets: int) -> dict[str, Any]:
    own = fitted["targets"][target]
    found = {key: own[key] for key in ("intervals", "in", "out", "optimistic")}
    rows = decided[(decided["attack"] == name) & (decided["target"] == target)]
    if len(rows):
        for rate, truth in (("fpr", False), ("tpr", True)):
            found[rate] = proportion(rows.loc[rows["is_member"] == truth, "says_member"].to_numpy()).as_dict()
        # by chance a record that leaks nothing is found as often as the rule accuses OUT models, which for one fit is not alpha
        found["tpr"]["p"] = level_p(found["tpr"]["k"], found["tpr"]["n"], own["n_fitted"], fitted["attack"]["alpha"])
        each = 1 - SIGNIFICANCE / n_targets  # for whoever looks for the most exposed record: intervals that hold for all targets at once
        found["tpr"]["low_of_all"], found["tpr"]["high_of_all"] = clopper_pearson(found["tpr"]["k"], found["tpr"]["n"], each)
    return found


def _exposure(found: dict[str, Any], attack: dict[str, Any], alpha: float, n_targets: int) -> dict[str, Any]:
    """How often the headline attack finds this record: on hold-out models, or (optimistic) on the fitted ones."""
    is_significant = found["effect"]["testable"] and found["p_holm"] <= SIGNIFICANCE
    if "tpr" not in attack:
        value, low, high = attack["optimistic"]["tpr"], None, None
        state = "effect found" if is_significant else "no evidence"
    else:
        value, low, high = (attack["tpr"][key] for key in ("value", "low", "high"))
        if low > alpha and is_significant:
            state = "exposed"
        elif is_significant or attack["tpr"]["p"] <= SIGNIFICANCE / n_targets:
            state = "effect found"
        else:
            state = "no evidence"
    return {"state": state, "exposure": value, "exposure_low": low, "exposure_high": high}


def _controls(
    plan: dict[str, Any], targets: dict[str, Any], arms: Sequence[Arms], decided: pd.DataFrame, headline: str, alpha: float
) -> dict[str, Any]:
    """Checks of the audit itself: a null that must find nothing, a level that must be kept, a leak that must be found."""
    null = []
    for arm in arms:  # OUT arms of early against late rounds: nobody trained on the record, so only a drift can differ
        early, late = np.array_split(arm.statistic("margin")[1], 2)
        null.append(paired.two_sided(late[: len(early)] - early[: len(late)]))
    p_null = float(holm(null).min())
    controls: dict[str, Any] = {
        "null": {"p": p_null, "alarm": p_null <= ALARM, "n_tests": len(null)},
        "positive": {
            name: {"state": target["state"], "p_holm": target["p_holm"], "found": target["state"] != "no evidence"}
            for name, target in targets.items() if target["kind"] == "mislabelled"
        },
    }  # fmt: skip
    own = decided[(decided["attack"] == headline) & ~decided["is_member"]]
    if len(own):
        table = own.pivot(index="round", columns="target", values="says_member").to_numpy().astype(bool)
        p_level = float(holm([level_p(int(accused.sum()), len(accused), plan["design"]["rounds"], alpha) for accused in table.T]).min())
        controls["level"] = clustered_proportion(table).as_dict() | {"alpha": alpha, "p": p_level, "alarm": p_level <= ALARM}
    return controls
