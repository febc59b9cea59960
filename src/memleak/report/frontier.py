"""What the page of a sweep says: which defence helps, at what cost, and one row a variant.

A defence is said to help where the headline attack's AUC is lower than the baseline's in the paired test, Holm-corrected
over the variants; to cost, where accuracy is; to cost little, where the interval of that difference says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memleak.report import pool
from memleak.report.variants import (
    LEVELS,
    auc,
    baseline,
    bound_of,
    change,
    direction,
    failed,
    has_alarm,
    in_order,
    in_words,
    kind,
    p_value,
    points,
    step_in_words,
    tpr,
    value,
)  # fmt: skip

HELPS, COSTS, UNPRICED = "HELPS, at little or no cost", "HELPS, at a cost", "HELPS, its cost not tested"
NOT_SHOWN, NOT_TESTED, ALARM = "NOT SHOWN TO HELP", "NOT TESTED", "ALARM"
GRADE = {HELPS: "LOW", COSTS: "MEDIUM", UNPRICED: "MEDIUM", NOT_SHOWN: "UNDECIDED", NOT_TESTED: "UNDECIDED", ALARM: "HIGH"}  # colours of the page
LITTLE = 0.02  # of accuracy: a cost that is at most so large, by its interval, is called little
NEGLIGIBLE = 0.005  # of AUC
_ENOUGH = 3  # examples that a sentence names before it counts the rest


@dataclass(frozen=True)
class Finding:
    """What a sweep found: its state, the sentence that says so and what goes with it, the alarms, and what else is to be known."""

    state: str
    sentence: str
    more: tuple[str, ...]
    alarms: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def grade(self) -> str:
        """The grade of an audit whose colour the state has."""
        return GRADE[self.state]


def finding(sweep: dict[str, Any]) -> Finding:
    """The finding of a sweep from its numbers."""
    state, sentence, *more = _what_helped(sweep)
    found = tuple(alarms(sweep))
    return Finding(ALARM if found else state, sentence, tuple(more), found, tuple(_notes(sweep)))


def _what_helped(sweep: dict[str, Any]) -> list[str]:
    """The state of a sweep, then sentences, the first of which says which variant buys most privacy for the least accuracy.

    A variant whose claim of privacy failed, or a control of its audit, is not recommended.
    """
    tested, helping, best = _tested(sweep), _helping(sweep), recommended(sweep)
    if not tested:
        return [NOT_TESTED, _untested(sweep)]
    if best is None:
        return [NOT_SHOWN, *_none_helped(sweep, tested)]
    if _is_cheap(best):
        said = f"{_name(best)} buys most privacy at little or no cost in accuracy: {_bought(sweep, best)}; {_paid(sweep, best)}."
        return [HELPS, said, *_at_low_rates(sweep, best), *_goes_further(best, helping)]
    if direction(sweep, best, "utility") == "unknown":
        return [UNPRICED, f"{_name(best)} buys most privacy: {_bought(sweep, best)}; {_paid(sweep, best)}.", *_at_low_rates(sweep, best)]
    said = f"{_name(best)} buys most privacy for the accuracy that it costs: {_bought(sweep, best)}; {_paid(sweep, best)}."
    return [
        COSTS,
        said,
        f"None is shown to help at a cost of less than {100 * LITTLE:.0f} points.",
        *_at_low_rates(sweep, best),
        *_goes_further(best, helping),
    ]


def recommended(sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The variant that buys most privacy at little cost; where none is cheap, the one that buys most for what it costs; None where none is shown to help."""
    helping = _helping(sweep)
    cheap = [variant for variant in helping if _is_cheap(variant)]
    return min(cheap, key=_gain) if cheap else max(helping, key=_worth, default=None)


def _tested(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    return [variant for variant in sweep["variants"] if direction(sweep, variant, "auc") != "unknown"]


def _helping(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The variants that are shown to leak less, and whose audits can be believed; what fools the headline alone only where nothing else helps."""
    lower = [variant for variant in _tested(sweep) if direction(sweep, variant, "auc") == "lower" and not has_alarm(variant) and not failed(variant)]
    return [variant for variant in lower if _stronger_attack(sweep, variant) is None] or lower


def released_in_words(variant: dict[str, Any]) -> str:
    """The steps between a variant's model and its users: `top k 3, then round 2`."""
    return ", then ".join(step_in_words(step) for step in variant["release"])


def _name(variant: dict[str, Any]) -> str:
    return str(variant["label"])


def _is_cheap(variant: dict[str, Any]) -> bool:
    """Whether the accuracy that it costs is surely little: that no cost is shown would not say so where few models vary much."""
    paid = variant["against"]["utility"]
    return paid is not None and paid["low"] is not None and paid["low"] >= -LITTLE


def _gain(variant: dict[str, Any]) -> float:
    """The AUC less that of the baseline: the lower, the more privacy."""
    return float(variant["against"]["auc"]["difference"])


def _worth(variant: dict[str, Any]) -> float:
    """AUC taken from the attacker for each point of accuracy; where the price is not known, AUC alone and below all others."""
    paid = (variant["against"]["utility"] or {"difference": None})["difference"]
    return -1 - _gain(variant) if paid is None else _gain(variant) / min(paid, -1e-9)


def _bought(sweep: dict[str, Any], variant: dict[str, Any]) -> str:
    difference = variant["against"]["auc"]
    return (
        f"the headline attack's AUC is {auc(variant['auc'])} where it is {auc(baseline(sweep)['auc'])} without a defence "
        f"(difference {change(difference)}, {p_value(difference['p_holm'])})"
    )


def _paid(sweep: dict[str, Any], variant: dict[str, Any]) -> str:
    difference = variant["against"]["utility"]
    if difference is None or difference["difference"] is None:
        return "what it costs in accuracy was not tested"
    said = (
        f"accuracy is {pool.interval(variant['utility'])} where it was {pool.interval(baseline(sweep)['utility'])} (difference {points(difference)}"
    )
    if direction(sweep, variant, "utility") == "same" and difference["low"] is not None and difference["low"] < 0:
        return f"{said}: no loss is shown, one of {-100 * difference['low']:.1f} points is not excluded)"
    return f"{said}, {p_value(difference['p_holm'])})"


def _at_low_rates(sweep: dict[str, Any], variant: dict[str, Any]) -> list[str]:
    """What becomes of the few members that are found with hardly a false alarm, which an AUC does not see."""
    own, before, difference = tpr(variant, LEVELS[0]), tpr(baseline(sweep), LEVELS[0]), variant["against"].get("tpr")
    if own is None or before is None or difference is None:
        return []
    said = f"At a false-positive rate of {pool.level(LEVELS[0])}, {pool.interval(own)} of the members are found; without a defence {pool.interval(before)}"
    end = {
        "lower": "", "same": ", and no difference is shown there", "higher": ": MORE than without it", "unknown": "",
    }[direction(sweep, variant, "tpr")]  # fmt: skip
    return [f"{said} (difference {points(difference)}){end}."]


def _goes_further(best: dict[str, Any], helping: Sequence[dict[str, Any]]) -> list[str]:
    """The variant with the lowest AUC, where that is another one than is recommended."""
    furthest = min(helping, key=_gain)
    if furthest["label"] == best["label"]:
        return []
    cost = furthest["against"]["utility"]
    return [f"{_name(furthest)} goes further, to an AUC of {auc(furthest['auc'])}, at a difference in accuracy of {points(cost)}."]


def _none_helped(sweep: dict[str, Any], tested: Sequence[dict[str, Any]]) -> list[str]:
    closest = min(tested, key=_gain)
    worse = [_name(variant) for variant in tested if direction(sweep, variant, "auc") == "higher"]
    alarmed = [_name(variant) for variant in tested if direction(sweep, variant, "auc") == "lower"]
    before = f"lower than without a defence ({auc(baseline(sweep)['auc'])}) by more than chance explains."
    if alarmed:
        return [
            f"No defence is shown to help but {_listed(alarmed)}, which an alarm speaks against: in no other variant is the headline attack's AUC {before}"
        ]
    which = (
        f"in none of {len(tested)} variants is the headline attack's AUC"
        if len(tested) > 1
        else f"with {_name(closest)} the headline attack's AUC is not"
    )
    said = [f"No defence is shown to help: {which} {before}"]
    if len(worse) < len(tested):
        most = f"{_name(closest)} has {'the lowest' if len(tested) > 1 else 'an'} AUC, {auc(closest['auc'])}, and a difference of {change(closest['against']['auc'])}"
        said.append(f"That no difference is shown does not mean that there is none: {most}.")
    return said


def _untested(sweep: dict[str, Any]) -> str:
    if len(sweep["variants"]) < 2:
        return "There is nothing to compare: the sweep has the baseline alone."
    if any((variant["against"] or {}).get("auc") for variant in sweep["variants"]):
        return (
            f"No variant was tested against {sweep['baseline']}: each was trained once, which does not show how much trainings of one recipe differ; "
            "give the design more models."
        )
    return (
        f"No variant was tested against {sweep['baseline']}: a paired test takes an AUC of every variant, on the same targets and records, "
        f"which this sweep ({sweep['kind']}) does not have. What each audit found by itself stands in the table; of two intervals side by side none says which variant is better."
    )


def alarms(sweep: dict[str, Any]) -> list[str]:
    """One sentence for each variant whose audit cannot be believed, or whose training is shown to be less private than it claims."""
    found = [
        f"ALARM: in the audit of {_name(variant)} a control failed ({', '.join(failed(variant))}): its numbers cannot be believed, nor can what is compared with them."
        for variant in sweep["variants"]
        if failed(variant)
    ]
    for variant in sweep["variants"]:
        if not has_alarm(variant):
            continue
        bound = variant["epsilon"]
        found.append(
            f"ALARM: the training of {_name(variant)} is less private than it claims: its epsilon is at least {pool.figures(bound['epsilon'])} and the claim is "
            f"{_claimed(bound)} at delta {bound['delta']:g} ({p_value(bound['p_holm'])}, Holm over the sweep's claims)."
        )
    return found


def _claimed(bound: dict[str, Any]) -> str:
    return "n/a" if bound["claimed"] is None else pool.figures(bound["claimed"])


def _notes(sweep: dict[str, Any]) -> list[str]:
    found = []
    if worse := [variant for variant in sweep["variants"] if direction(sweep, variant, "auc") == "higher"]:
        named = _listed([f"{_name(variant)} (AUC {auc(variant['auc'])}, difference {change(variant['against']['auc'])})" for variant in worse])
        found.append(f"More leaks than without a defence from {named}.")
    if stronger := [said for variant in sweep["variants"] if (said := _stronger(sweep, variant))]:
        found.append(
            f"Another attack than the headline sees more of {_listed(stronger)}: what a defence does to the headline alone may be no privacy."
        )
    for variant in sweep["variants"]:
        bound = bound_of(variant)
        if bound and not bound["alarm"] and bound["p"] is not None and bound["p"] <= 1 - bound["confidence"]:
            found.append(
                f"The audit of {_name(variant)} by itself finds its bound above the claim ({p_value(bound['p'])}); over all claims of the sweep that is not more than chance "
                f"explains ({p_value(bound['p_holm'])})."
            )
    return found


def _stronger_attack(sweep: dict[str, Any], variant: dict[str, Any]) -> str | None:
    """The attack that surely sees more of a variant than the headline, if any: the whole interval of its AUC lies above the headline's."""
    if value(variant["auc"]) is None or variant["auc"]["high"] is None:
        return None
    others = {name: found["auc"] for name, found in (variant["attacks"] or {}).items() if name != sweep["headline"]}
    above = {name: found for name, found in others.items() if value(found) is not None and (found["low"] or 0) > variant["auc"]["high"]}
    return max(above, key=lambda name: above[name]["value"]) if above else None


def _stronger(sweep: dict[str, Any], variant: dict[str, Any]) -> str | None:
    """The same in words."""
    name = _stronger_attack(sweep, variant)
    return name and f"{_name(variant)} ({name}: AUC {auc(variant['attacks'][name]['auc'])}, {sweep['headline']}: {auc(variant['auc'])})"


def _listed(names: Sequence[str]) -> str:
    if len(names) > _ENOUGH:
        return f"{', '.join(names[:_ENOUGH])} and {len(names) - _ENOUGH} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def rows(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a variant for the table, in the order of `in_order`; `number` is that of the figures."""
    return [
        variant | {
            "number": number, "is_baseline": variant["label"] == sweep["baseline"], "kind": kind(sweep, variant), "has_alarm": has_alarm(variant),
            "epsilon": bound_of(variant), "trained": in_words(variant["changes"]), "released": [step_in_words(step) for step in variant["release"]],
            "tpr_1": tpr(variant, LEVELS[0]), "tpr_01": tpr(variant, LEVELS[1]), "found": said_of(sweep, variant), "tone": tone(sweep, variant),
        }
        for number, variant in enumerate(in_order(sweep), start=1)
    ]  # fmt: skip


def said_of(sweep: dict[str, Any], variant: dict[str, Any]) -> list[str]:
    """What the tests say of a variant, in a few words."""
    if variant["label"] == sweep["baseline"]:
        return ["baseline"]
    leak = {"lower": "leaks less", "higher": "leaks MORE", "same": "no difference in AUC shown", "unknown": "AUC not tested"}
    cost = {"lower": "costs accuracy", "higher": "gains accuracy", "same": "no change of accuracy shown", "unknown": "accuracy not tested"}
    of_auc, of_tpr = direction(sweep, variant, "auc"), direction(sweep, variant, "tpr")
    said = [leak[of_auc]]
    if of_auc == "lower" and _is_negligible(variant["against"]["auc"]):
        said = ["leaks less, by next to nothing"]
    if (another := _stronger_attack(sweep, variant)) is not None:
        said.append(f"{another} sees more of it")
    if of_tpr in ("lower", "higher") and of_tpr != of_auc:
        said.append(f"TPR at FPR {pool.level(LEVELS[0])} {of_tpr}")
    return said if of_auc == "unknown" and not variant["against"] else [*said, cost[direction(sweep, variant, "utility")]]


def _is_negligible(difference: dict[str, Any]) -> bool:
    """Whether a difference of AUCs is surely too small to matter, shown or not."""
    return difference["low"] is not None and max(abs(difference["low"]), abs(difference["high"])) < NEGLIGIBLE


def tone(sweep: dict[str, Any], variant: dict[str, Any]) -> str:
    """The class of the page in which a variant's finding is written."""
    of_auc = direction(sweep, variant, "auc")
    if of_auc == "lower" and (_is_negligible(variant["against"]["auc"]) or _stronger_attack(sweep, variant)):
        return "no"
    return {"lower": "helps", "higher": "exposed"}.get(of_auc, "no")


def efficient(sweep: dict[str, Any]) -> list[str]:
    """The variants that no other beats in both accuracy and AUC, by point estimates, the most private first."""
    return [_name(variant) for variant in sorted(sweep["variants"], key=lambda variant: value(variant["auc"]) or 0) if variant["is_efficient"]]


def attacks(sweep: dict[str, Any]) -> list[str]:
    """All attacks of the sweep, the headline first; none where it is the only one."""
    names = dict.fromkeys(name for variant in sweep["variants"] for name in variant["attacks"] or ())
    return sorted(names, key=lambda name: name != sweep["headline"]) if len(names) > 1 else []


def undrawn(sweep: dict[str, Any]) -> list[str]:
    """Variants that the frontier cannot show, for want of an accuracy or of any measure of what leaks."""
    found = []
    for variant in sweep["variants"]:
        leaks = [value(variant["auc"]), bound_of(variant), *(value(tpr(variant, fpr)) for fpr in LEVELS)]
        if value(variant["utility"]) is None or all(leak is None for leak in leaks):
            found.append(_name(variant))
    return found


def correlation(sweep: dict[str, Any]) -> str:
    """Of gap and AUC over the recipes, in words."""
    found = sweep["correlation"]
    return (
        f"correlation {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}], {found['n']} recipes"
        if found
        else "too few recipes for a correlation"
    )
