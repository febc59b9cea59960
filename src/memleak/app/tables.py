"""The tables of the app, from the metrics of audits: every estimate with its interval, in the words of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from memleak.report import frontier, pool, verdict, words
from memleak.report.results import Found

DAMAGED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)  # what comes of metrics that another version wrote
ALL_TARGETS = "all targets, hold-out"  # the subject of a curve over all records of `pairs`


def risk_of(found: verdict.Verdict) -> str:
    """`risk 4 of 100 [3, 5]`; nothing where there is none."""
    return "" if found.risk is None or found.low is None or found.high is None else f"risk {words.risk(found.risk, found.low, found.high)}"


def overview(audits: Sequence[Found], sweeps: Mapping[str, Found]) -> pd.DataFrame:
    """One row an audit, and after them one a sweep."""
    rows = [_audit(found) for found in audits] + [_sweep(found) for found in sweeps.values()]
    return pd.DataFrame(rows, columns=["name", "verdict", "risk", "95 % interval", "what", "lacks", "says"])


def lack_of(found: Found) -> str:
    """What is wrong with an audit, or which of its stages are missing; models that were removed since are not missed."""
    return found.problem or ("" if found.is_finished else found.missing)


def _audit(found: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"name": found.name, "verdict": "cannot be read" if found.problem else "unfinished", "lacks": lack_of(found)}
    if found.metrics is None:
        return row
    try:
        told, metrics = verdict.verdict(found.metrics), found.metrics
    except DAMAGED as error:
        return row | _damaged(error)
    interval = "" if told.low is None or told.high is None else f"{words.score(told.low, told.high)} to {words.score(told.high, told.high)}"
    return row | {
        "verdict": told.state,
        "risk": told.risk,
        "95 % interval": interval,
        "what": f"{metrics['kind']}, {metrics['headline']}",
        "says": told.sentence,
    }


def _sweep(found: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"name": found.name, "verdict": "cannot be read" if found.problem else "unfinished", "lacks": lack_of(found)}
    if found.metrics is None:
        return row
    try:
        told, n_variants = frontier.finding(found.metrics), len(found.metrics["variants"])
    except DAMAGED as error:
        return row | _damaged(error)
    return row | {"verdict": told.state, "what": f"sweep of {n_variants} variants", "says": told.sentence}


def _damaged(error: Exception) -> dict[str, str]:
    return {"verdict": "cannot be read", "lacks": f"its metrics are not as they should be ({type(error).__name__}: {error})"[:300]}


def attacks(metrics: dict[str, Any]) -> pd.DataFrame:
    """One row an attack, the headline named."""
    if metrics["kind"] == "pairs":
        return pd.DataFrame([
            {"attack": _named(name, metrics), "TPR, hold-out": words.rate(one.get("tpr")), "FPR, hold-out": words.rate(one.get("fpr")), "set for FPR": pool.level(one["alpha"])}
            for name, one in metrics["attacks"].items()
        ])  # fmt: skip
    rows = []
    for row in pool.attack_rows(metrics):
        rates = {f"TPR at FPR {pool.level(one['at_fpr'])} (optimistic)": _rate(one) for one in row["rates"] if one}
        preset = row["at_alpha"] or {"tpr": None, "achieved_fpr": None}
        honest = {"TPR, threshold set beforehand": pool.interval(preset["tpr"]), "its FPR": pool.interval(preset["achieved_fpr"])}
        rows.append(
            {"attack": _named(row["id"], metrics), "AUC": words.estimate(row["auc"]), **honest, **rates, "references": row["n_references"], "queries a record": row["n_queries"]}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _named(attack: str, metrics: Mapping[str, Any]) -> str:
    return f"{attack} (headline)" if attack == metrics["headline"] else attack


def _rate(found: dict[str, Any]) -> str:
    return pool.interval(found) + ("" if found["certified"] else ", cannot certify")


def cells(metrics: dict[str, Any]) -> tuple[list[list[float | None]], list[str], list[str], list[list[str]]]:
    """TPR of every attack at every false-positive rate that the records can certify: values, rows, columns and texts of a heatmap."""
    rows = pool.attack_rows(metrics)
    levels = [fpr for fpr in pool.levels(metrics) if any((pool.rate(one, fpr) or {}).get("certified") for one in metrics["attacks"].values())]
    found = [[pool.rate(metrics["attacks"][row["id"]], fpr) for fpr in levels] for row in rows]
    values = [[one["value"] if one and one["certified"] else None for one in line] for line in found]
    texts = [
        [(pool.interval(one).replace(" [", "\n[") if one["certified"] else "cannot certify") if one else "n/a" for one in line] for line in found
    ]
    return values, [_named(row["id"], metrics) for row in rows], [f"FPR {pool.level(fpr)}" for fpr in levels], texts


def classes(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The headline's AUC of each class, and of each slice that was declared, as rows of a figure."""
    rows = [{"name": f"class {row['name']} ({row['n_samples']:,})", **row["auc"]} for row in pool.class_rows(metrics) if row["auc"]]
    for column in metrics.get("slices") or ():
        rows += [{"name": f"{column['column']}: {one['value']} ({one['n_samples']:,})", **one["auc"]} for one in column["slices"] if one["auc"]]
    return rows


def targets(metrics: dict[str, Any]) -> pd.DataFrame:
    """The records of a `pairs` audit."""
    rows = []
    for name, one in metrics["targets"].items():
        share = {"value": one.get("exposure"), "low": one.get("exposure_low"), "high": one.get("exposure_high")}
        is_held_out = share["value"] is not None and share["low"] is not None  # without hold-out rounds it is the rate on fitted ones, optimistic
        recognised = pool.interval(share) if is_held_out else "no hold-out rounds"
        kind = f"{one['kind']}{', planted' if one['is_canary'] else ''}"
        rows.append(
            {
                "record": name,
                "kind": kind,
                "finding": one["state"],
                "recognised in": recognised,
                "p (Holm)": words.p(one["p_holm"]),
                "AUC": words.estimate(one["auc"]),
            }
        )
    return pd.DataFrame(rows)


def exposed(metrics: dict[str, Any]) -> pd.DataFrame:
    """The records that are recognised most often."""
    return pd.DataFrame([
        {"record": row["sample_id"], "class": row["class"], "recognised in": f"{row['n_detected']} of {row['n_holding']} models", "share": pool.interval(row | {"value": row["rate"]}), "p": words.p(row["p"]), "beyond chance": "yes" if row["bh"] else "no"}
        for row in pool.most_exposed(metrics)
    ])  # fmt: skip


def variants_of(sweep: dict[str, Any]) -> pd.DataFrame:
    """One row a variant of a sweep, numbered as in its figure."""
    return pd.DataFrame([
        {"no.": row["number"], "variant": row["label"], "AUC": words.estimate(row["auc"]), "TPR at FPR 1 % (optimistic)": pool.interval(row["tpr_1"]), "accuracy": pool.interval(row["utility"]), "found": "; ".join(row["found"]), "audit": row["audit"]}
        for row in frontier.rows(sweep)
    ])  # fmt: skip


def training(models: Mapping[str, Any]) -> pd.DataFrame | None:
    """Loss and accuracy by epoch, mean over the models; None where the trainer told no curve."""
    if not models.get("loss_curve"):
        return None
    n = len(models["loss_curve"])
    return pd.DataFrame({"epoch": range(1, n + 1), "loss (nats)": models["loss_curve"], "accuracy": models["accuracy_curve"] or [None] * n})


def accuracies(models: Mapping[str, Any]) -> pd.DataFrame:
    """How often the models are right; of several, the middle 95 % of them."""
    parts = {"records of the training": models["train_accuracy"], "others": models["test_accuracy"]}
    losses = {"records of the training": models.get("train_loss"), "others": models.get("test_loss")}
    return pd.DataFrame(
        [{"on": part, "accuracy": pool.interval(found), "mean loss (nats)": words.number(losses[part], 4)} for part, found in parts.items()]
    )
