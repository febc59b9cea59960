"""What a page begins with: the verdict, who attacked what with which strength and at what cost, and the controls as lights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memleak.report import frontier, lights, pool, words
from memleak.report.limits import Limits
from memleak.report.parts import Fact, Light
from memleak.report.verdict import FEW, LEVELS, Verdict, limits_of, verdict

if TYPE_CHECKING:
    import pandas as pd

_SHARD = re.compile(r"[^/]*/(?P<drawn>.*)-s\d+-[a-z]\d+-(?P<last>\d+)")  # recipe, design with its pool, seed, models
_TRAINING = ("train", "query", "query_given")  # stages whose files belong to a recipe, and so to every audit of it


@dataclass(frozen=True)
class Zone:
    """A part of the risk's scale from 0 to 100, with the grade that it stands for."""

    low: float
    high: float
    grade: str  # LOW, MEDIUM or HIGH: its colour


@dataclass(frozen=True)
class Front:
    """The first screen of a page, as data."""

    verdict: Verdict
    facts: tuple[Fact, ...]
    lights: tuple[Light, ...]
    grade: str = "UNDECIDED"  # HIGH, MEDIUM, LOW or UNDECIDED: the colour of the state
    zones: tuple[Zone, ...] = ()  # of the risk's scale; none where the grade reads something else
    level: str = ""  # what the risk score calls itself, where it does
    below: str = "LOW"  # what the first zone is called
    above: str = "HIGH"  # and the last

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(note for note in self.verdict.notes if note.startswith("ALARM"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is to be known, and alarms nobody."""
        return tuple(note for note in self.verdict.notes if not note.startswith("ALARM"))


def of(metrics: dict[str, Any], params: Mapping[str, Any] | None = None, timings: pd.DataFrame | None = None) -> Front:
    """The front of an audit of any kind. Without `params` and `timings` it says less of how often models were asked and of the time that it took."""
    found = verdict(metrics)
    facts = (_attacked(metrics), _attacker(metrics), _measured(metrics), _cost(metrics, timings), _risk(metrics))
    if _is_given_text(metrics):
        return Front(found, facts, lights.of(metrics), found.state, _levels(), below="low", above="high")
    return Front(found, facts, lights.of(metrics), found.state, () if pool.has_gradients(metrics) else _zones(limits_of(metrics)))


def of_tester(found: Mapping[str, Any]) -> Front:
    """The front of what MembershipTester found."""
    told, risk = found["verdict"], found["risk"]
    judged = Verdict(told["state"], risk["value"], risk["low"], risk["high"], told["sentence"], tuple(told["notes"]), bool(told.get("is_refused")))
    return Front(judged, _facts_of_tester(found), lights.of_tester(found), judged.state, _levels(), risk["level"], "low", "high")


def of_sweep(sweep: dict[str, Any]) -> Front:
    """The front of a sweep: what it found about defences, instead of a risk."""
    found = frontier.finding(sweep)
    judged = Verdict(found.state, None, None, None, found.sentence, (*found.alarms, *found.more, *found.notes))
    return Front(judged, _facts_of_sweep(sweep), lights.of_sweep(sweep), found.grade)


def _zones(limits: Limits) -> tuple[Zone, ...]:
    low, high = 100 * limits.low, 100 * limits.high
    return Zone(0, low, "LOW"), Zone(low, high, "MEDIUM"), Zone(high, 100, "HIGH")


def _levels() -> tuple[Zone, ...]:
    """Of a risk score, whose levels are those of its lower end: low, then moderate, then high and critical."""
    (low, _), (moderate, _), *_ = LEVELS
    return Zone(0, low, "LOW"), Zone(low, moderate, "MEDIUM"), Zone(moderate, 100, "HIGH")


def _is_given_text(metrics: Mapping[str, Any]) -> bool:
    return metrics["kind"] == "given" and bool(metrics["models"].get("of_tokens"))


def _things(metrics: Mapping[str, Any]) -> str:
    return "units" if metrics.get("unit") is not None else "records"


def _models(metrics: Mapping[str, Any]) -> str:
    n, data = metrics["models"]["n"], metrics["data"]
    classes = f", {data['n_classes']} classes" if data["n_classes"] != 1 else ""
    return f"{words.counted(n, 'model')} of recipe {metrics['recipe']}, trained on {data['name']} ({data['n']:,} records{classes})"


def _attacked(metrics: dict[str, Any]) -> Fact:
    return Fact(
        "Attacked",
        *{"pairs": _attacked_pairs, "given": _attacked_given, "imported": _attacked_imported}.get(metrics["kind"], _attacked_pool)(metrics),
    )


def _attacked_pairs(metrics: dict[str, Any]) -> tuple[str, str]:
    design = metrics["design"]
    more = f"Each was trained on {design['subset_size']:,} records without or {'with' if design['neighbour'] == 'add' else 'swapped for'} the audited one."
    return f"{_models(metrics)}.", f"{more}{_unit_of_pairs(metrics)}"


def _unit_of_pairs(metrics: dict[str, Any]) -> str:
    unit = metrics["data"].get("unit")
    if not unit:
        return ""
    return (
        f" Records belong to units (column {unit['column']}). The audited record is added to one arm, the rest of its unit stays out of both: "
        "this is an audit of one record of the unit, not of all that the unit has."
    )


def _attacked_pool(metrics: dict[str, Any]) -> tuple[str, str]:
    n, headline = metrics["n_samples"], metrics["attacks"][metrics["headline"]]
    if metrics["kind"] == "canaries":
        each = "It" if metrics["models"]["n"] == 1 else "Each"
        trained = f"{each} was trained on {metrics['design']['subset_size']:,} records and on those of {n:,} {pool.records(metrics)} which a coin chose for it."
    else:
        trained = f"Each was trained on a random half of {n:,} {_things(metrics)}, its twin on the other half."
    others = f"{headline['n_references']:,} others being the attacker's" if headline["n_references"] else "without others for the attacker"
    twin = ", never its twin" if metrics["kind"] == "halves" else ""
    in_turn = "It is audited" if metrics["models"]["n"] == 1 else _in_turn(metrics["n_targets"])
    return f"{_models(metrics)}.", f"{trained} {in_turn}, {others}{twin}.{_unit_of_pool(metrics)}"


def _in_turn(n: int) -> str:
    return "One of them is audited" if n == 1 else f"{n:,} of them are audited in turn"


def _unit_of_pool(metrics: dict[str, Any]) -> str:
    unit = metrics.get("unit")
    if unit is None:
        return ""
    joined = (
        f"; {unit['n_joined']:,} of the data set's {unit['n']:,} count as one with others, with whom they share records of equal content"
        if unit.get("n_joined")
        else ""
    )
    return (
        f" Measured by unit: the records of one {unit['column']} are in a training set together or not at all, and the scores of its records are averaged. "
        f"{metrics['n_samples']:,} units of {unit['n_records']:,} records are audited, at most {unit['largest']:,} each{joined}. "
        "Where this page counts audited records it counts units."
    )


def _attacked_given(metrics: dict[str, Any]) -> tuple[str, str]:
    given = metrics["models"]["given"]
    weights = f" with the weights {given['weights']}" if given.get("weights") else ""
    gives = "the probability of each token" if metrics["models"].get("of_tokens") else (given.get("output") or "logits").replace("_", " ")
    reference = given.get("reference")
    beside = f", beside {reference['name']}, which is said not to have seen the members" if reference is not None else ""
    asked = " and ".join(_part(part) for part in metrics["parts"] if part["n_audited"])
    unit = metrics.get("unit")
    more = (
        f" Measured by unit: the scores of the records of one {unit['column']} are averaged. Where this page counts audited records it counts units."
        if unit is not None
        else ""
    )
    return f"The {given['form']} {given.get('name') or ''}{weights}".rstrip() + f"{beside}; asked about {asked}.", f"The model gives {gives}.{more}"


def _part(part: Mapping[str, Any]) -> str:
    of = f" of {part['length']:,}" if part["n_audited"] != part["length"] else ""
    role = "members" if part["is_member"] else "non-members"
    named = "" if part["name"] == role else f" ({part['name']})"
    return f"{part['n_audited']:,}{of} {role}{named}"


def _attacked_imported(metrics: dict[str, Any]) -> tuple[str, str]:
    n, references = metrics["models"]["n"], metrics["attacks"][metrics["headline"]]["n_references"]
    more = f"{_in_turn(metrics['n_targets'])}, with {references} others as the attacker's; models that were not drawn independently are never each other's references."
    said = f"{n:,} imported models, asked about {metrics['n_samples']:,} records; nothing was trained here."
    return said, " ".join([more, *metrics.get("notes", ())])


def _attacker(metrics: dict[str, Any]) -> Fact:
    headline = metrics["attacks"][metrics["headline"]]
    if metrics["kind"] == "pairs":
        said = "May train models of the same recipe on similar data, with and without the record, and asks the audited model about it once."
    elif pool.has_gradients(metrics):
        said = "The strongest whom a promise of DP-SGD is about: inserts gradients, each in a weight of its own, and sees the noisy gradient of every step."
    elif metrics["kind"] == "given":
        said = _attacker_of_given(metrics)
    elif metrics["kind"] == "imported":
        said = f"Has {words.counted(headline['n_references'] or 0, 'other model')} and knows who trained on what there{_sets_threshold(metrics).replace(',', ';')}."
    else:
        n = headline["n_references"]
        here = f" (here {n:,})" if n else ""
        said = f"May train models of the same recipe on similar data{here}{_sets_threshold(metrics)}, and asks the audited model about each record {_often(headline)}."
    return Fact("Attacker", said, _strength(metrics, headline))


def _attacker_of_given(metrics: dict[str, Any]) -> str:
    references = metrics["models"].get("references")
    if not references:
        return "Trains nothing: only attacks that look at the model itself are possible here, and stronger attackers may exist."
    declared, n = metrics["design"]["references"], words.counted(references["n"], "reference model")
    if declared["kind"] == "halves":
        return f"The auditor, who holds both sets, trained {n} (recipe {metrics['references']}) on random halves of members and non-members."
    parts = (
        f", each on a random half of {', '.join(declared['parts'])}"
        if declared.get("parts")
        else f" ({declared['train']})"
        if declared.get("train")
        else ""
    )
    return f"Trained {n} (recipe {metrics['references']}) on other records{parts}."


def _sets_threshold(metrics: dict[str, Any]) -> str:
    return ", sets the threshold on those" if pool.calibrated(metrics, metrics["headline"]) else ""


def _often(attack: Mapping[str, Any]) -> str:
    n = round(attack["n_queries"] or 1)
    return "once" if n == 1 else f"{n} times"


def _strength(metrics: dict[str, Any], headline: Mapping[str, Any]) -> str:
    """What the headline attack itself has at hand."""
    if metrics["kind"] == "pairs" or pool.has_gradients(metrics):
        return ""
    others = words.counted(headline["n_references"], "reference model") if headline["n_references"] else "no reference model"
    asks = (
        ""
        if headline["n_queries"] is None
        else f" and takes {words.counted(round(headline['n_queries']), 'query').replace('querys', 'queries')} a record"
    )
    return f"The headline attack {metrics['headline']} has {others} at hand{asks}."


def _measured(metrics: dict[str, Any]) -> Fact:
    if pool.has_gradients(metrics):
        said = f"For how many canaries the attack {metrics['headline']}, declared before any result was seen, guesses the coin right; a lower bound of epsilon follows from their number."
        return Fact("Measured", said, "Whoever guesses may abstain from canaries that tell little; how many are guessed is chosen and paid for.")
    wrong = f"{100 * metrics['alpha']:g}"
    declared = (
        f"The headline attack {metrics['headline']}, declared before any result was seen, at a false-positive rate of {pool.level(metrics['alpha'])}"
    )
    if metrics["kind"] == "pairs":
        said = f"{declared}: of 100 models that never saw the record, {wrong} may be accused."
        natural = sum(not target["is_canary"] for target in metrics["targets"].values())
        planted = len(metrics["targets"]) - natural
        rounds, fresh = metrics["design"]["rounds"], metrics["design"]["holdout_rounds"]
        more = f"{words.counted(natural, 'natural record')}{f' and {planted} with a wrong label' if planted else ''}, each in {rounds} pairs of models to fit the attack and {fresh} fresh ones to count on."
        return Fact("Measured", said, more)
    if _is_only(metrics):
        said = f"The headline attack {metrics['headline']}, declared before any result was seen, at the one threshold that it has: it says member where the model is right."
        return Fact("Measured", said, _conditional(metrics).strip())
    source = metrics.get("thresholds_from") if pool.calibrated(metrics, metrics["headline"]) else "none"
    set_on = {
        "none": "No threshold could be set for that rate beforehand: whatever rates this page tells of it stand at thresholds chosen on the very scores, and are optimistic.",
        "mock targets": "Thresholds are set on mock targets: other models, scored with the same references as the target, whose members the attacker knows.",
        "other non-members": "Thresholds are set on other non-members than those that they are applied to.",
    }.get(source or "", "")
    things = "canaries" if metrics["kind"] == "canaries" else _things(metrics)
    has_own = metrics["attacks"][metrics["headline"]].get("natural") is not None
    own = (
        " The attack has a threshold of its own besides, at which it may be wrong far more often; the verdict reads the one that tells more."
        if has_own
        else ""
    )
    said = f"{declared}: of 100 {things} that a model never saw, {wrong} may be taken for training data."
    return Fact("Measured", said, f"{set_on}{own}{_conditional(metrics)}".strip())


def _is_only(metrics: Mapping[str, Any]) -> bool:
    """Whether the headline attack has one threshold alone, as one that asks whether the model is right."""
    return bool((metrics["attacks"][metrics["headline"]].get("natural") or {}).get("is_only"))


def _conditional(metrics: Mapping[str, Any]) -> str:
    if metrics["kind"] != "given" and metrics.get("n_targets") != 1:
        return ""
    return " Intervals are conditional on this one model: they speak of other records like these, not of other trainings."


def _cost(metrics: dict[str, Any], timings: pd.DataFrame | None) -> Fact:
    models = metrics["models"].get("references") if metrics["kind"] == "given" else None if metrics["kind"] == "imported" else metrics["models"]
    trained = (
        f"{words.counted(models['n'], 'reference model' if metrics['kind'] == 'given' else 'model')} trained" if models else "Nothing was trained"
    )
    if timings is None or not len(timings):
        return Fact("Cost", f"{trained}.")
    seconds = timings.groupby("stage", sort=False)["seconds"].sum().sort_values(ascending=False)
    stages = ", ".join(f"{stage} {words.duration(spent)}" for stage, spent in seconds.items())
    if not models or not _is_shared(timings, models["n"]):
        return Fact("Cost", f"{trained}, {words.duration(float(seconds.sum()))} of computing.", f"By stage, all jobs added up: {stages}.")
    is_shared = seconds.index.isin(_TRAINING)
    shared, own = (words.duration(float(seconds[which].sum())) for which in (is_shared, ~is_shared))
    said = f"{trained}. The models of this recipe, which other audits share, took {shared} of computing in all; what is this audit's own took {own}."
    return Fact("Cost", said, f"By stage, all jobs added up: {stages}.")


def _is_shared(timings: pd.DataFrame, n: int) -> bool:
    """Whether models of the recipe were trained that this audit of `n` models did not ask for, by the names of their shards."""
    if "job" not in timings:
        return False
    jobs = timings.loc[timings["stage"] == "train", "job"].astype(str)
    drawn = [found for job in jobs if (found := _SHARD.fullmatch(job)) and not found["drawn"].startswith("with-")]  # these come with a base
    return len({found["drawn"] for found in drawn}) > 1 or any(int(found["last"]) > n for found in drawn)


def _risk(metrics: dict[str, Any]) -> Fact:
    limits = limits_of(metrics)
    graded = f"LOW where the whole interval lies below {100 * limits.low:g}, HIGH where it lies at {100 * limits.high:g} or above."
    thing = "unit" if metrics.get("unit") is not None else "record"
    if pool.has_gradients(metrics):
        return Fact("Risk", "None is told: gradients are no records, and what is held against its promise is the training.")
    if metrics["kind"] == "pairs":
        said = f"The share of models recognised beyond what guessing would, on the most exposed natural record, 0 to 100; 0 where no natural record shows evidence. {graded}"
        more = f"(TPR - alpha) / (1 - alpha) in percent at alpha {pool.level(metrics['alpha'])}; the interval holds for all records at once."
        return Fact("Risk", said, more)
    if _is_given_text(metrics):
        return Fact(
            "Risk",
            f"{_TEXT_RISK} The grade reads the advantage over guessing at a false-positive rate of {pool.level(metrics['alpha'])}: {graded}",
            _TEXT_RISK_EXACTLY,
        )
    said = f"The share of {thing}s recognised beyond what guessing would, on the average {thing}, 0 to 100; single {thing}s may be far more exposed. {graded}"
    if _is_only(metrics):
        return Fact("Risk", said, "TPR - FPR in percent, at the one threshold that the attack has.")
    if pool.calibrated(metrics, metrics["headline"]) is None:
        return Fact("Risk", f"No score is told, since no threshold could be set beforehand. {graded}")
    natural = metrics["attacks"][metrics["headline"]].get("natural")
    own = ", or TPR - FPR at the threshold that the attack has of its own where that is more" if natural else ""
    source = "other non-members set" if metrics.get("thresholds_from") == "other non-members" else "mock targets set"
    return Fact("Risk", said, f"(TPR - FPR) / (1 - FPR) in percent, at thresholds that {source}{own}.")


_TEXT_RISK = "How far the headline attack gets beyond guessing, 0 to 100, less what can be told without the model; 0 where nothing is shown."
_TEXT_RISK_EXACTLY = (
    "100 times the larger of 2 AUC - 1 and, from 100 non-members on, of the advantage over guessing at a false-positive rate of 1 %, (TPR - .01) / .99, at the "
    "threshold that is best for these scores, which its interval allows for. Where the blind control tells members too, what is left of the AUC beyond it. "
    "0 where the interval reaches 0; the lower end lacks what the blind control cannot exclude yet."
)


def _facts_of_tester(found: Mapping[str, Any]) -> tuple[Fact, ...]:
    n, noun = found["n"], "image" if found["task"] == "image-classification" else "text"
    beside = f", beside the reference model {found['reference']}, which has not seen them" if found["reference"] else "; no reference model"
    knows = "a reference model to compare with" if found["reference"] else "no other model: a stronger attacker may exist"
    (low, _), (moderate, _), (high, _), _ = LEVELS
    levels = (
        f"Low below {low:g}, moderate from there, high from {moderate:g}, critical from {high:g}, by the interval's lower end; inconclusive where it reaches from low to high, "
        f"or of fewer than {FEW} {noun}s a side; where a control alarms there is none."
    )
    return (
        Fact("Attacked", f"{found['form']}, asked about {n['members']:,} training {noun}s and {n['non_members']:,} others{beside}."),
        Fact("Attacker", f"Sees what the model answers to each {noun}, and has {knows}."),
        Fact(
            "Measured",
            f"The headline attack {found['headline']}, chosen beforehand by the evidence at hand and not by its result, at a false-positive rate of "
            f"{pool.level(found['alpha'])}: of 100 {noun}s that the model never saw, {100 * found['alpha']:g} may be taken for training {noun}s.",
            f"Thresholds of the verdict are set on other non-members, those of the table are the best for these very scores. Intervals speak of other {noun}s like these, not of other trainings.",
        ),
        Fact("Cost", "Nothing was trained; the model was asked."),
        Fact("Risk", f"{_TEXT_RISK} {levels}", _TEXT_RISK_EXACTLY),
    )


def _facts_of_sweep(sweep: dict[str, Any]) -> tuple[Fact, ...]:
    n, shared = len(sweep["variants"]), sweep["n_shared"]
    kinds = {row["kind"] for row in frontier.rows(sweep)}
    released = ", since a release trains nothing" if kinds & {"release", "both"} else ""
    files = (
        f"{words.counted(shared, 'file')} of models serve{'s' if shared == 1 else ''} more than one variant{released}"
        if shared
        else "no two variants share any"
    )
    return (
        Fact(
            "Attacked",
            f"{words.counted(n, 'variant')} of one audit ({sweep['kind']}), each trained or released otherwise; the baseline ({sweep['baseline']}) has no defence.",
        ),
        Fact("Attacker", "Knows the defence: reference models were trained with the same defence as the target, and asked through the same release."),
        Fact(
            "Measured",
            f"The headline attack {sweep['headline']}, declared before any result was seen, on {words.counted(sweep['n_targets'], 'target model')} and {sweep['n_samples']:,} samples.",
            f"In brackets {100 * sweep['confidence']:.0f} % intervals.",
        ),
        Fact("Cost", f"{words.counted(sweep['n_models'], 'model')} trained; {files}."),
        Fact(
            "Helps",
            "A defence helps where the attack's AUC is lower than the baseline's (0.5 is guessing), and costs where accuracy is, each shown by a paired test.",
        ),
    )
