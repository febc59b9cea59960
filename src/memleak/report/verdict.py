"""The verdict in plain words. The limits and the risk score stand here, once.

Risk is the attacker's advantage, from 0 to 100: of the models (or records) that are to be recognised, the share found
beyond what guessing at the same false-positive rate would find, (TPR - FPR) / (1 - FPR).

A `pairs` audit speaks of the most exposed record. There risk is 0 where no natural record shows evidence: the largest of
several noisy rates is not news. The interval holds for all targets at once (Bonferroni), since the most exposed one is
looked for. An audit in which every model is the target in turn speaks of the average record, at the threshold that mock
targets set; its limits are lower, since an average hides the few: where a tenth of all records is recognised with hardly
a false alarm, some are recognised nearly always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from memleak.report import notes as remarks
from memleak.report import pool
from memleak.report.limits import AVERAGE, FITS, MOST_EXPOSED, Limits, advantage, learns, state_of

LOOK_AT = "Clipping, noise, sampling or the accounting is not what the claim takes it to be."
WITH_CHECKPOINT = ("ez", "reference_model", "wbc")  # attacks that compare with another checkpoint
RISK_FPR = 0.01  # of the TPR in the risk score
ENOUGH = 100  # non-members without whom nothing is said of that rate
FEW = 20  # members, or non-members, below which an audit of texts grades nothing
LEAST = 5  # and below which its interval says nothing either
CONTROLS = ("null", "count", "level", "blind", "length", "form", "placebo", "permuted")  # an alarm of one of these refuses a verdict
LEVELS = ((10.0, "low"), (30.0, "moderate"), (60.0, "high"), (100.0, "critical"))  # the lower end of the risk score lies below


@dataclass(frozen=True)
class Verdict:
    """A state, the risk score 0-100 with its interval, and the reasons as sentences."""

    state: str  # LOW, MEDIUM, HIGH or UNDECIDED
    risk: float | None
    low: float | None
    high: float | None
    sentence: str
    notes: tuple[str, ...]
    is_refused: bool = False  # no figure of the audit can be believed; not a mere lack of a threshold


@dataclass(frozen=True)
class Risk:
    """The risk score of a model, 0 (no evidence) to 100, with its interval, and the level that its lower end stands for."""

    value: float
    low: float
    high: float
    level: str  # low, moderate, high, critical or inconclusive


NOTHING = Risk(0.0, 0.0, 100.0, "inconclusive")  # is known


def risk_score(
    auc: Mapping[str, float], tpr: Mapping[str, Any], blind: Mapping[str, float] | None, n_fewest: int, *, is_refused: bool = False
) -> Risk:
    """What one attack shows of a model: 100 max(2 AUC - 1, (TPR - .01) / .99), and 0 where its interval reaches 0.

    `tpr` is that at a false-positive rate of 1 %, left out where fewer than a hundred non-members speak of it. Where a classifier that
    never asks the model tells members too (`blind`, its AUC with interval), that is taken from the AUC, and the TPR is left out.
    The ends are those of either interval; the lower one always lacks what such a classifier cannot yet be excluded to tell. So few texts,
    or so wide an interval that it reaches from low to high, are inconclusive. Of an audit that the verdict refuses, or of a handful of
    texts, nothing is known: 0 to 100.
    """
    if is_refused or n_fewest < LEAST:
        return NOTHING
    is_shifted = blind is not None and blind["low"] > 0.5
    taken = {"value": 0.0, "low": unexplained(blind), "high": 0.0}
    if blind is not None and is_shifted:
        taken |= {"value": 2 * (blind["value"] - 0.5), "high": 2 * (blind["low"] - 0.5)}
    counts = not is_shifted and tpr["n_non_members"] >= ENOUGH
    value, low, high = (
        100 * max(0.0, max(2 * auc[end] - 1, advantage(tpr[end], RISK_FPR) if counts else 0.0) - taken[end]) for end in ("value", "low", "high")
    )
    if high == 0:  # worse than guessing, or than what never asks the model: no interval, but a sign that something is wrong
        return NOTHING
    level = next(name for limit, name in LEVELS if low < limit or limit == 100)
    is_open = level == "low" and high >= LEVELS[1][0]
    return Risk(value if low > 0 else 0.0, low, high, "inconclusive" if n_fewest < FEW or is_open else level)


def unexplained(blind: Mapping[str, float] | None) -> float:
    """The advantage at any false-positive rate that a difference between the two lists may give, 0 to 1: 2 AUC - 1 at the upper end of the blind AUC.

    Of a concave ROC no TPR lies further above its FPR.
    """
    return 2 * max(0.0, blind["high"] - 0.5) if blind is not None else 0.0


def limits_of(metrics: dict[str, Any]) -> Limits:
    """The limits that an audit is graded by."""
    return MOST_EXPOSED if metrics["kind"] == "pairs" else AVERAGE


def verdict(metrics: dict[str, Any]) -> Verdict:
    """The verdict of an audit from its metrics; of a given language model with the risk score that the tester tells of it."""
    if metrics["kind"] != "given" or not metrics["models"].get("of_tokens"):
        return _graded(metrics)
    n_fewest = _n_fewest(metrics)
    found = of_texts(metrics, n_fewest)
    if found.risk is None:
        return found
    risk = risk_of(metrics, n_fewest)
    return replace(found, risk=round(risk.value, 1), low=round(risk.low, 1), high=round(risk.high, 1))


def risk_of(metrics: dict[str, Any], n_fewest: int, *, is_refused: bool = False) -> Risk:
    """The risk score of an audit of texts, from its headline attack."""
    headline, blind = metrics["attacks"][metrics["headline"]], metrics["controls"].get("blind") or {}
    tpr = pool.rate(headline, RISK_FPR) or {"n_non_members": 0}
    return risk_score(headline["auc"], tpr, blind.get("auc"), n_fewest, is_refused=is_refused)


def _n_fewest(metrics: dict[str, Any]) -> int:
    """Different texts of the smaller side, as the blind control counted them; without it, at most so many."""
    blind = metrics["controls"].get("blind") or {}
    if "n_members" in blind:
        return min(blind["n_members"], blind["n_non_members"])
    members = [part["n_audited"] for part in metrics.get("parts") or () if part["is_member"]]
    return min([pool.n_distinct(metrics), *([sum(members)] if members else [])])


def _graded(metrics: dict[str, Any]) -> Verdict:
    """The verdict by the advantage over guessing at the audit's false-positive rate."""
    notes = (*remarks.of_mixed(metrics["models"]), *(remarks.of_pairs(metrics) if metrics["kind"] == "pairs" else remarks.of_pool(metrics)))
    broken = pool.claim_alarm(metrics)
    notes = (*([f"ALARM: {broken} {LOOK_AT}"] if broken else []), *notes, *remarks.of_loosened(metrics))
    refused = _refusal(metrics)
    if refused:
        found = Verdict("UNDECIDED", None, None, None, refused, notes, is_refused=True)
    elif pool.has_gradients(metrics):
        found = _of_gradients(metrics, notes)
    else:
        found = _of_pairs(metrics, notes) if metrics["kind"] == "pairs" else _of_pool(metrics, notes)
    return found if broken is None else _alarmed(found)


def of_texts(metrics: dict[str, Any], n_fewest: int) -> Verdict:
    """The verdict of an audit of listed texts: undecided, whatever the rates, of too few, or of two lists that may differ by as much in themselves."""
    found = _graded(metrics)
    if found.is_refused:
        return found
    if n_fewest < FEW:
        texts = "different text" if n_fewest == 1 else "different texts"
        why = f"The audit is inconclusive: {n_fewest} {texts} on one side, and {FEW} of each are the least that is graded; bring some hundreds."
        return Verdict("UNDECIDED", None, None, None, why, found.notes)
    taken = unexplained((metrics["controls"].get("blind") or {}).get("auc"))
    if found.state not in ("HIGH", "MEDIUM") or found.low is None or found.high is None:
        return found
    if state_of(found.low / 100 - taken, found.high / 100, AVERAGE) == found.state:
        return found
    why = (
        "No grade: the blind control cannot yet exclude a difference of this size between the two lists; "
        "give more texts, or draw them at random from one source."
    )
    return replace(found, state="UNDECIDED", sentence=f"{found.sentence} {why}")


def _alarmed(found: Verdict) -> Verdict:
    """The verdict on a training that breaks its promise: never LOW, whatever its attackers achieve, and this before all else."""
    state = "UNDECIDED" if found.state == "LOW" else found.state
    return replace(found, state=state, sentence=f"The training is less private than it claims; see the alarm. {found.sentence}")


def _of_gradients(metrics: dict[str, Any], notes: tuple[str, ...]) -> Verdict:
    """No grade: what is held against its promise is the training, and no record's risk is measured."""
    bound = " ".join(pool.epsilon_sentence(metrics))
    why = "No verdict on records: the canaries are gradients, seen by an adversary who sees every step; they hold the training to its promise."
    return Verdict("UNDECIDED", None, None, None, f"{bound} {why}".strip(), notes)


def _refusal(metrics: dict[str, Any]) -> str | None:
    """Why no audit of these models says anything, if so.

    With a defence a model may fit its data badly: that is the price, and what is released is that model. A bound by
    gradient canaries holds whatever the model learns.
    """
    models, controls = metrics["models"], metrics["controls"]
    is_judged = models["train_accuracy"] is not None and not models.get("of_tokens")  # no language model knows every next token of its texts
    fits = bool(remarks.loosened_by(models)) or not is_judged or models["train_accuracy"]["value"] >= FITS
    is_given = models.get("given") is not None  # it is as it is: one that knows its members by heart leaks, however little else it knows
    if not pool.has_gradients(metrics) and (not fits or (not learns(models) and not is_given)):
        which = "is at chance or little better" if not learns(models) else "does not fit its data"
        accuracies = f"train accuracy {models['train_accuracy']['value']:.1%}, test accuracy {models['test_accuracy']['value']:.1%}, chance {models['chance']:.1%}"
        return f"This model {which} ({accuracies}); the audit says nothing."
    if any((controls.get(control) or {}).get("alarm") for control in CONTROLS):
        return "A control of the audit failed, so its rates cannot be believed; see the alarm."
    return None


def _of_pairs(metrics: dict[str, Any], notes: tuple[str, ...]) -> Verdict:
    alpha = metrics["alpha"]
    natural = {name: target for name, target in metrics["targets"].items() if not target["is_canary"]}
    missed = [name for name, control in metrics["controls"]["positive"].items() if not control["found"]]
    if missed:
        why = f"The positive control {', '.join(missed)} was not found: the audit is too weak to say anything. Add rounds."
        return Verdict("UNDECIDED", None, None, None, why, notes)
    judged = {name: target["attacks"][metrics["headline"]] for name, target in natural.items()}
    if not judged or any("tpr" not in attack for attack in judged.values()):
        why = "no natural record was audited, only canaries" if not judged else "there are no hold-out rounds, so every rate is optimistic"
        why = f"No verdict: {why}. Set {'targets' if not judged else 'holdout_rounds'} in the design."
        return Verdict("UNDECIDED", None, None, None, why, notes)
    shown = [attack["tpr"] for name, attack in judged.items() if natural[name]["state"] != "no evidence"]
    value, low = (max((advantage(tpr[key], alpha) for tpr in shown), default=0.0) for key in ("value", "low_of_all"))
    high = advantage(max(attack["tpr"]["high_of_all"] for attack in judged.values()), alpha)
    state = state_of(low, high)
    exposed = [name for name in natural if natural[name]["state"] == "exposed"]
    sentence = (
        f"{len(exposed)} of {len(natural)} natural records are exposed"
        + (f" ({', '.join(exposed)})" if exposed else "")
        + f": an attacker who may train models with and without a record, and sets out to be wrong about at most {pool.level(alpha)} of the models that never saw it, "
        + (
            f"recognises {_of_all(max((a['tpr'] for a in judged.values()), key=lambda tpr: tpr['value']))} of the models that trained on the most exposed one."
            if exposed
            else "is not shown to do better than guessing."
        )
    )
    if state == "UNDECIDED":
        sentence += " The interval is too wide for a grade; more hold-out rounds narrow it."
    return Verdict(state, round(100 * value, 1), round(100 * low, 1), round(100 * high, 1), sentence, notes)


def _of_all(tpr: Mapping[str, Any]) -> str:
    """The power on one record, with the interval that holds for all records at once."""
    return pool.interval({"value": tpr["value"], "low": tpr["low_of_all"], "high": tpr["high_of_all"]})


def _of_pool(metrics: dict[str, Any], notes: tuple[str, ...]) -> Verdict:
    """The verdict on the average record, by the headline attack at the threshold that mock targets set for alpha."""
    natural = metrics["attacks"][metrics["headline"]].get("natural")
    if natural and natural["is_only"]:
        return _of_correctness(natural, notes)
    found, bound = pool.calibrated(metrics, metrics["headline"]), pool.epsilon_sentence(metrics)
    if found is None:
        return Verdict("UNDECIDED", None, None, None, " ".join([_without_threshold(metrics), *bound]), notes)
    tpr, fpr = found["tpr"], found["achieved_fpr"]
    if tpr["value"] == 0 and fpr["value"] == 0:
        why = f"No verdict: so many scores tie that nobody lies beyond the thresholds for {pool.level(metrics['alpha'])}; raise alpha, or choose an attack with finer scores."
        return Verdict("UNDECIDED", None, None, None, " ".join([why, *bound]), notes)
    value = advantage(tpr["value"], fpr["value"])
    # both half widths added up: the most that any dependence between the two rates makes of them
    low, high = advantage(tpr["low"], fpr["high"]), advantage(tpr["high"], fpr["low"])
    own = youden(natural) if natural else (0.0, 0.0, 0.0)
    if own[0] > value:  # of an attack that has a threshold of its own the one at which it tells more
        return _of_own_threshold(metrics, natural, (own[0], max(own[1], low), max(own[2], high)), notes)
    low, high = max(low, own[1]), max(high, own[2])
    state = state_of(low, high, AVERAGE)
    records = pool.records(metrics)
    sentence = f"{_attacker(metrics)} to be wrong about at most {pool.level(metrics['alpha'])} of the {records} that a model never saw "
    if low > 0:
        sentence += f"recognises {pool.interval(tpr)} of those that it was trained on and is wrong about {pool.interval(fpr)} of the others."
    else:
        sentence += (
            f"is not shown to do better than guessing: {pool.interval(tpr)} of those that it was trained on are recognised, "
            f"and {pool.interval(fpr)} of the others are taken for such."
        )
    if state == "UNDECIDED":
        more = "members and non-members" if metrics["kind"] == "given" else "models"
        sentence += f" The interval reaches across the limit of a grade; more {more} narrow it."
    return Verdict(state, round(100 * value, 1), round(100 * low, 1), round(100 * high, 1), " ".join([sentence, *bound]), notes)


def _without_threshold(metrics: dict[str, Any]) -> str:
    """Why no threshold could be set for alpha."""
    if metrics.get("thresholds_from") == "other non-members":
        return (
            f"No verdict: with {pool.n_distinct(metrics):,} non-members no threshold can be set for a false-positive rate of {pool.level(metrics['alpha'])}; "
            f"bring {pool.non_members_for(metrics['alpha'])} or more, or raise alpha."
        )
    needed = pool.MODELS_FOR_MOCKS.get(metrics["kind"], pool.MODELS_FOR_MOCKS["halves"])
    todo = "import more models, or raise alpha" if metrics["kind"] == "imported" else "raise models in the design"
    return f"No verdict: thresholds are set on mock targets, which takes {needed} models or more, and records for alpha; {todo}."


def youden(rates: dict[str, Any]) -> tuple[float, float, float]:
    """TPR - FPR, at least 0, and the ends of its interval: both half widths added up."""
    tpr, fpr = rates["tpr"], rates["achieved_fpr"]
    value, low, high = (max(0.0, tpr[a] - fpr[b]) for a, b in (("value", "value"), ("low", "high"), ("high", "low")))
    return value, low, high


def _of_own_threshold(metrics: dict[str, Any], natural: dict[str, Any], found: tuple[float, float, float], notes: tuple[str, ...]) -> Verdict:
    """The verdict at the threshold that an attack fitted on its references, where it tells more than at alpha."""
    value, low, high = found
    state = state_of(low, high, AVERAGE)
    n = metrics["attacks"][metrics["headline"]]["n_references"]
    sentence = (
        f"An attacker who may train {n} model{'s' if n > 1 else ''} on similar data, and says member where a rule fitted on {'those' if n > 1 else 'it'} does, recognises "
        f"{pool.interval(natural['tpr'])} of the {pool.records(metrics)} that a model was trained on and is wrong about {pool.interval(natural['achieved_fpr'])} "
        f"of the others; at a false-positive rate of {pool.level(metrics['alpha'])} it tells less."
    )
    if state == "UNDECIDED":
        more = "members and non-members" if metrics["kind"] == "given" else "models"
        sentence += f" The interval reaches across the limit of a grade; more {more} narrow it."
    return Verdict(state, round(100 * value, 1), round(100 * low, 1), round(100 * high, 1), sentence, notes)


def _of_correctness(natural: dict[str, Any], notes: tuple[str, ...]) -> Verdict:
    """The verdict by an attack that says member where the model is right: on TPR - FPR, the only two rates that it has (Yeom et al. 2018)."""
    tpr, fpr = natural["tpr"], natural["achieved_fpr"]
    value, low, high = youden(natural)
    state = state_of(low, high, AVERAGE)
    sentence = (
        f"An attacker who says member wherever the model is right recognises {pool.interval(tpr)} of the records that it was trained on, "
        f"and is wrong about {pool.interval(fpr)} of the others; stronger attacks see more."
    )
    if state == "UNDECIDED":
        sentence += " The interval reaches across the limit of a grade; more records narrow it."
    return Verdict(state, round(100 * value, 1), round(100 * low, 1), round(100 * high, 1), sentence, notes)


def _attacker(metrics: dict[str, Any]) -> str:
    n = metrics["attacks"][metrics["headline"]]["n_references"]
    if metrics["attacks"][metrics["headline"]]["name"] in WITH_CHECKPOINT and not n:
        return "An attacker who holds a model that has not seen the texts, such as the one that was fine-tuned, and sets out"
    return (
        f"An attacker who may train {n} model{'s' if n > 1 else ''} on similar data and sets out"
        if n
        else "An attacker without models of their own who sets out"
    )
