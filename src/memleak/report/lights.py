"""The controls of an audit as traffic lights: can its numbers be believed?

A light that could not be measured says why, and what would measure it. All of it reads metrics and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from memleak.report import frontier, notes, pool, words
from memleak.report.limits import FITS, learns
from memleak.report.parts import Light

FINE: Final = "fine"
ALARM: Final = "alarm"
UNKNOWN: Final = "unknown"
NOTHING = "nothing found where nothing is"
HINT = 0.05  # p-value from which on it is said that nothing is seen; alarms wait for one of 0.001


def of(metrics: Mapping[str, Any]) -> tuple[Light, ...]:
    """The controls of an audit of any kind, in the order in which they are to be read."""
    found = dict(metrics)
    if found["kind"] == "pairs":
        return (fits(found), *_positive(found), *_level(found), _drift(found["controls"]["null"]))
    controls = found["controls"]
    lights = [fits(found), *([fits(found, found["models"]["references"])] if found["models"].get("references") else []), _blind(found)]
    lights += [light for light in (_length(controls.get("length")), _form(controls.get("form")), _placebo(controls.get("placebo"))) if light]
    lights += [_null(found), *_count(controls.get("count")), *_permuted(controls.get("permuted"))]
    return (*lights, *([] if pool.has_gradients(found) else [_certified(found)]))  # a bound of epsilon stands at no false-positive rate


def of_tester(found: Mapping[str, Any]) -> tuple[Light, ...]:
    """The controls of two lists of texts, or images, that were given with a model."""
    controls, noun = found["controls"], "image" if found["task"] == "image-classification" else "text"
    none = "Images have none." if noun == "image" else "Not asked for; run_attacks measures it unless controls are switched off."
    placebo = "A reference model is needed: MembershipTester(model, reference=PATH_OF_THE_BASE_MODEL)."
    lights = [
        _listed_blind(controls.get("blind") or {"why": "it was not asked for"}, f"{noun}s"),
        _length(controls.get("length")) or Light("Length", UNKNOWN, "not measured", none),
        _form(controls.get("form")) or Light("Form", UNKNOWN, "not measured", none),
        _placebo(controls.get("placebo")) or Light("Placebo", UNKNOWN, "not measured: no reference model", placebo),
        *(_permuted(controls.get("permuted")) or [Light("Arithmetic", UNKNOWN, "not measured", "Labels were not permuted; it was not asked for.")]),
        _overlap(found, noun),
    ]
    return tuple(lights)


def of_sweep(sweep: dict[str, Any]) -> tuple[Light, ...]:
    """What holds for all variants of a sweep together."""
    failed = [f"{one['label']} ({', '.join(found)})" for one in sweep["variants"] if (found := frontier.failed(one))]
    broken = [str(one["label"]) for one in sweep["variants"] if frontier.has_alarm(one)]
    claims = [one for one in sweep["variants"] if (bound := frontier.bound_of(one)) and bound["claimed"] is not None]
    tested = [one for one in sweep["variants"] if frontier.direction(sweep, one, "auc") != "unknown"]
    n = len(sweep["variants"])
    controls = (
        Light("Controls of the variants", ALARM, f"failed in {len(failed)} of {n} audits", f"Numbers that cannot be believed: {'; '.join(failed)}.")
        if failed
        else Light("Controls of the variants", FINE, f"quiet in all {n} audits", "Each variant's own page has them one by one.")
    )
    if broken:
        claim = Light("Claims of privacy", ALARM, f"{len(broken)} refuted", f"Less private than claimed: {', '.join(broken)}.")
    elif claims:
        claim = Light(
            "Claims of privacy", FINE, f"{len(claims)} checked, none refuted", "No alarm is no proof: a small audit cannot see a small violation."
        )
    else:
        why = "No variant both claims an epsilon and was audited in a way that bounds it; designs canaries and pairs do that."
        claim = Light("Claims of privacy", UNKNOWN, "none could be checked", why)
    if tested:
        test = Light(
            "Paired test",
            FINE,
            f"{words.counted(len(tested), 'variant')} held against the baseline",
            "On the same targets and records, p-values corrected for their number (Holm).",
        )
    else:
        test = Light(
            "Paired test", UNKNOWN, "no variant could be compared", "It takes an AUC of every variant over several models on the same records."
        )
    return controls, claim, test


def fits(metrics: dict[str, Any], models: dict[str, Any] | None = None) -> Light:
    """Whether the models fit their training data and have learnt something; `models`: the references instead of the audited ones."""
    name, judged = ("Fits and learns", metrics["models"]) if models is None else ("References fit", models)
    if judged["train_accuracy"] is None:
        return Light(
            name,
            UNKNOWN,
            "nobody knows which answers are right",
            "No answer says whether it is right; labels would tell whether the model has learnt.",
        )
    says = f"{_accuracy(judged, 'train')} right in training, {_accuracy(judged, 'test')} on others"
    detail = accuracies(judged)
    if judged.get("of_tokens"):
        return Light(name, UNKNOWN, f"not judged: {says}", f"Shown, not judged, since no language model knows every next token. {detail}")
    defences = notes.loosened_by(judged)
    does_fit = bool(defences) or judged["train_accuracy"]["value"] >= FITS
    if pool.has_gradients(metrics):
        return Light(name, FINE, says, f"{detail} A bound by gradient canaries holds whatever the model learns.")
    if not learns(judged) and does_fit and judged.get("given"):
        more = "It knows its training records all the same, so what it leaks is told, and may be memory alone."
        return Light(name, UNKNOWN, f"at chance or little better: {says}", f"{detail} {more}")
    if not learns(judged):
        return Light(name, ALARM, f"at chance or little better: {says}", f"{detail} What such a model leaks is not what a useful one would leak.")
    if not does_fit:
        return Light(
            name, ALARM, f"does not fit its data: {says}", f"{detail} A model that has not learnt its own data says nothing about who was in it."
        )
    return Light(name, FINE, says, detail + (f" Trained with {' and '.join(defences)}, which may keep a model from fitting." if defences else ""))


def accuracies(models: dict[str, Any]) -> str:
    """Both accuracies with the spread over models, and chance or the losses."""
    what, spread = ("token accuracy" if models.get("of_tokens") else "accuracy"), models["n"] > 1
    of = [
        words.percent(one["value"]) + (f" [{100 * one['low']:.1f}, {100 * one['high']:.1f}]" if spread else "") if one else "n/a"
        for one in (models["train_accuracy"], models["test_accuracy"])
    ]
    said = f"Train {what} {of[0]}, test {what} {of[1]}{' (middle 95 % of the models)' if spread else ''}"
    if not models.get("of_tokens"):
        return said + (f", chance {words.percent(models['chance'])}." if models["chance"] is not None else ".")
    cut = f" {models['n_truncated']} texts were longer than what is read of them." if models.get("n_truncated") else ""
    return (
        f"{said}: how often the token that comes next is the likeliest. Mean loss {models['train_loss']:.2f} on the training texts and "
        f"{models['test_loss']:.2f} nats a token on others.{cut}"
    )


def _accuracy(models: dict[str, Any], which: str) -> str:
    return words.percent((models[f"{which}_accuracy"] or {"value": None})["value"]) + (
        " of tokens" if models.get("of_tokens") and which == "train" else ""
    )


def _positive(metrics: dict[str, Any]) -> list[Light]:
    """Whether the audit finds a record that only memory can answer."""
    found = metrics["controls"]["positive"]
    if not found:
        return [
            Light(
                "Positive control",
                UNKNOWN,
                "not asked for",
                "Would the audit see a leak that is surely there? Add mislabelled: 1 to the design's targets.",
            )
        ]
    what = "a record with a wrong label, which only memory can answer"
    return [
        Light(
            f"Positive control {name}" if len(found) > 1 else "Positive control",
            FINE if one["found"] else ALARM,
            f"the planted leak was {'found' if one['found'] else 'NOT found'} ({words.p_short(one['p_holm'])})",
            f"{name}: {what}, {'was found' if one['found'] else 'was NOT found, so the audit is too weak to say anything; add rounds'} (paired p, corrected: {words.p(one['p_holm'])}).",
        )
        for name, one in found.items()
    ]


def _level(metrics: dict[str, Any]) -> list[Light]:
    one = metrics["controls"].get("level")
    if one is None:
        return [
            Light(
                "False accusations",
                UNKNOWN,
                "not measured: no hold-out rounds",
                "Set holdout_rounds in the design: fresh models count how often the attack is wrong.",
            )
        ]
    return [
        Light(
            "False accusations",
            ALARM if one["alarm"] else FINE,
            f"{pool.interval(one)}, promised {words.percent(metrics['alpha'])}",
            f"Of models that never saw the record, {metrics['headline']} accuses {words.rate(one)}; promised {words.percent(metrics['alpha'])}. p of keeping that, for the worst record: {words.p(one['p'])}.",
        )
    ]


def _quiet(p: float, said: str) -> str:
    """What a control without an alarm says: that nothing is seen, or that it is too little for an alarm."""
    return said if p > HINT else "a hint, too weak for an alarm"


def _drift(null: dict[str, Any]) -> Light:
    says = f"{'models differ where nothing should' if null['alarm'] else _quiet(null['p'], NOTHING)} ({words.p_short(null['p'])})"
    detail = f"Models without the record, early against late rounds, where nothing but a drift could differ (two-sided): smallest corrected p {words.p(null['p'])} over {null['n_tests']} tests."
    return Light("Null", ALARM if null["alarm"] else FINE, says, detail)


def _null(metrics: dict[str, Any]) -> Light:
    """Scores against the training set of a model that has nothing to do with the target."""
    null = metrics["controls"]["null"]
    if not null:
        given = metrics["kind"] == "given" and not metrics["models"].get("references")
        why = (
            "Reference models are needed (references in the design)."
            if given
            else "It takes models whose training sets have nothing to do with the audited one's and which are nobody's references; there are too few."
        )
        return Light("Null", UNKNOWN, "not measured: no independent models", why)
    over = f" over {words.counted(len(null['attacks']), 'attack')}" if null.get("attacks") else ""
    scored = (
        "Scores of the model against the training set of a reference"
        if metrics["kind"] == "given"
        else "Scores of each target against the training set of a model"
    )
    detail = f"{scored} that has nothing to do with it, where the AUC must be 0.5: smallest corrected p {words.p(null['p'])}{over}."
    if null["alarm"]:
        return Light(
            "Null",
            ALARM,
            f"the attack knows what it cannot know ({words.p_short(null['p'])})",
            f"{detail} The attack or its references give the answer away.",
        )
    return Light("Null", FINE, f"{_quiet(null['p'], NOTHING)} ({words.p_short(null['p'])})", detail)


def _count(count: dict[str, Any] | None) -> list[Light]:
    if not count:
        return []
    quiet = _quiet(count["p"], "no sign that the other models give the answer away")
    says = f"{'the other models give the answer away' if count['alarm'] else quiet} ({words.p_short(count['p'])})"
    detail = f"The number of references that trained on a record against whether the target did, which must tell nothing: smallest corrected p {words.p(count['p'])}."
    return [Light("Count", ALARM if count["alarm"] else FINE, says, detail)]


def _blind(metrics: dict[str, Any]) -> Light:
    if metrics["kind"] == "given":
        return _listed_blind(metrics["controls"].get("blind") or {"why": "it was not asked for"}, "records")
    if metrics["kind"] == "imported":
        why = "The records themselves were not imported. Where it was not drawn at random who trained on what, members may differ from non-members in themselves."
        return Light("Blind", UNKNOWN, "not tested: the records were not imported", why)
    return Light(
        "Blind",
        FINE,
        "members were drawn at random",
        "Who trained on what was drawn at random, so members and non-members differ in nothing but their membership; no test without the model is needed.",
    )


def _listed_blind(blind: Mapping[str, Any], things: str) -> Light:
    """Whether two lists that somebody brought differ in themselves."""
    asked = f"Can members be told from non-members by a classifier that sees the {things} and never the model?"
    if blind.get("why"):
        return Light("Blind", UNKNOWN, "not measured", f"{asked} Not measured: {blind['why']}.".replace("..", "."))
    measured = f"{asked} AUC {words.estimate(blind['auc'])}, {words.p_short(blind['p'])}; 0.5 is guessing."
    if blind["alarm"]:
        return Light(
            "Blind",
            ALARM,
            f"the lists differ without the model: AUC {words.estimate(blind['auc'], 2)}",
            f"{measured} The two sets differ in themselves, so an attack's AUC may come from that and not from memory; draw both sets from one source.",
        )
    return Light("Blind", FINE, f"{_quiet(blind['p'], 'no sign that the lists differ')}: AUC {words.estimate(blind['auc'], 2)}", measured)


def _length(length: Mapping[str, Any] | None) -> Light | None:
    if not length:
        return None
    sizes = "; ".join(f"{name}: AUC {words.estimate(one['auc'])}" for name, one in length["sizes"].items())
    name, first = next(iter(length["sizes"].items()))  # bytes where they are known
    detail = f"Can members be told by their length alone? {sizes}; corrected p of {name} {words.p(length['p'])}."
    if length["alarm"]:
        return Light(
            "Length",
            ALARM,
            f"members differ in length: AUC {words.estimate(first['auc'], 2)}",
            f"{detail} Many attacks turn length into a score; cut both sets alike, or draw them from one source.",
        )
    if length.get("tokens_differ"):
        detail += " The number of tokens does differ, which depends on the model's own tokenizer."
    return Light("Length", FINE, f"{_quiet(length['p'], 'no sign that they differ')}: AUC {words.estimate(first['auc'], 2)}", detail)


def _form(form: Mapping[str, Any] | None) -> Light | None:
    if not form:
        return None
    columns = "; ".join(f"{name}: AUC {words.estimate(one['auc'])}" for name, one in form["columns"].items())
    detail = f"Can members be told by how they are written? {columns}; smallest corrected p {words.p(form['p'])}."
    if form["alarm"]:
        name, one = min(form["columns"].items(), key=lambda item: item[1]["p"])
        return Light(
            "Form",
            ALARM,
            f"they are written otherwise ({name}: AUC {words.estimate(one['auc'], 2)})",
            f"{detail} A model that was trained on texts written so tells them from others whether or not it has seen these; bring both sets into one form.",
        )
    return Light("Form", FINE, f"{_quiet(form['p'], 'no sign that they are written otherwise')} ({words.p_short(form['p'])})", detail)


def _placebo(placebo: Mapping[str, Any] | None) -> Light | None:
    if not placebo:
        return None
    detail = f"Does the loss of the reference, which has not seen them, tell members? AUC {words.estimate(placebo['auc'])}, {words.p_short(placebo['p'])}; 0.5 is guessing."
    if placebo["alarm"]:
        return Light(
            "Placebo",
            ALARM,
            f"the reference tells members too: AUC {words.estimate(placebo['auc'], 2)}",
            f"{detail} It knows them after all, or one of the two sets is the more ordinary.",
        )
    return Light(
        "Placebo", FINE, f"{_quiet(placebo['p'], 'no sign that the reference tells members')}: AUC {words.estimate(placebo['auc'], 2)}", detail
    )


def _permuted(permuted: Mapping[str, Any] | None) -> list[Light]:
    if not permuted:
        return []
    mean = f" (mean {permuted['auc_mean']:.3f})" if "auc_mean" in permuted else ""
    ends = f" [{100 * permuted['low']:.0f}, {100 * permuted['high']:.0f}]" if "low" in permuted else ""
    detail = f"Of {permuted['n']} random divisions of the same records {words.percent(permuted['share_covered'])}{ends} have 0.5 inside the 95 % interval of the AUC{mean}. This checks the arithmetic of the metrics, and nothing about the model."
    says = f"{words.percent(permuted['share_covered'])} of {permuted['n']} shuffled splits show nothing"
    return [Light("Arithmetic", ALARM if permuted["alarm"] else FINE, says, detail)]


def _certified(metrics: dict[str, Any]) -> Light:
    """Whether so many non-members speak of the false-positive rate that the verdict reads."""
    n, alpha = pool.n_distinct(metrics), metrics["alpha"]
    things = "units" if metrics.get("unit") is not None else "canaries" if metrics["kind"] == "canaries" else "records"
    who = "distinct non-members" if metrics["kind"] == "given" else f"distinct {things} that were outside some training set"
    detail = f"Rates from {pool.share(3 / n)} on can be certified, since there are {n:,} {who} (3 / n)."
    if n < pool.records_for(alpha):
        return Light(
            "Certified",
            UNKNOWN,
            f"{n:,} {things} are too few for a false-positive rate of {pool.level(alpha)}",
            f"{detail} A false-positive rate of {pool.level(alpha)} takes {pool.records_for(alpha):,}.",
        )
    return Light("Certified", FINE, f"{n:,} {things} are enough for a false-positive rate of {pool.level(alpha)}", detail)


def _overlap(found: Mapping[str, Any], noun: str) -> Light:
    """Test texts that are training texts."""
    overlap, n = found["controls"].get("overlap"), found["n"]
    repeated = n["overlap"] + n["near"]
    if overlap is None and noun != "image":
        return Light("Overlap", UNKNOWN, "not measured", "Whether test texts repeat training texts was not asked for.")
    left_out = f"; {'it was' if repeated == 1 else 'they were'} left out" if repeated else ""
    detail = f"{n['overlap']} test {noun}s equal a training {noun}"
    if overlap is not None:
        ends = ("whole" if one["low"] == one["high"] else f"below {100 * one['high']:.0f} %" for one in overlap)
        shares = ", ".join(f"{one['n']} {end}" for one, end in zip(overlap, ends, strict=True))
        detail += f" and {n['near']} more stand in one to 80 % or more{left_out}. Share of a {noun}'s word sequences that stand in training {noun}s: {shares}."
    else:
        detail += f"{left_out}."
    return Light(
        "Overlap",
        FINE,
        f"{words.counted(repeated, f'repeated {noun}')}, left out" if repeated else f"no test {noun} repeats a training {noun}",
        detail,
    )
