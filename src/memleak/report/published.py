"""Published figures that a reader may know, with the set-up that each was measured in. None is reproduced here.

Only figures that were checked again in the source named; where nothing is said of a set-up, the source does not say it
where the figure was checked. For data sets that are not listed there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memleak.params import n_views


@dataclass(frozen=True)
class Figure:
    """One attack's published rates, all as fractions, `spread` being the source's own plus-or-minus; and the set-up."""

    source: str
    address: str
    attack: str
    auc: str
    tpr: dict[float, str]
    images: str
    architecture: str
    models: str
    queries: str
    epochs: str
    accuracy: str = "not stated"


def _lira_analysis(attack: str, auc: str, at_thousandth: str, at_hundred_thousandth: str) -> Figure:
    return Figure(
        source="Jebreel et al. 2026, Table 3, leave one out",
        address="https://github.com/najeebjebreel/lira_analysis/blob/main/ARTIFACT-APPENDIX.md",
        attack=attack,
        auc=auc,
        tpr={0.001: at_thousandth, 0.00001: at_hundred_thousandth},
        images="original PNG; each model on a random half",
        architecture="ResNet-18",
        models="256",
        queries="18",
        epochs="up to 100, with flips, crops and cutout",
    )


def _rmia(attack: str, auc: str, tpr: dict[float, str], references: str, issue: int, queries: str) -> Figure:
    return Figure(
        source=f"Zarifzadeh et al. 2024, as quoted in issue {issue} of their code",
        address=f"https://github.com/privacytrustlab/ml_privacy_meter/issues/{issue}",
        attack=attack,
        auc=auc,
        tpr=tpr,
        images="original PNG",
        architecture="Wide-ResNet",
        models=f"{references} references",
        queries=queries,
        epochs="not stated",
        accuracy="train 99.9 %, test 92.4 %",
    )


FIGURES: dict[str, tuple[Figure, ...]] = {
    "cifar10": (
        _lira_analysis("LiRA online", "0.765 ± 0.003", "10.3 % ± 0.6", "4.0 % ± 1.1"),
        _lira_analysis("LiRA online, fixed variance", "0.763 ± 0.003", "9.1 % ± 0.5", "2.9 % ± 1.1"),
        _lira_analysis("LiRA offline", "0.556 ± 0.009", "3.3 % ± 0.3", "0.8 % ± 0.3"),
        _lira_analysis("global threshold", "0.600 ± 0.003", "0.1 % ± 0.03", "0.003 % ± 0.004"),
        _rmia("RMIA online", "0.723", {0.0001: "4.31 %"}, "254", 146, "not stated"),
        _rmia("LiRA online", "0.720", {0.0001: "3.39 %"}, "254", 146, "not stated"),
        _rmia("RMIA offline", "0.710", {0.0001: "2.91 %", 0.0: "2.13 %"}, "4", 151, "not stated"),
    ),
    "cifar100": (),
}
LEVELS = (0.001, 0.0001, 0.00001, 0.0)


def beside(metrics: dict[str, Any]) -> tuple[Figure, ...] | None:
    """What is published for the data set of an audit; None for one of which this module knows nothing."""
    if metrics["kind"] not in ("halves", "canaries") or metrics["design"].get("space") == "gradient":
        return None  # models of the user's, or no records
    return FIGURES.get(metrics["data"]["name"])


def own_setup(metrics: dict[str, Any], params: dict[str, Any]) -> dict[str, str]:
    """The set-up of the audit in the words of the table."""
    source, recipe = (params.get("dataset") or {}).get("source"), params["recipe"]
    augmented = [name for name in ("flip", "shift") if recipe.get(name)]
    models = metrics["models"]
    return {
        "images": f"{'from a folder of the user, as encoded there' if source not in (None, 'torchvision') else 'original PNG'}; "
        f"{models['n_train']:,} of {metrics['n_samples']:,} records a model",
        "architecture": recipe["architecture"],
        "models": f"{models['n']}, {metrics['attacks'][metrics['headline']]['n_references']} references",
        "queries": str(n_views(params["entry"]["views"])),
        "epochs": f"known to {recipe['trainer']} alone"
        if recipe.get("trainer")
        else f"{recipe['epochs']}, {'with ' + ' and '.join(augmented) if augmented else 'without augmentation'}",
        "accuracy": f"train {100 * models['train_accuracy']['value']:.1f} %, test {100 * models['test_accuracy']['value']:.1f} %",
    }


def differences(metrics: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """Every way in which the audit's set-up differs from that of the published figures, one phrase each."""
    own, figures = own_setup(metrics, params), beside(metrics) or ()
    names = ("images", "architecture", "models", "queries", "epochs", "accuracy")
    return [f"{name}: here {own[name]}, there {' or '.join(dict.fromkeys(getattr(one, name) for one in figures))}" for name in names]
