"""What to know beside a verdict: alarms of the controls, what was mixed or loosened, what cannot be certified."""

from __future__ import annotations

from typing import Any

from memleak.report import pool, words
from memleak.report.limits import AVERAGE, FITS, learns

TOKENS_DIFFER = (
    "Members are cut into another number of tokens than the others, at equal lengths in bytes; where it is fewer, "
    "the tokenizer itself may have been trained on them"
)


def loosened_by(models: dict[str, Any]) -> list[str]:
    """The defences that keep these models from fitting their training data."""
    return models.get("loosened_by") or (["dp"] if models.get("dp") else [])


def of_loosened(metrics: dict[str, Any]) -> list[str]:
    """What to know of a defended training that fits its data badly."""
    models, found = metrics["models"], []
    accuracy, defences = models["train_accuracy"], loosened_by(models)
    if defences and not pool.has_gradients(metrics) and accuracy is not None and accuracy["value"] < FITS:
        found.append(
            f"Trained with {' and '.join(defences)}, the models are right on {accuracy['value']:.1%} of their training data alone: a model that knows little tells little."
        )
    return found


def of_mixed(models: dict[str, Any]) -> list[str]:
    """What was mixed where `allow_mixed` let it pass."""
    if not models["mixed"]:
        return []
    counted: dict[str, int] = {}
    for one in models["trained_on"]:
        name = f"{one['device']} with torch {one['torch']}"
        counted[name] = counted.get(name, 0) + one["n"]
    groups = "; ".join(f"{n} models on {name}" for name, n in counted.items())
    return [f"Models of several {' and '.join(models['mixed'])} are mixed ({groups}): part of what differs between them may come from that alone."]


def of_pairs(metrics: dict[str, Any]) -> list[str]:
    found = []
    controls = metrics["controls"]
    if controls["null"]["alarm"]:
        found.append(
            f"ALARM: models that never saw the record differ between early and late rounds (p = {controls['null']['p']:.2g}): something drifted while they were trained."
        )
    if controls.get("level", {}).get("alarm"):
        found.append(
            f"ALARM: the headline attack accuses {controls['level']['value']:.1%} of models that never saw the record, above alpha = {metrics['alpha']:.1%} (p = {controls['level']['p']:.2g} for the worst record); its fit is wrong for this signal."
        )
    untestable = [name for name, target in metrics["targets"].items() if not target["effect"]["testable"]]
    if untestable:
        target = metrics["targets"][untestable[0]]["effect"]
        found.append(
            f"The paired test is refused: with {target['n_rounds']} rounds no p-value reaches 0.05 over {len(metrics['targets'])} targets; at least {target['least_rounds']} rounds are needed."
        )
    headline = metrics["attacks"][metrics["headline"]]
    if headline["n_fitted"] < headline["models_for_level"]:
        found.append(
            f"Thresholds come from {headline['n_fitted']} models without the record; to promise a false-positive rate of at most {pool.level(metrics['alpha'])} with 95 % confidence takes {headline['models_for_level']}."
        )
    return found


def of_pool(metrics: dict[str, Any]) -> list[str]:
    found, null = [], metrics["controls"]["null"]
    if null and null["alarm"]:
        found.append(
            f"ALARM: scores know who was in the training set of a model that has nothing to do with the target (p = {null['p']:.2g}): the attack or its references give the answer away."
        )
    blind = metrics["controls"].get("blind")
    if blind and blind["alarm"]:
        found.append(
            f"ALARM: members can be told from non-members without the model (blind baseline: AUC {words.estimate(blind['auc'])}): "
            "the two sets differ in themselves, and an attack's success may come from that alone. Draw both from one source."
        )
    permuted = metrics["controls"].get("permuted")
    if permuted and permuted["alarm"]:
        found.append(
            f"ALARM: of {permuted['n']} shuffled labels {permuted['share_covered']:.0%} leave 0.5 in the interval of the AUC, where 95 % should: "
            "the intervals of this page are too narrow for such scores."
        )
    found += _of_texts(metrics["controls"])
    count = metrics["controls"].get("count")
    if count and count["alarm"]:
        found.append(
            f"ALARM: how many references trained on a record tells whether the target did (p = {count['p']:.2g}): a target's twin is among its references."
        )
    headline = metrics["attacks"][metrics["headline"]]
    if headline["auc"]["high"] < 0.5:
        found.append(f"The headline attack is worse than guessing (AUC {headline['auc']['value']:.3f}): its scores may have the wrong sign.")
    if metrics["design"].get("mislabelled"):
        found.append("The canaries have wrong labels, which only memory can answer: natural records leak less, and the verdict is not about them.")
    found += [*_of_given(metrics), *_of_threshold(metrics)]
    n, needed = pool.n_distinct(metrics), pool.records_for(metrics["alpha"])
    if n < needed:
        found.append(
            f"With {n:,} distinct records a false-positive rate of {pool.level(metrics['alpha'])} cannot be certified; that takes {needed:,}."
        )
    return found


def _of_texts(controls: dict[str, Any]) -> list[str]:
    """What tells two lists of texts apart without the audited model."""
    found = []
    length = controls.get("length")
    if length and length["alarm"]:
        name, size = next(iter(length["sizes"].items()))  # bytes where they are known
        found.append(
            f"ALARM: members can be told from non-members by their length alone ({name}: AUC {words.estimate(size['auc'])}): "
            "many attacks turn length into a score. Draw both from one source, or cut both alike."
        )
    if length and length.get("tokens_differ"):
        found.append(f"{TOKENS_DIFFER} (tokens: AUC {length['sizes']['tokens']['auc']['value']:.3f}).")
    form = controls.get("form")
    if form and form["alarm"]:
        name, column = min(form["columns"].items(), key=lambda item: item[1]["p"])
        found.append(
            f"ALARM: members can be told from non-members by how they are written ({name}: AUC {words.estimate(column['auc'])}): "
            "a model that was trained on texts written so tells them from others whether or not it has seen these. Bring both into one form."
        )
    placebo = controls.get("placebo")
    if placebo and placebo["alarm"]:
        found.append(
            f"ALARM: the reference model tells members too (AUC of its loss {words.estimate(placebo['auc'])}): "
            "it has seen them after all, or one of the two sets is the more ordinary."
        )
    return found


def _of_given(metrics: dict[str, Any]) -> list[str]:
    """What to know of a model of the user's."""
    given, found = metrics["models"].get("given"), []
    if given and not learns(metrics["models"]):
        found.append("The model is at chance or little better on records that it was not trained on: what it leaks may be memory alone.")
    if given and not given.get("is_repeatable", True):
        found.append(
            "Asked twice about the same records the model answers differently, so that attacks which ask more often see more than these do; "
            "is something random left on, such as dropout?"
        )
    return found


def _of_threshold(metrics: dict[str, Any]) -> list[str]:
    """What the verdict does not see, which reads one low false-positive rate."""
    headline = metrics["attacks"][metrics["headline"]]
    best, judged = headline["advantage"], pool.calibrated(metrics, metrics["headline"])
    if judged is None or headline.get("natural") or best["low"] < AVERAGE.high or judged["tpr"]["high"] >= best["value"]:
        return []
    return [
        f"At the best threshold for these scores TPR - FPR is {pool.share(best['value'])} (optimistic): an attacker who may be wrong more often than about "
        f"{pool.level(metrics['alpha'])} of the others learns more than the verdict says."
    ]
