"""What to do about an audit: actions, most urgent first, each fired by something that was measured.

Where a control alarmed nothing else is recommended, since no other figure can be believed. What an action brings is never
promised: it says what it may do and what it costs, and the command that measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from memleak.metrics.intervals import clopper_pearson
from memleak.report import frontier, pool, words
from memleak.report import verdict as verdicts
from memleak.report.parts import Action
from memleak.report.tester_rules import MOST
from memleak.report.tester_rules import of as of_tester
from memleak.report.variants import change, has_alarm, points

__all__ = ["of", "of_sweep", "of_tester"]

SHOWN = 0.05  # corrected p of a difference between two attacks
FEW_REFERENCES = 32  # of an attack that compares with them; more make it stronger
SENSIBLE = 30  # times as many models or records: who would need more is told that numbers alone do not decide it
MENDED = {
    "null": ("Find what gives the answer away", "An attack, or its references, must not see who trained on what; look at attacks of your own first."),
    "count": ("Take the target's twin from its references", "With complementary halves the twin's training set gives the answer away."),
    "level": ("Choose a fit that keeps its promise", "`fit: empirical` assumes nothing about the signal; it takes more rounds at a low alpha."),
    "blind": ("Draw both sets from one source", "Split one collection at random before training; the blind control should then lie about 0.5."),
    "length": ("Cut both sets alike", "Texts of equal lengths leave an attack nothing to go by but memory."),
    "form": ("Bring both sets into one form", "Capitals, markup and line ends should be those that the model was trained on, in both."),
    "permuted": (
        "Find what is wrong with the scores",
        "On shuffled labels there is nothing to find; look at attacks of your own, and at scores that are few and tied.",
    ),
    "placebo": ("Take a reference that has not seen the members", "Or draw both sets from one source: one of them may be the more ordinary."),
}


def of(metrics: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> list[Action]:
    """What to do about an audit of any kind; `params` is what its page is told of params.yaml, and makes commands more exact."""
    audited = _Audited(dict(metrics), params or {})
    for rule in BEFORE_ALL_ELSE:
        if found := list(rule(audited)):
            return found[:MOST]
    return [action for rule in RULES for action in rule(audited)][:MOST]


@dataclass(frozen=True)
class _Audited:
    """An audit with its verdict, as the rules read it."""

    metrics: dict[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def verdict(self) -> verdicts.Verdict:
        return verdicts.verdict(self.metrics)

    @property
    def name(self) -> str:
        return str(self.metrics.get("audit", "AUDIT"))

    @property
    def kind(self) -> str:
        return str(self.metrics["kind"])

    @property
    def models(self) -> dict[str, Any]:
        return self.metrics["models"]

    @property
    def headline(self) -> dict[str, Any]:
        return self.metrics["attacks"][self.metrics["headline"]]

    @property
    def trains(self) -> bool:
        """Whether its models are memleak's own, so that a sweep can train them otherwise."""
        return self.kind not in ("given", "imported")

    @property
    def leaks(self) -> bool:
        """Whether a leak is shown that is not called low."""
        return self.verdict.state != "LOW" and bool(self.verdict.low) and not pool.has_gradients(self.metrics)

    @property
    def risk(self) -> str:
        """Such as `Risk 5.8 of 100 [4.3, 7.3], which is MEDIUM.`"""
        found = self.verdict
        return f"Risk {words.risk(found.risk or 0.0, found.low or 0.0, found.high or 100.0)}, which is {found.state}."

    @property
    def written(self) -> str:
        """The audit's key in params.yaml, that of its sweep where it is part of one."""
        return str((self.params.get("sweep") or {"name": self.name})["name"])

    def again(self, section: str, *lines: str) -> str:
        """The lines of params.yaml that change, and the command that audits again."""
        return "\n".join([f"# params.yaml, in {section}:", *lines, "# then:", "snakemake --cores all"])

    def swept(self, axis: str, entries: str) -> str:
        """The sweep whose variants are audited beside the audit as it is."""
        return self.again(f"audits.{self.written}", f"sweep: {{{axis}: {{{entries}}}}}")


# -- before all else -----------------------------------------------------------------------------------------------


def _alarms(a: _Audited) -> Iterator[Action]:
    """What is wrong with the audit itself."""
    for name in verdicts.CONTROLS:
        control = a.metrics["controls"].get(name)
        if control and control.get("alarm"):
            title, effect = MENDED[name]
            said = next((note for note in a.verdict.notes if note.startswith("ALARM") and _is_about(note, name)), f"The control {name} alarmed.")
            yield Action(
                title, said.removeprefix("ALARM: "), f"{effect} Until then no figure of this audit can be believed.", "snakemake --cores all"
            )


def _is_about(note: str, control: str) -> bool:
    """Whether a note of the verdict is the alarm of a control."""
    marks = {"null": ("scores know", "never saw the record differ"), "count": ("how many references",), "level": ("accuses",), "blind": ("blind baseline",),
        "length": ("by their length",), "form": ("how they are written",), "placebo": ("reference model tells",), "permuted": ("shuffled labels",)}  # fmt: skip
    return any(mark in note for mark in marks[control])


def _useless_model(a: _Audited) -> Iterator[Action]:
    """A model that is at chance, or does not fit its data, leaks nothing that speaks of a good one."""
    if a.verdict.is_refused:
        todo = a.again("the recipe", "epochs: ...         # more") if a.trains else "snakemake --cores all"
        effect = "An audit speaks of models as they would be released. Train until the training records are known, then audit."
        yield Action("Audit a model that has learnt its task", a.verdict.sentence, effect, todo)


def _broken_promise(a: _Audited) -> Iterator[Action]:
    """A training that is less private than it claims."""
    if broken := pool.claim_alarm(a.metrics):
        effect = f"{verdicts.LOOK_AT} Withdraw the claim until it is found. The mended training must pass the same audit; a pass is no proof."
        yield Action("Find what breaks the promise", broken, effect, "snakemake --cores all")


def _missed_control(a: _Audited) -> Iterator[Action]:
    """An audit of pairs that did not find what must be found."""
    missed = [name for name, control in a.metrics["controls"].get("positive", {}).items() if not control["found"]]
    if missed:
        rounds = a.metrics["design"]["rounds"]
        because = f"{', '.join(missed)} has a wrong label, which only memory can answer, and was not found in {rounds} rounds."
        effect = "Twice as many rounds train twice as many models; what was trained already stays."
        yield Action("Add rounds", because, effect, a.again(f"audits.{a.written}.design", f"rounds: {2 * rounds}"))


# -- where a leak is shown -----------------------------------------------------------------------------------------


def _release(a: _Audited) -> Iterator[Action]:
    """A gate that holds the release until somebody decides."""
    if a.leaks and a.verdict.state in ("HIGH", "MEDIUM"):
        effect = "It mends nothing; it makes sure that nobody releases such a model by oversight. Its exit code is 0 only where no part of the interval exceeds the limit."
        yield Action("Hold the release until this risk is accepted or lowered", a.risk, effect, _gate(a))


def _gate(a: _Audited) -> str:
    """The command that stops a pipeline where the limit of a LOW verdict is exceeded."""
    limit = 100 * verdicts.limits_of(a.metrics).low
    return f"memleak gate {a.name} --max-risk {limit:g}"


def _exposed(a: _Audited) -> Iterator[Action]:
    """The records that are recognised more often than luck explains."""
    effect = (
        "Look for wrong labels, duplicates and rare records; correct them, deduplicate, or leave them out. What is left out cannot leak, but others may take "
        "its place as the most exposed (Carlini et al. 2022, the onion effect), so train and audit again."
    )
    look = f"head results/audits/{a.name}/exposed.csv\n# without them, or with them mended, in the data:\nsnakemake --cores all"
    exposure = a.metrics.get("exposure")
    if a.leaks and exposure and exposure["most"] and 0 < exposure["n_flagged"] <= exposure["n_samples"] / 2:  # of more no list is looked through
        first, things = exposure["most"][0], "units" if a.metrics.get("unit") else "records"
        because = (
            f"{exposure['n_flagged']:,} of {exposure['n_samples']:,} {things} are recognised in more models than luck explains (of such a list at most one in twenty is there by "
            f"chance, on average); the first, {first.get('unit', 'row ' + str(first['source_id']))}, in {first['n_detected']} of {first['n_holding']} models, {pool.interval(first | {'value': first['rate']})}."
        )
        yield Action(f"Look at the {exposure['n_flagged']:,} exposed {things}", because, effect, look)
    targets = a.metrics.get("targets") or {}
    exposed = {name: target for name, target in targets.items() if target["state"] == "exposed" and not target["is_canary"]}
    if exposed:
        name, worst = max(exposed.items(), key=lambda item: item[1]["attacks"][a.metrics["headline"]]["tpr"]["value"])
        because = (
            f"{words.counted(len(exposed), 'natural record')} of {sum(not target['is_canary'] for target in targets.values())} "
            f"{'is' if len(exposed) == 1 else 'are'} exposed; {name} (row {worst['source_id']}) is recognised in "
            f"{words.rate(worst['attacks'][a.metrics['headline']]['tpr'])} fresh models."
        )
        yield Action("Look at the exposed records", because, effect, look)


def _swept_already(a: _Audited) -> Iterator[Action]:
    """A variant of a sweep: what defences bring was measured there."""
    sweep = a.params.get("sweep")
    if a.leaks and sweep:
        effect = "Its page has what each variant took from the attacker, and what it cost in accuracy, on these very targets and records."
        yield Action(
            f"Choose a defence by what the sweep {sweep['name']} measured",
            a.risk,
            effect,
            f"python -m webbrowser results/audits/{sweep['name']}/frontier.html",
        )


def _private_training(a: _Audited) -> Iterator[Action]:
    """Differential privacy, the one defence with a promise."""
    if not a.leaks or a.params.get("sweep") or a.models.get("dp"):
        return
    effect = (
        "Clipped gradients and noise bound what any attack can learn about one record. It costs accuracy, most of all of rare kinds of records, and training time; "
        "each variant is trained and attacked anew, so that both are measured."
    )
    n = a.models.get("n_train") or 1000
    delta = 10.0 ** -(int(np.log10(n)) + 2)  # a tenth of 1 / n at most
    dp = f"dp: {{dp: {{epsilon: {{each: [2, 8]}}, delta: {delta:g}, clip: 1.0}}}}"
    todo = (
        a.swept("recipe", dp)
        if a.trains and not _own_trainer(a)
        else "# train the model with DP-SGD at two or three values of epsilon, then for each:\nsnakemake --cores all"
    )
    yield Action("Train with differential privacy, at two or three values of epsilon", a.risk, effect, todo)


def _own_trainer(a: _Audited) -> bool:
    return bool((a.params.get("recipe") or {}).get("trainer"))


def _closer_than_needed(a: _Audited) -> Iterator[Action]:
    """A model that is better on its training data than on others."""
    gap = _gap(a.models)
    if not a.leaks or a.params.get("sweep") or gap is None:
        return
    effect = (
        "Fewer epochs, weight decay, dropout and augmentation narrow the gap that simple attacks use; where overdone they cost accuracy. "
        "Records unlike all others may stay exposed, so audit by the strongest attack."
    )
    recipe = a.params.get("recipe") or {}
    less = [f"few-epochs: {{epochs: {max(1, recipe['epochs'] // 4)}}}"] if (recipe.get("epochs") or 0) > 1 else []
    less += [f"{name.replace('_', '-')}: {{{name}: {value}}}" for name, value in (("weight_decay", 0.01), ("dropout", 0.5)) if not recipe.get(name)]
    todo = (
        a.swept("recipe", ", ".join(less))
        if a.trains and less and not _own_trainer(a)
        else "# train the model with less of a gap, then:\nsnakemake --cores all"
    )
    yield Action("Fit the training data less closely", gap, effect, todo)


def _gap(models: Mapping[str, Any]) -> str | None:
    """How much better the models are on their training data, in words; None where that is not shown."""
    if not models.get("train_accuracy") or not models.get("test_accuracy"):
        return None
    train, test = _accuracy(models, "train"), _accuracy(models, "test")
    on_train, on_others = models.get("train_loss"), models.get("test_loss")
    is_lower = on_train is not None and on_others is not None and on_train < on_others
    if not is_lower and train["low"] <= test["high"]:
        return None
    what = "Token accuracy" if models.get("of_tokens") else "Accuracy"
    of_train, of_others = pool.interval(train), pool.interval(test)
    spread = " (in brackets the middle 95 % of the models)" if models.get("n", 1) > 1 else ""
    losses = f"; mean loss is {on_train:.3g} against {on_others:.3g} nats" if is_lower else ""
    return f"{what} is {of_train} on training data and {of_others} on others{spread}{losses}."


def _accuracy(models: Mapping[str, Any], part: str) -> dict[str, Any]:
    """An accuracy with the middle 95 % of the models; of one model with the interval of so many records (tokens of a text are no such draws)."""
    found, n = models[f"{part}_accuracy"], models.get(f"n_{part}")
    if models.get("n", 1) > 1 or models.get("of_tokens") or not n:
        return dict(found)
    low, high = clopper_pearson(round(found["value"] * n), n)
    return {"value": found["value"], "low": low, "high": high}


def _masking(a: _Audited) -> Iterator[Action]:
    """What hiding probabilities can and cannot do: labels alone against the headline."""
    labels = next((name for name, one in a.metrics["attacks"].items() if _asks_labels(one) and name != a.metrics["headline"]), None)
    difference = (a.metrics.get("comparison") or {}).get(labels, {}).get("auc") if labels else None
    if not a.leaks or a.models.get("of_tokens") or not difference or _asks_labels(a.headline):
        return
    left = a.metrics["attacks"][labels]["auc"]
    because = f"With labels alone {labels} has AUC {words.estimate(left)}; {a.metrics['headline']}, which reads more, has {words.estimate(a.headline['auc'])}"
    is_shown = difference["p_holm"] is not None and difference["p_holm"] <= SHOWN
    if difference["difference"] < 0 and is_shown:
        effect = (
            "Giving away labels, or rounded or few probabilities, takes from an attacker at most what lies between the two. It costs users the confidence "
            "that they may need, hides the memory without removing it, and helps against nobody who asks often for labels alone."
        )
        todo = (
            a.swept("release", "rounded: [{round: 1}], labels: [labels]")
            if not a.params.get("sweep") and a.trains
            else "# with release: [labels] in the audit:\nsnakemake --cores all"
        )
        yield Action("Give away less than all probabilities", f"{because} ({words.p_short(difference['p_holm'])}, Holm).", effect, todo)
    elif left["low"] > 0.5:
        effect = "Who gets labels alone is not shown to learn less than who gets every probability; change the training instead of the answers."
        compared = f"so that labels tell more ({words.p_short(difference['p_holm'])}, Holm)" if is_shown else "and no difference is shown"
        yield Action("Do not rely on hiding probabilities", f"{because}, {compared}.", effect, "snakemake --cores all")


def _asks_labels(attack: Mapping[str, Any]) -> bool:
    return attack["name"] == "label_only" or (attack.get("options") or {}).get("signal") == "correctness"


def _duplicates(a: _Audited) -> Iterator[Action]:
    """Records of equal content in the data."""
    data = a.metrics.get("data") or {}
    near = data.get("n_near_duplicates", 0)
    repeated = data.get("n", 0) - data.get("n_groups", data.get("n", 0)) - near  # groups hold those that nearly repeat, too
    if a.leaks and repeated + near > 0 and not data.get("unit"):  # there a group is whom records belong to
        because = f"{repeated:,} of {data['n']:,} records repeat another's content{f', and {near:,} nearly do' if near else ''}."
        effect = "What is seen often is learnt by heart. It costs little; records that stand in the data once are not helped by it."
        yield Action("Deduplicate the training data", because, effect, "# with the data deduplicated:\nsnakemake --cores all")


# -- what the audit cannot say yet ---------------------------------------------------------------------------------


def _undecided(a: _Audited) -> Iterator[Action]:
    """How much more it takes for a grade."""
    found = a.verdict
    if found.state != "UNDECIDED" or pool.has_gradients(a.metrics):
        return
    design, section = a.metrics["design"], f"audits.{a.written}.design"
    if found.risk is None:
        todo = "memleak budget params.yaml\nsnakemake --cores all"
        effect = "It costs what the further trainings or records cost; `memleak budget` says how much, and what the audit will then be able to show."
        yield Action("Give the audit what it lacks", found.sentence, effect, todo)
        return
    if a.kind == "given" and a.models.get("of_tokens"):  # its risk score is not what its grade reads
        effect = "More texts of both kinds narrow the interval, and what the blind control leaves open; how many it takes is not known. They cost queries, and no training."
        yield Action("Audit with more texts", found.sentence, effect, "# with more texts of both kinds in the data:\nsnakemake --cores all")
        return
    what, n = _size(a)
    enough = _enough(found, verdicts.limits_of(a.metrics), n)
    because = f"The interval [{found.low:.1f}, {found.high:.1f}] of the risk reaches across the limit of a grade."
    if enough is None:
        effect = f"The risk lies so near the limit that {SENSIBLE} times as many {what} might not decide it: treat it as the higher grade."
        yield Action("Treat the risk as the higher grade", because, effect, _gate(a))
        return
    key = {"pairs": "holdout_rounds", "halves": "models", "canaries": "canaries"}.get(a.kind)
    effect = f"About {enough:,} {what} where there are {n:,} now, if the interval narrows with the root of their number and its middle stays. Other limits of the design may come first: ask `memleak budget`."
    todo = (
        f"# params.yaml, in {section}:\n{key}: {enough}\n# then:\nmemleak budget params.yaml\nsnakemake --cores all"
        if key and key in design
        else f"# with more {what}:\nsnakemake --cores all"
    )
    yield Action(f"Audit with more {what}", because, effect, todo)


def _size(a: _Audited) -> tuple[str, int]:
    """What narrows the interval, and how many of it there are."""
    if a.kind == "pairs":
        return "hold-out rounds", a.metrics["design"]["holdout_rounds"]
    if a.kind == "given":
        return "members and non-members", int(a.metrics["n_samples"])
    return ("canaries", int(a.metrics["n_samples"])) if a.kind == "canaries" else ("models", int(a.models["n"]))


def _enough(found: verdicts.Verdict, limits: verdicts.Limits, n: int) -> int | None:
    """So many, and more than there are, that the interval would end before each limit that it crosses; None where that is out of all proportion."""
    assert found.risk is not None and found.low is not None and found.high is not None
    times = 1.0
    for limit in (100 * limits.low, 100 * limits.high):
        if found.low < limit <= found.high:
            half = found.high - found.risk if limit > found.risk else found.risk - found.low
            times = max(times, (half / max(abs(limit - found.risk), 1e-9)) ** 2)
    return None if times > SENSIBLE else max(2 * int(np.ceil(n * times / 2 - 1e-9)), 2 * (n // 2 + 1))


def _references(a: _Audited) -> Iterator[Action]:
    """A given model that was looked at alone."""
    if a.kind != "given" or a.models.get("references"):
        return
    because = f"No reference model was at hand: {a.metrics['headline']} has AUC {words.estimate(a.headline['auc'])} by the model's own answers alone."
    if a.models.get("of_tokens"):
        if a.models.get("given", {}).get("reference"):
            return
        effect = "Attacks that compare with the model before fine-tuning often tell far more, so that this figure may understate the risk. It costs one more pass over the texts."
        yield Action(
            "Name the checkpoint that it was fine-tuned from",
            because,
            effect,
            a.again(f"audits.{a.written}.design.model", "reference: PATH_OF_THE_BASE_MODEL"),
        )
        return
    lines = ["recipe: like-mine          # a recipe as near to the model's own training as is known",
             "# and in its design:  references: {kind: halves, models: 16}", "# and in its attacks: lira: {name: lira}"]  # fmt: skip
    effect = "Attacks with references usually see more, so that this figure may understate the risk. It costs the training of sixteen such models."
    yield Action("Train reference models", because, effect, a.again(f"audits.{a.written}", *lines))


def _uncertified(a: _Audited) -> Iterator[Action]:
    """Too few records to speak of the false-positive rate that was declared."""
    if a.kind == "pairs" or pool.has_gradients(a.metrics):
        return
    n, needed = pool.n_distinct(a.metrics), pool.records_for(a.metrics["alpha"])
    if n < needed:
        because = f"{n:,} distinct {'non-members' if a.kind == 'given' else 'records outside some training set'} cannot certify a false-positive rate of {pool.level(a.metrics['alpha'])}."
        size = -(-needed * (a.metrics["design"].get("pool") or n) // n)
        effect = f"{needed:,} or more can (3 divided by the rate). Or declare a higher alpha, which speaks of a less careful attacker."
        has_them = a.kind == "halves" and size <= a.metrics["data"]["n"]
        todo = (
            a.again(f"audits.{a.written}.design", f"pool: {size}")
            if has_them
            else "# with more records in the data, or a higher alpha:\nsnakemake --cores all"
        )
        yield Action(f"Audit {needed:,} records or more", because, effect, todo)


def _few_thresholds(a: _Audited) -> Iterator[Action]:
    """Pairs: too few models to promise the false-positive rate."""
    if a.kind != "pairs" or a.headline["n_fitted"] >= a.headline["models_for_level"]:
        return
    needed = a.headline["models_for_level"]
    level, more = a.metrics["controls"].get("level"), needed - a.headline["n_fitted"]
    fresh = f"on fresh models their false-positive rate is {words.rate(level)}" if level else "on fresh models they were not tried"
    because = f"Thresholds come from {a.headline['n_fitted']} models without the record; {fresh}."
    effect = (
        f"The largest value of {needed} keeps a false-positive rate of {pool.level(a.metrics['alpha'])} with 95 % confidence, whatever its distribution; a fitted threshold gets "
        f"steadier. It costs up to {2 * more} more trainings a record, and {more} that all records share."
    )
    yield Action(f"Raise rounds to {needed}", because, effect, a.again(f"audits.{a.written}.design", f"rounds: {needed}"))


def _no_positive_control(a: _Audited) -> Iterator[Action]:
    if a.kind != "pairs" or a.metrics["controls"].get("positive"):
        return
    natural = len(a.metrics["targets"])
    because = (
        f"None of the {natural} audited records is known to be memorised: had the audit found nothing, nobody could say whether it can find anything."
    )
    effect = (
        "A record with a wrong label can be answered from memory alone; an audit that misses it is too weak. It costs one more record's trainings."
    )
    yield Action("Add a positive control", because, effect, a.again(f"audits.{a.written}.design.targets", "mislabelled: 1"))


# -- gradient canaries, and where little is shown ------------------------------------------------------------------


def _promise(a: _Audited) -> Iterator[Action]:
    """A promise of differential privacy that was not refuted: could it have been?"""
    found = pool.epsilon_found(a.metrics)
    if found is None or not (pool.has_gradients(a.metrics) or a.models.get("dp")):
        return
    held = f"The lower bound of epsilon is {pool.figures(found['epsilon'])} at delta {found['delta']:g}"
    if found.get("claimed") is None:
        effect = "A declared claim makes the audit a test of it. It costs nothing."
        yield Action(
            "Declare what the training promises",
            f"{held}, and no claim was held against it.",
            effect,
            a.again(f"audits.{a.written}", "epsilon: {claimed: 8}   # your own"),
        )
        return
    most = found.get("attainable")
    if most is not None and most < found["claimed"]:
        design = a.metrics["design"]
        because = f"{held}; had every guess been right it were {most:.2f}, which is below the claim of {pool.figures(found['claimed'])}: this audit could not have refuted it."
        effect = "Only an audit whose largest possible bound exceeds the claim can find it broken. More canaries raise it; they cost queries, and as gradients hardly any training time."
        todo = a.again(f"audits.{a.written}.design", f"canaries: {10 * design['canaries']}") if "canaries" in design else "snakemake --cores all"
        yield Action("Audit the promise with more canaries", because, effect, todo)
    else:
        effect = "That it is not refuted is no proof; whatever changes clipping, noise, sampling or the accountant can break it."
        yield Action(
            "Repeat at every change of the trainer",
            f"{held}; the claim of {pool.figures(found['claimed'])} is not refuted.",
            effect,
            "snakemake --cores all",
        )


def _low(a: _Audited) -> Iterator[Action]:
    """LOW: hold the line, and try a stronger attacker before relying on it."""
    if a.verdict.state != "LOW":
        return
    effect = "Whatever changes the data, the recipe or the release can raise it. The gate's exit code is 0 only where no part of the interval exceeds the limit; it costs another run of the audit."
    yield Action("Audit again at every release, with a gate", a.risk, effect, f"snakemake --cores all\n{_gate(a)}")
    n = a.headline.get("n_references", 0)
    if a.kind != "pairs" and n < FEW_REFERENCES and a.trains:
        models = 2 * FEW_REFERENCES
        because = f"{a.metrics['headline']} had {words.counted(n, 'reference model')}, and {words.counted(round(a.headline.get('n_queries') or 1), 'look')} at each record."
        effect = "LOW is what these attacks found. More references, and more views of a record, make an attacker stronger; they cost trainings and queries."
        is_more = models > a.metrics["design"].get("models", models)
        todo = (
            a.again(f"audits.{a.written}.design", f"models: {models}")
            if is_more
            else "# with more references, or views, in the audit:\nsnakemake --cores all"
        )
        yield Action("Try a stronger attacker before relying on it", because, effect, todo)
    if a.kind == "pairs":
        because = f"{len(a.metrics['targets'])} records were audited, with {a.metrics['design']['rounds']} rounds each."
        effect = "Others may be more exposed. An audit of halves looks at every record of a pool at once, and names the most exposed."
        yield Action(
            "Look at all records before relying on it",
            because,
            effect,
            a.again(f"audits.{a.name}-halves", "design: {kind: halves, models: 64}   # dataset and recipe as here"),
        )


Rule = Callable[[_Audited], Iterator[Action]]
BEFORE_ALL_ELSE: tuple[Rule, ...] = (_alarms, _useless_model, _broken_promise, _missed_control)
RULES: tuple[Rule, ...] = (
    _release, _exposed, _swept_already, _private_training, _closer_than_needed, _duplicates, _references, _undecided, _masking, _promise, _low, _uncertified,
    _few_thresholds, _no_positive_control,
)  # fmt: skip


# -- a sweep -------------------------------------------------------------------------------------------------------


def of_sweep(sweep: dict[str, Any]) -> list[Action]:
    """What to do about a sweep, with what it measured."""
    found = frontier.finding(sweep)
    broken = [
        Action(
            "Mend this before any other figure of the sweep is used",
            said.removeprefix("ALARM: "),
            "What is compared with it cannot be believed either.",
            "snakemake --cores all",
        )
        for said in found.alarms
    ]
    if broken:
        return broken[:MOST]
    best = frontier.recommended(sweep)
    if best is None:
        todo = "# other variants, or more models, in the sweep; then:\nmemleak budget params.yaml\nsnakemake --cores all"
        effect = "Another dose, or another defence, may do better; more models find smaller differences. Each variant costs the trainings of the baseline, a release none."
        return [Action("Try other defences, or more models", f"{found.sentence} {' '.join(found.more)}".strip(), effect, todo)]
    return [*_adopt(sweep, best), *_verify(sweep, best)]


def _adopt(sweep: dict[str, Any], best: dict[str, Any]) -> Iterator[Action]:
    changes = [f"{key}: {_plain(value)}" for key, value in best["changes"].items()]
    lines = ["# params.yaml, in the recipe of the model that is released:", *changes] if changes else []
    lines += (
        ["# and its answers released through:" if changes else "# the model's answers released through:", f"# {frontier.released_in_words(best)}"]
        if best["release"]
        else []
    )
    paid = best["against"]["utility"]
    because = f"Against {sweep['baseline']} the headline attack's AUC changes by {change(best['against']['auc'])}, accuracy by {points(paid) if paid else 'n/a, not tested'}."
    effect = "Both were measured here, for this recipe and these data, on models of the sweep; audit the model that is released, too."
    limit = 100 * (verdicts.MOST_EXPOSED if sweep["kind"] == "pairs" else verdicts.AVERAGE).low
    yield Action(
        f"Release with {best['label']}",
        because,
        effect,
        "\n".join([*lines, "# then:", "snakemake --cores all", f"memleak gate {best['audit']} --max-risk {limit:g}"]),
    )


def _plain(value: Any) -> str:
    """A value of params.yaml on one line."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False).strip().removesuffix("...").strip()


def _verify(sweep: dict[str, Any], best: dict[str, Any]) -> Iterator[Action]:
    """A promise of privacy that no bound was held against."""
    claimed = [variant for variant in sweep["variants"] if variant["dp"] and not (variant["epsilon"] or {}).get("claimed") and not has_alarm(variant)]
    if claimed:
        one = next((variant for variant in claimed if variant["label"] == best["label"]), claimed[0])
        because = f"{one['label']} claims epsilon {pool.figures(one['dp']['epsilon'])} at delta {one['dp']['delta']:g}, and no lower bound was held against it."
        effect = "Canaries whose membership coins decide give such a bound. A thousand gradients, each a weight of its own, cost one training."
        lines = (
            "attacks: {alignment: {name: threshold, signal: alignment}}",
            "design: {kind: canaries, space: gradient, canaries: 1000, subset_size: 500}",
        )
        yield Action(
            "Hold the training to its promise",
            because,
            effect,
            "\n".join(
                [f"# params.yaml, in audits.{sweep['sweep']}-verified (dataset, and the recipe with dp):", *lines, "# then:", "snakemake --cores all"]
            ),
        )
