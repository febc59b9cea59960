"""The one-page text report: models, data sets, attacks, and a summary with what may be done about it.

Its figures are balanced: they speak of as many members as non-members, so that an attack that says "member" of everybody
has accuracy .5. Each stands at a threshold that was not chosen on the scores it judges.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memleak.report import pool, recommendations
from memleak.report import verdict as verdicts

TITLE = "Model Privacy Leakage Analysis Report"
WIDTH = 120
SHOWN_FPR = 0.01  # of the TPR beside each AUC
DESCRIPTIONS = {
    "base": "Compares the model's confidence in a record with the average likelihood of it under reference models.",
    "dc_pdd": "Says member of texts whose tokens the model finds likelier than their frequency alone would make them.",
    "difficulty": "Takes from the model's loss on a record how hard reference models find it.",
    "ez": "Weighs, at the tokens that the model gets wrong, what it gained on a model that never saw the text against what it lost.",
    "label_only": "Asks for labels alone: a record that was trained on stays right when it is turned, moved or disturbed.",
    "lira": "Asks whether the model's margin on a record looks like that of models trained with it or without it.",
    "lowercase": "Says member of texts that the model finds much less likely once their capitals are gone.",
    "meta": "A classifier reads all signals of a record at once; it learned from reference models how members look.",
    "min_k": "Says member of texts that surprise the model little even at the tokens that surprise it most.",
    "neighbourhood": "Says member of texts that the model finds likelier than copies in which a few words were exchanged.",
    "population": "Says member where the model does better on a record than on records of the same kind that it never saw.",
    "range": "Looks at a record and its neighbourhood: members are recognised by what lies around them, too.",
    "recall": "Says member of texts that the model finds less likely after {shots} texts that it was not trained on.",
    "reference": "Says member where the model does better on a record than reference models that never saw it.",
    "reference_model": "Says member of texts that the model finds likelier than a model does that never saw them.",
    "rmia": "Compares the record's likelihood ratio, model against references, with that of many other records.",
    "shadow": "A classifier learned from shadow models how the posteriors of members differ from those of other records.",
    "surp": "Says member of texts in which few tokens are unlikely where the model is sure of another.",
    "threshold": "Says member where the model's {signal} on a record is better than a threshold.",
    "token": "Says member of texts at whose tokens the model is surest, by their {statistic}.",
    "top_k": "A classifier learned from one shadow model how the {k} largest posteriors look of records trained on.",
    "wbc": "Counts in how many short stretches of a text the model does better than a model that never saw it.",
    "zlib": "Compares how likely the model finds a text with how well it compresses.",
}
ALIGNMENT = "Says member where the noisy gradients of training point to the canary."
CORRECTNESS = "Says member of every record that the model classifies correctly, and of no other."


@dataclass(frozen=True)
class _Figure:
    """A value with its interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.low is None or self.high is None else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> _Figure | None:
        if not found or found["value"] is None:
            return None
        return cls(found["value"], found.get("low"), found.get("high"))


@dataclass(frozen=True)
class _Balanced:
    """An attack at one threshold: balanced accuracy, precision where members are as many as non-members, recall (the TPR)."""

    where: str
    accuracy: _Figure
    precision: _Figure | None
    recall: _Figure | None

    @property
    def advantage(self) -> tuple[float, float]:
        """Ends of the interval of TPR - FPR: 0 at chance, whatever share is accused."""
        low = self.accuracy.value if self.accuracy.low is None else self.accuracy.low
        high = self.accuracy.value if self.accuracy.high is None else self.accuracy.high
        return 2 * low - 1, 2 * high - 1


def text(metrics: dict[str, Any], params: dict[str, Any]) -> str:
    """The report on one page, from the metrics of an audit and its entry in params.yaml; of `pairs` there is none."""
    if metrics["kind"] == "pairs":
        raise ValueError(f"{metrics.get('audit', 'audit')}: an audit of pairs is about a few records; this report is about a model, see report.html")
    verdict = verdicts.verdict(metrics)
    found = {name: _at_thresholds(metrics, name) for name in metrics["attacks"]}
    states = {name: _state(metrics, name, found[name], verdict) for name in found}
    blocks = [
        [TITLE], ["Models:", *_models(metrics, params)], ["Datasets:", *_datasets(metrics, params)],
        ["Attacks:", *(line for name in found for line in _attack(metrics, name, found[name]))], ["Summary:", *_summary(metrics, params, verdict, states)],
    ]  # fmt: skip
    return "\n\n".join("\n".join(wrapped for line in block for wrapped in _wrap(line)) for block in blocks) + "\n"


def _wrap(line: str) -> list[str]:
    """A line of the page, continued under its own beginning."""
    indent = " " * (len(line) - len(line.lstrip(" -")))
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _models(metrics: dict[str, Any], params: dict[str, Any]) -> Iterator[str]:
    models, given = metrics["models"], metrics["models"].get("given")
    name = _model_name(given) if given else f"{models['n']} models ({_recipe_name(metrics, params)})"
    yield f"- name: {name}, {_accuracies(models)}"
    yield from (f"  {sentence}" for sentence in pool.privacy_sentences(models))
    references = models.get("references")
    if references:
        yield f"- name: {references['n']} reference model{'s' if references['n'] != 1 else ''}, {_accuracies(references)}"


def _model_name(given: Mapping[str, Any]) -> str:
    return str(given.get("name") or given.get("weights") or given.get("form") or "given model")


def _recipe_name(metrics: dict[str, Any], params: dict[str, Any]) -> str:
    recipe = metrics.get("recipe") or (params.get("entry") or {}).get("recipe")
    return str(recipe["name"] if isinstance(recipe, Mapping) and "name" in recipe else recipe)


def _accuracies(models: Mapping[str, Any]) -> str:
    """Of language models how often the next token is the likeliest."""
    what = "token_acc" if models.get("of_tokens") else "acc"
    return ", ".join(f"{part}_{what}: {_accuracy(models[f'{part}_accuracy'])}" for part in ("train", "test"))


def _accuracy(found: Mapping[str, Any] | None) -> str:
    """Of several models with the middle 95 % of them; of one, the figure alone."""
    if not found:
        return "unknown"
    return str(_Figure(found["value"]) if found["low"] == found["high"] else _Figure.of(found))


def _datasets(metrics: dict[str, Any], params: dict[str, Any]) -> Iterator[str]:
    for part in metrics.get("parts") or ():
        audited = part.get("n_audited")
        more = f", audited: {audited}" if audited is not None and audited != part["length"] else ""
        yield f"- name: {part['name']}, is_member_dataset: {str(bool(part['is_member'])).lower()}, length: {part['length']}{more}"
    if not metrics.get("parts"):
        name = (metrics.get("data") or {}).get("name") or (params.get("entry") or {}).get("dataset") or "records"
        what = f"{metrics['n_samples']} gradient canaries beside it" if pool.has_gradients(metrics) else metrics["n_samples"]
        yield f"- name: {name}, length: {what}, is_member_dataset: each model has members and non-members of its own in it"


def _description(attack: Mapping[str, Any]) -> str:
    if _is_correctness(attack):
        return CORRECTNESS
    if attack["options"].get("signal") == "alignment":
        return ALIGNMENT
    options = {key: str(value).replace("_", " ") for key, value in (attack.get("options") or {}).items()}
    known = DESCRIPTIONS.get(attack["name"], f"An attack of the user's own ({attack['name']}).")
    return known.format_map({"signal": "loss", "k": "3", "shots": "4", "statistic": "log rank"} | options)


def _is_correctness(attack: Mapping[str, Any]) -> bool:
    """Whether "the model is right" is the only threshold that a score has."""
    return bool((attack.get("natural") or {}).get("is_only"))


def _at_thresholds(metrics: dict[str, Any], name: str) -> list[_Balanced]:
    """An attack at the thresholds that it is judged at, its own first; none where none could be set without its own scores."""
    attack, found = metrics["attacks"][name], pool.calibrated(metrics, name)
    if _is_correctness(attack):
        return [_balanced("at its natural threshold, member where the model is right", attack["natural"])]
    own = [_balanced("at its own threshold, which was fitted on references", attack["natural"])] if attack.get("natural") else []
    source = metrics.get("thresholds_from") or "mock targets"
    where = f"at the threshold that {source} set for a false-positive rate of {pool.level(metrics['alpha'])}"
    return [*own, *([_balanced(where, found)] if found else [])]


def _balanced(where: str, found: Mapping[str, Any]) -> _Balanced:
    """Balanced accuracy from TPR and FPR; both half widths added up, the most that any dependence makes of them."""
    tpr, fpr = found["tpr"], found["achieved_fpr"]
    ends = [(tpr[a] + 1 - fpr[b]) / 2 for a, b in (("value", "value"), ("low", "high"), ("high", "low"))]
    even = next((one for one in found.get("ppv") or () if one["prior"] == 0.5), None)
    return _Balanced(where, _Figure(*ends), _Figure.of(even), _Figure.of(tpr))


def _attack(metrics: dict[str, Any], name: str, found: Sequence[_Balanced]) -> Iterator[str]:
    attack = metrics["attacks"][name]
    n = attack["n_references"]
    yield f"- name: {name}{' (headline, declared beforehand)' if name == metrics['headline'] else ''}"
    yield f"  attack description: {_description(attack)}"
    n_queries = 0 if pool.has_gradients(metrics) else attack["n_queries"]
    yield f"  queries: {n_queries:.0f} a record" + (f", {n} reference model{'s' if n > 1 else ''} at hand" if n else "")
    yield f"  attack results: {found[0].where if found else 'no threshold could be set without the very scores it judges'}:"
    results = [("acc", found[0].accuracy), ("precision", found[0].precision), ("recall", found[0].recall)] if found else []
    results.insert(1, ("auc", _Figure.of(attack["auc"])))
    for pair in (results[:2], results[2:]):  # all four with their intervals are longer than a line
        if pair:
            yield "    " + ", ".join(f"{key} = {'n/a' if figure is None else figure}" for key, figure in pair)
    for other in found[1:]:
        yield f"    {other.where}: acc = {other.accuracy}, precision = {other.precision or 'n/a'}, recall = {other.recall}"
    rate = pool.rate(dict(attack), SHOWN_FPR)
    if rate is not None and not _is_correctness(attack):
        few = "" if rate["certified"] else ", which so few non-members cannot certify"
        yield f"    TPR at FPR {pool.level(SHOWN_FPR)} = {_Figure.of(rate)} (threshold chosen on these scores: optimistic{few})"


def _state(metrics: dict[str, Any], name: str, found: Sequence[_Balanced], verdict: verdicts.Verdict) -> str:
    """The level of one attack: the verdict's own for the headline; for others its limits, at the threshold where the attack tells most."""
    if not found or verdict.is_refused or pool.has_gradients(metrics):
        return "UNDECIDED"
    if name == metrics["headline"]:
        return verdict.state
    low, high = (max(ends) for ends in zip(*(one.advantage for one in found), strict=True))
    return verdicts.state_of(low, high, verdicts.limits_of(metrics))


def _summary(metrics: dict[str, Any], params: Mapping[str, Any], verdict: verdicts.Verdict, states: Mapping[str, str]) -> Iterator[str]:
    risky = [name for name, state in states.items() if state in ("MEDIUM", "HIGH")]
    undecided = [name for name, state in states.items() if state == "UNDECIDED"]
    risk = f", risk {verdict.risk:g} of 100 [{verdict.low:g}, {verdict.high:g}]" if verdict.risk is not None else ""
    yield f"Membership inference, by the headline attack {metrics['headline']}: {states[metrics['headline']]}{risk}."
    yield verdict.sentence
    yield from (note for note in verdict.notes if note.startswith("ALARM"))
    if risky:
        yield "WARNING! Your model has risk of membership inference attacks, they are:"
        yield from (f"  {i}, {name} ({states[name]} risk)" for i, name in enumerate(risky, 1))
    elif not undecided:
        yield "Good news: every attack of this audit is at a LOW level. Stronger attacks may exist; this is no proof that there is no leak."
    if undecided:
        yield f"Undecided: {', '.join(undecided)}. {_missing(metrics, verdict)}"
    low = [name for name, state in states.items() if state == "LOW"]
    if low and (risky or undecided):
        yield f"LOW: {', '.join(low)}."
    yield "What to do. Nothing here is a promise: what an action brings, and what it costs, is measured by another audit."
    for action in recommendations.of(metrics, params):
        yield f"- {action.title}: {action.because} {action.effect}"
        yield from (f"    {line}" for line in action.command.splitlines())


def _missing(metrics: dict[str, Any], verdict: verdicts.Verdict) -> str:
    """What an undecided level lacks."""
    if verdict.is_refused:
        return "The figures of this audit cannot be believed until what is said above is mended."
    if pool.has_gradients(metrics):
        return "Gradient canaries grade no risk of records."
    if verdict.state == "UNDECIDED" and pool.claim_alarm(metrics):
        return "A training that breaks its promise is not LOW, whatever these attacks achieve."
    more = "more members and non-members" if metrics["kind"] == "given" else "more models or records"
    return f"Their intervals reach across the limit of a level, or no threshold could be set; {more} decide it."
