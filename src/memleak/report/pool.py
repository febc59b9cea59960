"""What the page, the verdict and the figures read out of the metrics of an audit in which every model is the target in turn.

The shape of the metrics is known here and nowhere else in this room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEAST_P = 1e-12  # smaller ones are not told apart
MODELS_FOR_MOCKS = {"halves": 8, "canaries": 4}  # two folds of two units: mock targets in the target's own, references in the other


def share(value: float | None) -> str:
    """A rate in percent with three significant digits: `12.3 %`, `0.0123 %`."""
    if value is None:
        return "n/a"
    return f"{100 * value:.{_decimals(100 * value)}f} %"


def interval(found: dict[str, Any] | None) -> str:
    """`12.3 % [11.0, 13.7]`, all with as many decimals; 0 and 100 have none: `0 % [0, 0.26]`."""
    if not found or found["value"] is None:
        return "n/a"
    ends = [100 * x for x in (found["value"], found["high"], found["low"]) if x is not None]
    decimals = min((_decimals(x) for x in ends[:2] if not _is_whole(x)), default=_decimals(ends[-1]))
    value, *others = ("0" if x == 0 else "100" if x == 100 else f"{x:.{decimals}f}" for x in ends)
    return f"{value} %" if found["low"] is None else f"{value} % [{others[1]}, {others[0]}]"


def _decimals(percent: float) -> int:
    """So many that three digits are significant; none for 0 and 100."""
    return 0 if _is_whole(percent) else 1 if abs(percent) >= 1 else min(4, 1 - int(np.floor(np.log10(abs(percent)))))


def _is_whole(percent: float) -> bool:
    return abs(percent) in (0, 100)


def level(fpr: float) -> str:
    """A declared false-positive rate: `10 %`, `0.01 %`."""
    return f"{100 * fpr:g} %"


def calibrated(metrics: dict[str, Any], attack: str, fpr: float | None = None) -> dict[str, Any] | None:
    """FPR, TPR and PPV at the threshold that mock targets set for `fpr` (default: the audit's alpha); None without mock targets."""
    wanted = metrics["alpha"] if fpr is None else fpr
    return next((found for found in metrics["attacks"][attack]["calibrated"] or () if np.isclose(found["at_fpr"], wanted)), None)


def rate(attack: dict[str, Any], fpr: float) -> dict[str, Any] | None:
    """The best TPR at a false-positive rate, thresholds chosen on the very scores."""
    return next((found for found in attack["rates"] if np.isclose(found["at_fpr"], fpr)), None)


def n_distinct(metrics: dict[str, Any]) -> int:
    """Distinct records that are outside some target's training set."""
    return metrics["attacks"][metrics["headline"]]["rates"][0]["n_non_members"]


def records_for(fpr: float) -> int:
    """Distinct non-members that it takes to certify a false-positive rate: 3 / f."""
    return int(np.ceil(3 / fpr - 1e-9))


def non_members_for(fpr: float) -> int:
    """Non-members of whom four fifths, with some to spare, set a threshold for a false-positive rate."""
    return int(np.ceil(1.5 / fpr - 1e-9))


def records(metrics: dict[str, Any]) -> str:
    """What the audited records are called."""
    if metrics["kind"] != "canaries":
        return "records"
    if has_gradients(metrics):
        return "canaries (gradients of their own)"
    return "canaries (records with a wrong label)" if metrics["design"]["mislabelled"] else "canaries"


def has_gradients(metrics: dict[str, Any]) -> bool:
    """Whether what is audited are gradients, of no record, label or class."""
    return metrics["design"].get("space") == "gradient"


def by_auc(metrics: dict[str, Any]) -> list[str]:
    """The attacks from the highest AUC to the lowest."""
    return sorted(metrics["attacks"], key=lambda name: -metrics["attacks"][name]["auc"]["value"])


def baseline(metrics: dict[str, Any]) -> str | None:
    """The attack that needs no other models, to be drawn beside the headline: a threshold on the loss, or another one."""
    names = [name for name, attack in metrics["attacks"].items() if attack["name"] == "threshold" and name != metrics["headline"]]
    return next((name for name in names if metrics["attacks"][name]["options"].get("signal") == "loss"), names[0] if names else None)


def attack_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row an attack for the tables, the highest AUC first."""
    rows = []
    for name in by_auc(metrics):
        attack = metrics["attacks"][name]
        against = metrics["comparison"].get(name, {})
        rows.append({
            "id": name, "kind": attack["name"], "is_headline": name == metrics["headline"], "options": attack["options"],
            "n_references": attack["n_references"], "n_queries": attack["n_queries"], "auc": attack["auc"],
            "rates": [rate(attack, fpr) for fpr in levels(metrics)],
            "calibrated": [found for fpr in levels(metrics) if (found := calibrated(metrics, name, fpr))],
            "at_alpha": calibrated(metrics, name),
            "balanced_accuracy": attack["balanced_accuracy"], "advantage": attack["advantage"],
            "auc_difference": against.get("auc"), "tpr_difference": against.get("tpr"),
            "agreement": metrics["agreement"].get(name), "halves": attack["halves_of_references"],
            "spread": attack["per_target"]["spread"]["auc"] if attack["per_target"] else None,
        })  # fmt: skip
    return rows


def levels(metrics: dict[str, Any]) -> list[float]:
    """False-positive rates that were reported, the highest first."""
    return sorted({found["at_fpr"] for found in metrics["attacks"][metrics["headline"]]["rates"]}, reverse=True)


def most_exposed(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The records that are found most often, the surest first; none that is never found."""
    names, most = metrics["data"]["class_names"], (metrics["exposure"] or {"most": ()})["most"]
    if has_gradients(metrics):  # one is like another
        return []
    return [row | {"class": class_name(row["label"], names)} for row in most if row["n_detected"]]


def class_name(label: int, class_names: Sequence[str] | None) -> str:
    """What a class is called, or its number; imported records may be of none that is known."""
    if label < 0:
        return "unknown"
    return str(class_names[label]) if class_names and label < len(class_names) else str(label)


def class_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a class, the most exposed first; those without members or non-members last."""
    names = metrics["data"]["class_names"]
    if has_gradients(metrics):
        return []
    rows = [found | {"name": class_name(found["class"], names)} for found in metrics["classes"] or () if found["class"] >= 0]
    return sorted(rows, key=lambda row: -(row["auc"]["value"] if row["auc"] else -1))


def epsilon_found(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The lower bound of epsilon with the guesses of the training, or the target, that it comes from; None for designs that give none."""
    found = metrics.get("epsilon")
    if not found or found.get("epsilon") is None:
        return None
    runs, dp = found.get("runs") or [found], metrics["models"].get("dp") or {}
    claim = {"claimed": None, "p": None, "alarm": False, "claim_note": None, "is_declared": found.get("claimed") != dp.get("epsilon")}
    return {"strategy": None, "n_bounds": len(found.get("lower_bounds") or runs)} | max(runs, key=lambda run: run["epsilon"]) | claim | found


def epsilon_sentence(metrics: dict[str, Any]) -> list[str]:
    """What an audit of canaries or pairs says about epsilon, as one sentence; nothing for other designs."""
    found = epsilon_found(metrics)
    if found is None:
        return []
    held = f"(delta {found['delta']:g}, {100 * found['confidence']:g} % confidence)"
    if claim_alarm(metrics):
        return []  # the alarm says it
    claimed = "" if found.get("claimed") is None else f"; its claim of {figures(found['claimed'])} is not refuted"
    if found["epsilon"] == 0:
        return [f"The training is not shown to have a privacy loss: the lower bound of its epsilon is 0 {held}{claimed}."]
    return [f"The training's epsilon is at least {figures(found['epsilon'])} {held}{claimed}."]


def claim_alarm(metrics: dict[str, Any]) -> str | None:
    """What is wrong where the lower bound of epsilon exceeds what the training claims; None where it does not."""
    found = epsilon_found(metrics)
    if found is None or not found.get("alarm"):
        return None
    return (
        f"The training is less private than it claims: its epsilon is at least {figures(found['epsilon'])} at delta {found['delta']:g} "
        f"({100 * found['confidence']:g} % confidence), and the claim is {figures(found['claimed'])} (p {p_value(found['p'])})."
    )


def figures(epsilon: float) -> str:
    """An epsilon with two decimals, or with two digits that count: `4.00`, `0.083`."""
    return f"{epsilon:.2f}" if epsilon == 0 or epsilon >= 0.1 else f"{epsilon:.2g}"


def p_value(p: float) -> str:
    """`= 0.03`, `= 2e-10`, or `< 1e-12` where it is no more than can be told."""
    return f"= {p:.2g}" if p > LEAST_P else f"< {LEAST_P:g}"


def privacy_sentences(models: dict[str, Any]) -> list[str]:
    """What the accountant says about trainings with DP-SGD, and by which numbers; nothing about others."""
    if models.get("references"):
        return [f"Of the reference models: {sentence}" for sentence in privacy_sentences(models["references"])]
    dp = models.get("dp")
    if not dp:
        return []
    accountant = {"prv": "privacy loss distributions (Gopi et al. 2021)", "rdp": "Renyi divergences (Mironov 2017)"}
    found = [
        f"DP-SGD claims epsilon {figures(dp['epsilon'])} at delta {dp['delta']:g}: noise of {dp['noise_multiplier']:.3g} times the clipping norm {dp['clip']:g}, "
        f"{dp['steps']:,} steps, in each of which a record takes part with probability {dp['sample_rate']:.3g} (Abadi et al. 2016); "
        f"by {accountant.get(dp['accountant'], dp['accountant'])}. The claim is about a record more or less, and covers the weights and what is computed from "
        "them; not what is told beside them (losses and accuracies on training records, on this page too), nor the mean and deviation by which records were normalised."
    ]
    n = dp.get("batch_norm_replaced")
    if n:
        found.append(
            f"{n} batch normalisation{'s were' if n > 1 else ' was'} replaced by group normalisation, since it mixes the records of a batch."
        )
    return found
