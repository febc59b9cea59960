"""The verdict in plain words. The limits and the risk score stand here, once.

Risk is the attacker's advantage on the most exposed record: of the models that trained on it, the share found
beyond what guessing at the same false-positive rate would find, (TPR - alpha) / (1 - alpha), from 0 to 100. It is 0
where no natural record shows evidence: the largest of several noisy rates is not news. The interval holds for all
targets at once (Bonferroni), since the most exposed one is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HIGH = 0.30  # advantage: HIGH if the whole interval lies at or above
LOW = 0.10  # LOW if the whole interval lies below
FITS = 0.90  # a model with a lower train accuracy does not fit its data


@dataclass(frozen=True)
class Verdict:
    """A state, the risk score 0-100 with its interval, and the reasons as sentences."""

    state: str  # LOW, MEDIUM, HIGH or UNDECIDED
    risk: float | None
    low: float | None
    high: float | None
    sentence: str
    notes: tuple[str, ...]


def state_of(low: float, high: float) -> str:
    """The state that an interval of the advantage stands for."""
    if low >= HIGH:
        return "HIGH"
    if high < LOW:
        return "LOW"
    return "MEDIUM" if low >= LOW and high < HIGH else "UNDECIDED"


def advantage(tpr: float, alpha: float) -> float:
    """What the attacker finds beyond guessing, 0 to 1."""
    return max(0.0, (tpr - alpha) / (1 - alpha))


def learns(models: dict[str, Any]) -> bool:
    """Test accuracy at least five times chance, or half way from chance to 1 where there are few classes."""
    return models["test_accuracy"]["value"] >= min(5 * models["chance"], (1 + models["chance"]) / 2)


def verdict(metrics: dict[str, Any]) -> Verdict:
    """The verdict of a `pairs` audit from its metrics."""
    alpha, models = metrics["alpha"], metrics["models"]
    notes = list(_warnings(metrics))
    natural = {name: target for name, target in metrics["targets"].items() if not target["is_canary"]}
    if not learns(models) or models["train_accuracy"]["value"] < FITS:
        which = "is at chance" if not learns(models) else "does not fit its data"
        accuracies = f"train accuracy {models['train_accuracy']['value']:.1%}, test accuracy {models['test_accuracy']['value']:.1%}, chance {models['chance']:.1%}"
        return Verdict("UNDECIDED", None, None, None, f"This model {which} ({accuracies}); the audit says nothing.", tuple(notes))
    if any(metrics["controls"].get(control, {}).get("alarm") for control in ("null", "level")):
        return Verdict("UNDECIDED", None, None, None, "A control of the audit failed, so its rates cannot be believed; see the alarm.", tuple(notes))
    missed = [name for name, control in metrics["controls"]["positive"].items() if not control["found"]]
    if missed:
        return Verdict(
            "UNDECIDED",
            None,
            None,
            None,
            f"The positive control {', '.join(missed)} was not found: the audit is too weak to say anything. Add rounds.",
            tuple(notes),
        )
    judged = {name: target["attacks"][metrics["headline"]] for name, target in natural.items()}
    if not judged or any("tpr" not in attack for attack in judged.values()):
        why = "no natural record was audited, only canaries" if not judged else "there are no hold-out rounds, so every rate is optimistic"
        return Verdict(
            "UNDECIDED", None, None, None, f"No verdict: {why}. Set {'targets' if not judged else 'holdout_rounds'} in the design.", tuple(notes)
        )
    shown = [attack["tpr"] for name, attack in judged.items() if natural[name]["state"] != "no evidence"]
    value, low = (max((advantage(tpr[key], alpha) for tpr in shown), default=0.0) for key in ("value", "low_of_all"))
    high = advantage(max(attack["tpr"]["high_of_all"] for attack in judged.values()), alpha)
    state = state_of(low, high)
    exposed = [name for name in natural if natural[name]["state"] == "exposed"]
    sentence = (
        f"{len(exposed)} of {len(natural)} natural records are exposed"
        + (f" ({', '.join(exposed)})" if exposed else "")
        + f": an attacker who may train models with and without a record, and sets out to be wrong about at most {alpha:.0%} of the models that never saw it, "
        + (
            f"recognises {max(a['tpr']['value'] for a in judged.values()):.0%} of the models that trained on the most exposed one."
            if exposed
            else "is not shown to do better than guessing."
        )
    )
    if state == "UNDECIDED":
        sentence += " The interval is too wide for a grade; more hold-out rounds narrow it."
    return Verdict(state, round(100 * value, 1), round(100 * low, 1), round(100 * high, 1), sentence, tuple(notes))


def _warnings(metrics: dict[str, Any]) -> list[str]:
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
            f"Thresholds come from {headline['n_fitted']} models without the record; to promise a false-positive rate of at most {metrics['alpha']:.0%} with 95 % confidence takes {headline['models_for_level']}."
        )
    return found
