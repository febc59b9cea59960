"""Limits that a release must keep: what was measured of an audit held against them, for a pipeline that needs a yes or a no.

A limit is kept where the whole interval lies on its good side, exceeded where the whole interval lies beyond it, and
undecided where the interval reaches across, or where nothing that can be believed was measured: a rate that too few
non-members certify, a verdict that is refused, a control that gave an alarm, an audit that is not finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memleak import artefacts, plugins
from memleak.metrics.intervals import clopper_pearson
from memleak.report import pool, results
from memleak.report import verdict as verdicts

PASS, FAIL, UNDECIDED = "PASS", "FAIL", "UNDECIDED"
EXIT = {PASS: 0, FAIL: 1, UNDECIDED: 3}
USAGE = 2
STATES = ("LOW", "MEDIUM", "HIGH")
JUDGES = ("upper", "value", "lower")
KINDS = ("audit", "tester", "scores")  # of metrics that can be held against limits


class GateError(ValueError):
    """A gate that was called with what cannot be judged; `exit_code` is what the command ends with."""

    exit_code = USAGE


@dataclass(frozen=True)
class Limit:
    """What may be at most (or, of an accuracy, at least) `bound`: a share in [0, 1], an epsilon, a risk of 0 to 100, a count, or a state."""

    name: str  # of LIMITS
    bound: float | str

    @property
    def is_least(self) -> bool:
        return self.name.startswith("min")


@dataclass(frozen=True)
class Measured:
    """What an audit found, and between what it lies; `low` or `high` is None where nothing bounds it on that side."""

    value: float | None
    low: float | None
    high: float | None
    rests: str  # on what: the attack, the threshold, the number of records
    why_not: str | None = None  # nothing can be said, and why
    to_do: str = ""


@dataclass(frozen=True)
class Judged:
    """One limit held against one audit."""

    audit: str
    limit: str
    bound: float | str
    value: float | str | None
    low: float | None
    high: float | None
    rests: str
    state: str  # PASS, FAIL or UNDECIDED
    why: str
    to_do: str


@dataclass(frozen=True)
class Subject:
    """Something that is held against limits: metrics, or why there are none."""

    name: str
    metrics: dict[str, Any] | None
    problem: str | None = None
    to_do: str = ""


def unknown(why: str, to_do: str = "", rests: str = "") -> Measured:
    return Measured(None, None, None, rests, why, to_do)


def subjects(directory: Path, names: Sequence[str], files: Sequence[Path]) -> list[Subject]:
    """The named audits of a project (all of them where neither names nor files are given), and the files."""
    found = results.audits_of(directory) if names or not files else []
    if found and (unread := _unread(directory)):
        found = [replace(one, problem=unread) for one in found]
    known = {one.name: one for one in found}
    for name in names:
        if name not in known:
            raise GateError(f"no audit is called '{name}' in {directory}{plugins.nearest(name, list(known))}")
    return [_subject(known[name]) for name in names or known] + [_of_file(path) for path in files]


def _unread(directory: Path) -> str | None:
    """Why nobody can say whether what lies there is what params.yaml asks for; a release must not pass by a misspelt key."""
    try:
        results.plan_of(directory)
    except ValueError as error:
        return f"params.yaml cannot be read ({error}); mend it and run snakemake"
    return None


def _subject(found: results.Found) -> Subject:
    again = "run snakemake, and this again"
    if found.problem is not None:
        return Subject(found.name, None, found.problem, "" if "run snakemake" in found.problem else again)
    if not found.is_finished and found.stages:
        return Subject(found.name, None, f"the audit is not finished: {found.missing or 'its metrics are missing'}", f"see `memleak status`; {again}")
    return Subject(found.name, found.metrics)


def _of_file(path: Path) -> Subject:
    try:
        return Subject(str(path), results.metrics_of(path, *KINDS))
    except artefacts.ArtefactError as error:
        return Subject(str(path), None, str(error))


def judge(subject: Subject, limit: Limit, by: str = "upper", attacks: str = "headline") -> Judged:
    """One limit held against one audit; where all attacks are asked for, by the one that keeps it worst."""
    if subject.metrics is None:
        return _judged(subject, limit, unknown(subject.problem or "nothing was measured", subject.to_do), by)
    try:
        held = [_judged(subject, limit, one, by) for one in _measured(subject.metrics, limit, attacks)]
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:  # of a file that only says that it is one of ours
        broken = unknown(f"its metrics are not as their schema says ({type(error).__name__}: {error})", "run snakemake again in that folder")
        return _judged(subject, limit, broken, by)
    order = [PASS, UNDECIDED, FAIL]
    return max(held, key=lambda one: (order.index(one.state), _size(one)))


def _size(one: Judged) -> float:
    return one.value if isinstance(one.value, (int, float)) else -math.inf


def exit_code(judged: Sequence[Judged]) -> int:
    """0: all limits are kept; 1: one is shown to be exceeded; 3: something cannot be said, as where nothing was judged."""
    states = {one.state for one in judged}
    return EXIT[FAIL if FAIL in states else UNDECIDED if UNDECIDED in states or not states else PASS]


def _judged(subject: Subject, limit: Limit, found: Measured, by: str) -> Judged:
    state, why = _state(limit, found, by)
    value: float | str | None = found.value
    if limit.name == "max-state" and found.value is not None:
        value = STATES[int(found.value)]
    to_do = found.to_do if state == UNDECIDED else "" if state == PASS else _mend(limit)
    return Judged(subject.name, limit.name, limit.bound, value, found.low, found.high, found.rests, state, why, to_do)


def _state(limit: Limit, found: Measured, by: str) -> tuple[str, str]:
    """Whether the limit is kept, and why so, in words."""
    if found.why_not is not None:
        return UNDECIDED, found.why_not
    bound = float(STATES.index(str(limit.bound))) if limit.name == "max-state" else float(limit.bound)
    sign = -1 if limit.is_least else 1
    ends = [found.low, found.high] if sign > 0 else [found.high, found.low]  # the better end first
    if any(end is not None and not math.isfinite(end) for end in (found.value, *ends)) or found.value is None:
        return UNDECIDED, "what was measured is not a number"
    best, worst = (math.inf * side if end is None else sign * end for end, side in zip(ends, (-1, 1), strict=True))
    value, bound = sign * found.value, sign * bound
    if by == "value":
        if value > bound:
            return FAIL, "the value exceeds it"
        return (UNDECIDED, "a lower bound is no estimate") if math.isinf(worst) else (PASS, "the value keeps it")
    if by == "lower":
        return (FAIL, "shown to be exceeded") if best > bound else (PASS, "not shown to be exceeded")
    if worst <= bound:
        return PASS, "no more were found; that others are safe is not shown" if limit.name == "max-exposed" else "shown to be kept"
    if best > bound:
        return FAIL, "shown to be exceeded"
    return UNDECIDED, "nothing bounds it from above" if math.isinf(worst) else "the interval reaches across the limit"


def _mend(limit: Limit) -> str:
    if limit.name == "min-test-accuracy":
        return "train a better model, or lower the limit if that is what it is good for"
    return "do not release this model; what may help stands in the report under What to do"


def _measured(metrics: Mapping[str, Any], limit: Limit, attacks: str) -> list[Measured]:
    """What an audit found about a limit: once, or once an attack."""
    of_attack, about_models = OF_ATTACK.get(limit.name), limit.name in ABOUT_MODELS
    refused = None if about_models else _refusal(metrics)
    if refused is not None:
        return [unknown(refused, "mend what the report says is wrong, and audit again")]
    if of_attack is None:
        return [_OF_AUDIT[limit.name](metrics, limit)]
    if metrics["of"] == "scores":
        return [of_attack(metrics, metrics["name"], metrics)]
    names = list(metrics["attacks"]) if attacks == "all" else [metrics["headline"]]
    found = [of_attack(metrics, name, metrics["attacks"][name]) for name in names if attacks != "all" or not _says_nothing(metrics["attacks"][name])]
    return found or [unknown("no attack has such a figure")]


def _says_nothing(attack: Mapping[str, Any]) -> bool:
    """Whether an attack could not be made, or has one threshold alone, as `correctness`, and no rate at a low false-positive rate."""
    return bool(attack.get("why")) or bool((attack.get("natural") or {}).get("is_only"))


def _refusal(metrics: Mapping[str, Any]) -> str | None:
    """Why no figure about attacks can be believed."""
    if metrics["of"] == "scores":
        return None
    alarms = [name for name, control in metrics["controls"].items() if isinstance(control, Mapping) and control.get("alarm")]
    if alarms:
        return f"a control of the audit gave an alarm ({', '.join(alarms)}), so its rates cannot be believed"
    if metrics["of"] == "tester":
        return metrics["verdict"]["sentence"] if metrics["verdict"]["is_refused"] else None
    verdict = verdicts.verdict(dict(metrics))
    return verdict.sentence if verdict.is_refused or _misses_what_is_there(metrics) else None


def _misses_what_is_there(metrics: Mapping[str, Any]) -> bool:
    """Whether an audit of pairs did not find a record that only memory can answer: that it found nothing else says nothing."""
    return any(not control["found"] for control in metrics["controls"].get("positive", {}).values())


def _tpr(metrics: Mapping[str, Any], name: str, attack: Mapping[str, Any], fpr: float) -> Measured:
    """The TPR at a declared FPR: at a threshold that was set beforehand, where there is one, else the best on these scores."""
    if metrics.get("kind") == "pairs":
        return _tpr_of_pairs(name, attack, fpr)
    if (attack.get("natural") or {}).get("is_only"):
        return unknown(f"{name} has one threshold alone, and no TPR at FPR {pool.level(fpr)}", "hold it against --max-auc or --max-advantage", name)
    rate = _tpr_of_tester(attack, fpr) if metrics["of"] == "tester" else pool.rate(dict(attack), fpr)
    if rate is None:
        why = attack.get("why") or f"{name} has no TPR at FPR {pool.level(fpr)}"
        return unknown(why, "choose a limit at another false-positive rate")
    n = f"{rate['n_non_members']:,} distinct non-members"
    if not rate["certified"]:
        more = f"audit with {pool.records_for(fpr):,} or more non-members, or choose a limit at a higher false-positive rate"
        return unknown(f"{n} cannot certify a false-positive rate of {pool.level(fpr)}", more, name)
    chosen = f"{name}, threshold chosen on these very scores (optimistic), {n}"
    preset = pool.calibrated(dict(metrics), name, fpr) if metrics["of"] == "audit" else None
    if preset is None:
        return _estimate(rate, chosen, _MORE)
    achieved, where = preset["achieved_fpr"], metrics["thresholds_from"]
    if preset["tpr"]["value"] == achieved["value"] == 0:
        return unknown(f"so many scores tie that nobody lies beyond the thresholds for {pool.level(fpr)}", "choose an attack with finer scores", name)
    if achieved["low"] <= fpr <= achieved["high"]:
        return _estimate(preset["tpr"], f"{name}, threshold set on {where}, achieved FPR {pool.interval(achieved)}, {n}", _MORE)
    return _estimate(rate, f"{chosen}, since one set on {where} has an FPR of {pool.interval(achieved)}", _MORE)


def _tpr_of_tester(attack: Mapping[str, Any], fpr: float) -> dict[str, Any] | None:
    """The TPR at FPR 1 %, which alone of the two it tells."""
    return attack.get("tpr_1") if math.isclose(fpr, 0.01) else None


def _tpr_of_pairs(name: str, attack: Mapping[str, Any], fpr: float) -> Measured:
    """The average rate over the audited records, where the audit's alpha is that false-positive rate."""
    if not math.isclose(attack["alpha"], fpr):
        why = f"this audit of single records decides at FPR {pool.level(attack['alpha'])} alone"
        return unknown(why, f"hold it against --max-risk, --max-exposed or --max-state, or set alpha: {fpr:g}", name)
    if "tpr" not in attack:
        return unknown("there are no hold-out rounds", "set holdout_rounds in the design", name)
    return _estimate(attack["tpr"], f"{name}, average over the audited records, rule fitted on other models", _MORE)


_MORE = "measure more models, members or non-members: the interval gets narrower"


def _estimate(found: Mapping[str, Any] | None, rests: str, to_do: str = "") -> Measured:
    if not found or found.get("value") is None:
        return unknown("it was not measured", to_do, rests)
    if found.get("low") is None or found.get("high") is None:
        return unknown("it has no interval", to_do, rests)
    return Measured(found["value"], found["low"], found["high"], rests, None, to_do)


def _auc(metrics: Mapping[str, Any], name: str, attack: Mapping[str, Any]) -> Measured:
    if metrics.get("kind") == "pairs":
        return unknown("an audit of single records has no AUC over all of them", "hold it against --max-risk, --max-exposed or --max-state", name)
    return _estimate(attack["auc"], name, _MORE) if attack["auc"] else unknown(attack.get("why") or "it was not measured", "", name)


def _advantage(metrics: Mapping[str, Any], name: str, attack: Mapping[str, Any]) -> Measured:
    if metrics.get("kind") == "pairs":
        return unknown(
            "an audit of single records has no advantage over all of them", "hold it against --max-risk, --max-exposed or --max-state", name
        )
    rests = f"{name}, threshold chosen on these very scores (optimistic)"
    if metrics["of"] == "tester":  # TPR - FPR, from the balanced accuracy of the same threshold
        accuracy = attack["accuracy"]
        return _estimate(accuracy and {end: 2 * accuracy[end] - 1 for end in ("value", "low", "high")}, rests, _MORE)
    return _estimate(attack["advantage"], rests, _MORE)


def _risk(metrics: Mapping[str, Any], _: Limit) -> Measured:
    if metrics["of"] == "scores":
        return unknown("scores alone have no risk score", "hold them against --max-tpr-at-1pct, --max-auc or --max-advantage")
    if metrics["of"] == "tester":
        return _estimate(metrics["risk"], metrics["headline"], _MORE)
    found = verdicts.verdict(dict(metrics))
    if found.risk is None:
        return unknown("there is no risk score", found.sentence, metrics["headline"])
    return _estimate({"value": found.risk, "low": found.low, "high": found.high}, metrics["headline"], _MORE)


def _verdict(metrics: Mapping[str, Any], _: Limit) -> Measured:
    if metrics["of"] == "scores":
        return unknown("scores alone have no verdict", "hold them against --max-tpr-at-1pct, --max-auc or --max-advantage")
    found = metrics["verdict"] if metrics["of"] == "tester" else asdict(verdicts.verdict(dict(metrics)))
    if found["state"] not in STATES:
        return unknown(f"the verdict is {found['state']}", found["sentence"], metrics["headline"])
    state = float(STATES.index(found["state"]))
    return Measured(state, state, state, metrics["headline"])


def _epsilon(metrics: Mapping[str, Any], _: Limit) -> Measured:
    """A lower bound from the audit; above it only what the training's accountant proves, where it is private by design."""
    found, promised = metrics.get("epsilon"), (metrics.get("models") or {}).get("dp")
    if not found and not promised:
        kind = metrics.get("kind", "this kind")
        return unknown(f"an audit of kind {kind} bounds no epsilon", "audit with a design of kind canaries or pairs, or train with dp")
    if (found or {}).get("alarm"):
        promised = None  # refuted by what was measured
    high = promised["epsilon"] if promised else None
    rests = f"proved by the {promised['accountant']} accountant at delta {promised['delta']:g}" if promised else "a lower bound alone"
    if promised and metrics.get("unit") is not None:
        rests += f", of one record and not of all that one {metrics['unit']['column']} has"
    low = max(0.0, found["epsilon"]) if found else 0.0
    if found:
        shown = found.get("attainable") or max((run["attainable"] for run in found.get("runs") or ()), default=None)
        rests += f"; the audit shows {low:.2f} or more" + (f", and could have shown {shown:.2f} at most" if shown is not None else "")
    to_do = "no audit shows that epsilon is small: train with dp, which proves it, or judge by --judge lower what is shown alone"
    return Measured(low if high is None else high, low, high, rests, None, to_do)


def _exposed(metrics: Mapping[str, Any], limit: Limit) -> Measured:
    """How many records were found to be exposed, or which share of them; a count of findings has no interval."""
    if metrics["of"] == "tester":
        n, of, how = metrics["flagged"], metrics["n"]["members"], "texts flagged at a false discovery rate of 5 %"
    elif metrics.get("kind") == "pairs":
        natural = [target for target in metrics["targets"].values() if not target["is_canary"]]
        if lacking := _cannot_expose(metrics):
            return lacking
        n, of, how = sum(target["state"] == "exposed" for target in natural), len(natural), "audited records that are exposed (Holm)"
    elif metrics.get("exposure"):
        n, of, how = metrics["exposure"]["n_flagged"], metrics["exposure"]["n_samples"], "records flagged at a false discovery rate of 5 %"
    else:
        return unknown("this audit tells no single record that is exposed", "audit with a design of kind halves, pairs or canaries")
    if not of:
        return unknown("no natural record was audited", "audit some")
    value = float(n) if _is_count(limit) else n / of
    return Measured(value, value, value, f"{n:,} of {of:,} {how}")


def _cannot_expose(metrics: Mapping[str, Any]) -> Measured | None:
    """Why an audit of pairs could call no record exposed, whatever leaks."""
    if "tpr" not in metrics["attacks"][metrics["headline"]]:
        return unknown("without hold-out rounds no record is called exposed", "set holdout_rounds in the design")
    refused = next((target["effect"] for target in metrics["targets"].values() if not target["effect"]["testable"]), None)
    if refused is not None:
        why = f"with {refused['n_rounds']} rounds no p-value over {len(metrics['targets'])} records is small enough to call one exposed"
        return unknown(why, f"raise rounds in the design: {refused['least_rounds']} are the least")
    return None


def _is_count(limit: Limit) -> bool:
    return isinstance(limit.bound, int)


def _accuracy(metrics: Mapping[str, Any], part: str) -> Measured:
    """The accuracy of the audited models: the range of the middle 95 % of them, never narrower than for so many records (Clopper-Pearson)."""
    models = metrics.get("models") or {}
    found, n = models.get(f"{part}_accuracy"), models.get(f"n_{part}")
    if not found or not n or models.get("of_tokens"):
        what = "a language model's" if models.get("of_tokens") else "it"
        return unknown(f"{what} accuracy on {part} records is not known" if models.get("of_tokens") else f"the {part} accuracy is not known")
    low, high = clopper_pearson(round(found["value"] * n), n)
    rests = f"{models['n']} model{'s' if models['n'] > 1 else ''}, {n:,} {part} records"
    return Measured(found["value"], min(low, found["low"]), max(high, found["high"]), rests, None, "measure on more test records")


def _gap(metrics: Mapping[str, Any], _: Limit) -> Measured:
    """Train accuracy less test accuracy, as far apart as the two intervals allow."""
    train, test = _accuracy(metrics, "train"), _accuracy(metrics, "test")
    if train.value is None or test.value is None:
        return train if train.value is None else test
    assert train.low is not None and train.high is not None and test.low is not None and test.high is not None
    return replace(test, value=train.value - test.value, low=train.low - test.high, high=train.high - test.low)


OfAttack = Callable[[Mapping[str, Any], str, Mapping[str, Any]], Measured]
OF_ATTACK: dict[str, OfAttack] = {
    "max-tpr-at-1pct": lambda metrics, name, attack: _tpr(metrics, name, attack, 0.01),
    "max-tpr-at-0.1pct": lambda metrics, name, attack: _tpr(metrics, name, attack, 0.001),
    "max-auc": _auc,
    "max-advantage": _advantage,
}
_OF_AUDIT: dict[str, Callable[[Mapping[str, Any], Limit], Measured]] = {
    "max-risk": _risk,
    "max-epsilon": _epsilon,
    "max-exposed": _exposed,
    "max-state": _verdict,
    "max-gap": _gap,
    "min-test-accuracy": lambda metrics, _: _accuracy(metrics, "test"),
}
ABOUT_MODELS = ("max-gap", "min-test-accuracy")  # which no control of an attack puts into doubt
WORDS = {
    "max-tpr-at-1pct": "TPR at FPR 1 %", "max-tpr-at-0.1pct": "TPR at FPR 0.1 %", "max-auc": "AUC", "max-advantage": "advantage, TPR - FPR",
    "max-risk": "risk score", "max-epsilon": "epsilon", "max-exposed": "exposed records", "max-state": "verdict",
    "max-gap": "generalisation gap", "min-test-accuracy": "test accuracy",
}  # fmt: skip
LIMITS = tuple(WORDS)
SHARES = ("max-tpr-at-1pct", "max-tpr-at-0.1pct", "max-advantage", "max-gap", "min-test-accuracy")


def text(judged: Sequence[Judged]) -> str:
    """One line an audit and limit, what to do about those that are not kept, and what it comes to."""
    lines = []
    for one in judged:
        rests = f" ({one.rests})" if one.rests else ""
        lines.append(f"{one.state:<9}  {one.audit}: {_told(one)}{rests}; {one.why}")
        if one.to_do:
            lines.append(f"{'':<9}  -> {one.to_do}")
    n = {state: sum(one.state == state for one in judged) for state in EXIT}
    told = f"{n[PASS]} of {len(judged)} limits kept, {n[FAIL]} exceeded, {n[UNDECIDED]} undecided"
    return "\n".join([*lines, told if judged else "no audit was found, so nothing can be said: run snakemake here, or name a --directory"])


def _told(one: Judged) -> str:
    """`TPR at FPR 1 % 6.7 % [5.5, 8.0], at most 5 %`."""
    sign, unit = "at least" if one.limit.startswith("min") else "at most", " %" if _is_share(one) else ""
    bound = f"{sign} {_shown(one, one.bound)}{unit}"
    if one.value is None:
        return f"{WORDS[one.limit]} {bound}"
    ends = "" if one.low == one.high else f" [{_shown(one, one.low)}, {_shown(one, one.high)}]"
    return f"{WORDS[one.limit]} {_shown(one, one.value)}{unit}{ends}, {bound}"


def _is_share(one: Judged) -> bool:
    return one.limit in SHARES or (one.limit == "max-exposed" and isinstance(one.bound, float))


def _shown(one: Judged, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "unbounded"
    if one.limit == "max-auc":
        return f"{value:.3f}"
    return f"{100 * value:.3g}" if _is_share(one) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def as_dict(judged: Sequence[Judged], by: str) -> dict[str, Any]:
    """The same for programs: one entry an audit and limit, and the exit code."""
    return artefacts.stamped("gate", {"judge": by, "exit_code": exit_code(judged), "limits": [_plain(asdict(one)) for one in judged]})


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON does not know."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in one.items()}


def bound_of(name: str, given: str) -> float | str:
    """A limit as it was written: `0.05`, `5%`, `MEDIUM`; of exposed records a whole number is a count, `0.01` and `1%` are shares."""
    if name == "max-state":
        if given.upper() not in STATES:
            raise GateError(f"--{name}: expected LOW, MEDIUM or HIGH, found '{given}'")
        return given.upper()
    try:
        if name == "max-exposed" and given.strip().isdecimal():
            return int(given)
        is_percent = given.strip().endswith("%")
        if is_percent and name not in (*SHARES, "max-exposed", "max-auc"):
            raise ValueError
        value = float(given.strip().removesuffix("%")) / (100 if is_percent else 1)
    except ValueError:
        example = {"max-risk": "10, of 100", "max-epsilon": "8"}.get(name, "0.05 or 5%")
        raise GateError(f"--{name}: expected a number such as {example}, found '{given}'") from None
    highest = {"max-risk": 100.0, "max-epsilon": math.inf}.get(name, 1.0)
    if math.isnan(value) or value < 0 or value > highest:
        raise GateError(f"--{name}: expected a number from 0 to {highest:g}, found '{given}'" + (" (write 5%, or 0.05)" if value > 1 else ""))
    return value
