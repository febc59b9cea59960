"""The budget as plain text: one table, then one paragraph an audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memleak.report.pool import level, records_for, share

MOST_NAMED = 3  # recipes of which the same is said; of more the number is told
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def text(budget: dict[str, Any]) -> str:
    """What `memleak budget` prints."""
    alike: dict[tuple[str, str], list[str]] = {}  # audits that say the same are said once
    for name, audit in budget["audits"].items():
        alike.setdefault(_resolution(audit), []).append(name)
    said = [f"{_named(names, budget['sweeps'])}{head}\n  {body}" for (head, body), names in alike.items()]
    return "\n\n".join([_costs(budget), *_notes(budget), *said])


def _named(names: Sequence[str], sweeps: dict[str, Any]) -> str:
    """Audits by name, and those of a whole sweep by the sweep's."""
    found = list(names)
    for sweep_id, sweep in sweeps.items():
        if len(sweep["audits"]) > 1 and set(sweep["audits"]) <= set(found):
            found[found.index(sweep["audits"][0])] = f"{sweep_id} (all {len(sweep['audits'])} audits)"
            found = [name for name in found if name not in sweep["audits"]]
    return ", ".join(found)


def _costs(budget: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("audit", "models", "there", "to train", "s a model", "training", "weights", "signals, scores")]
    for name, audit in budget["audits"].items():
        written = [audit["signal_bytes"], audit["score_bytes"]]
        other = None if None in written else sum(written)
        rows.append((name, _models(audit), _about(audit["there"]), _to_train(audit), _seconds(audit["seconds_a_model"]), *_paid(audit), size(other)))
    if len(rows) > 2:
        rows.append(("together*", *(find(budget["together"]) for find in (_models, lambda x: _about(x["there"]), _to_train)), "", *_paid(budget["together"]), ""))  # fmt: skip
    lines = ["* shards that audits share are counted once"] if len(rows) > 2 else []
    return "\n".join([table(rows), *lines, *(_sweep(name, sweep) for name, sweep in budget["sweeps"].items())])


def _sweep(name: str, sweep: dict[str, Any]) -> str:
    """A sweep's models, and which of them are trained once for several audits."""
    n_audits, n_recipes = len(sweep["audits"]), sweep["n_recipes"]
    line = f"Sweep {name}: {n_audits} {_plural('audit', n_audits)}, {n_recipes} {_plural('recipe', n_recipes)}; {_models(sweep)} models together, {_to_train(sweep)} to train"
    if sweep["n_shared"]:
        every = sweep["n_shared"] == sweep["models"] and n_recipes == 1
        line += ", the same for all its audits" if every else f"; {_about(sweep['n_shared'])} serve several of its audits"
    return line + (f"; {_about(sweep['n_elsewhere'])} serve other audits too." if sweep["n_elsewhere"] else ".")


def _paid(cost: dict[str, Any]) -> tuple[str, str]:
    return _range(cost["training_seconds"]) if cost["to_train"] else "none", size(cost["model_bytes"])


def _notes(budget: dict[str, Any]) -> list[str]:
    """On what the figures rest, and what is wrong."""
    where = "a CPU" if budget["device"] == "cpu" else "a GPU" if budget["device"] == "gpu" else budget["device"]
    n = budget["jobs_at_once"]
    lines = [f"Training on {where}, {n} {_plural('job', n)} at once; starting jobs, asking the models and measuring come on top."]
    if any(audit["is_about"] for audit in budget["audits"].values()):
        lines.append("About: a record has OUT arms of its own in the rounds whose subset holds it, which only the data can tell.")
    measured = {audit["recipe"]: audit["seconds_a_model"] for audit in budget["audits"].values() if audit["recipe"]}
    own = {audit["recipe"] for audit in budget["audits"].values() if audit["has_own_trainer"]}
    alike: dict[str, list[str]] = {}
    for recipe, found in measured.items():
        alike.setdefault(_timed(found, where, is_own=recipe in own), []).append(recipe)
    lines += [f"{', '.join(recipes) if len(recipes) <= MOST_NAMED else f'{len(recipes)} recipes'}: {said}" for said, recipes in alike.items()]
    for place in budget["disk"]:
        needs = ", how much is needed is not known" if place["needs"] is None else f", about {size(place['needs'])} needed"
        lines.append(
            f"Disk of {place['folder']}: {size(place['free'])} free{needs}.{'' if place['fits'] else ' IT DOES NOT FIT: free some space first.'}"
        )
    if budget["no_such_device"]:
        lines.append("device: cuda is asked for, and no GPU is here: on this machine training will stop.")
    if budget["not_prepared"]:
        lines.append(
            f"Not prepared yet: {', '.join(budget['not_prepared'])}. Models that are there are counted by their recipe, whatever data they were trained on."
        )
    if budget["of_other_data"]:
        lines.append(f"{budget['of_other_data']} models of other data have the same recipe; they do not count.")
    lines += [f"Not counted: {line}" for line in budget["broken"]]
    return ["\n".join(lines)]


def _timed(found: dict[str, Any] | None, where: str, *, is_own: bool) -> str:
    """On what the seconds of a recipe's models rest."""
    if found is None and is_own:
        return f"no model was trained on {where} here, and how long a trainer of your own takes nobody else can tell."
    if found is None:
        return f"no model was trained on {where} here, so the hours are not known. Run `snakemake data --cores 1` and `memleak budget --measure`, which times a few steps."
    engines = ", ".join(found["engines"])
    if found["n"]:
        return f"seconds of {found['n']} {_plural('model', found['n'])} trained here ({engines}): median, and the middle 80 %."
    most = " to the last epoch, which is the most that it takes: it may stop early" if found["is_most"] else ""
    return f"timed on {found['timed_records']} records ({engines}){most}; with other jobs beside it a model may take longer."


def _resolution(audit: dict[str, Any]) -> tuple[str, str]:
    """What an audit will be able to say at which rate, and the smallest plan for more: what follows its name, and the lines below."""
    found = audit["resolution"]
    if found is None:
        return f" ({audit['design']}), {audit['headline']} at FPR {level(audit['alpha'])}", (
            "The audited models are your own: how many records they tell "
            f"apart stands in your lists. To certify this rate takes {records_for(audit['alpha']):,} non-members."
        )
    kind = "canaries, gradients" if audit["space"] == "gradient" else audit["design"]
    head = f" ({kind}), {audit['headline']} at FPR {level(found['fpr'])}"
    lines = [_said(check) for check in found["checks"]] or ["How many records there are is not known before the data is prepared."]
    if found["fpr"] != audit["alpha"]:
        lines.append(
            f"The attack's own alpha is {level(audit['alpha'])}: set it to {level(found['fpr'])} too, or its decisions are about another rate."
        )
    return head, "\n  ".join([*lines, *_rates(audit, found), _wish(audit, found)])


def _said(check: dict[str, Any]) -> str:
    takes = "more than anybody pays for" if check["needs"] is None else f"{check['needs']:,}"
    return f"{'yes' if check['holds'] else 'NO ':3}  {check['what']}: {check['has']:,} {check['unit']}, takes {takes}"


def _rates(audit: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What can be told apart, and how well."""
    if found["certified_from"] is None:
        return []
    by = {"pairs": "fitting rounds", "halves": "records", "canaries": "canaries"}[audit["design"]]
    lines = [f"Lowest FPR that so many {by} certify: {share(found['certified_from'])}."]
    smallest, half, fpr = found["smallest_tpr"], found["half_width"], level(found["fpr"])
    if audit["design"] == "pairs":
        if smallest is None:
            lines.append(f"No leak can be shown: {found['n_judged']} hold-out rounds are too few for any interval above {fpr}.")
        else:
            lines.append(f"Smallest TPR on one record that four of five such audits show to be above {fpr}: {share(smallest)}.")
            lines.append(f"A rate will be known to +-{_points(half)} or better.")
    elif smallest is None and found["smallest_tpr_at_best"] is None:
        lines.append(f"No leak can be shown at FPR {fpr}: even the interval of a TPR of 100 % would reach down to it.")
    elif smallest is None:
        best = share(found["smallest_tpr_at_best"])
        lines.append(f"Smallest TPR that four of five such audits show to be above {fpr}: {best} if models answer independently about a record, none if alike.")  # fmt: skip
    else:
        lines.append(
            f"Smallest TPR that four of five such audits show to be above {fpr}: {_between(found['smallest_tpr_at_best'], smallest, share)}."
        )
        best = found["half_width_at_best"]
        lines.append(f"A TPR of {share(found['wish']['tpr'] or smallest)} will be known to about +-{_between(best, half, _points)}.")
        if best is not None and best < half:
            lines.append(
                "The first if models answer independently about a record, the second if alike; wider still between few models of unlike level."
            )
    return lines + (_bound(found["epsilon"]) if "epsilon" in found else [])


def _bound(held: dict[str, Any]) -> list[str]:
    """How large a lower bound of epsilon can be, and whether it could tell a promise that is not kept."""
    lines = [f"Largest lower bound of epsilon, were every guess right: {held['attainable']:.2f} (delta {held['delta']:g}, {100 * held['confidence']:g} % confidence)."]  # fmt: skip
    if held["claimed"] is not None and held["can_exceed"]:
        lines.append(f"yes  a training that breaks its promise of epsilon {held['claimed']:.3g} can be told: a bound above that takes {held['canaries_for_claim']:,} canaries.")  # fmt: skip
    elif held["claimed"] is not None:
        n = held["canaries_for_claim"]
        takes = f"a bound above that takes {n or 0:,} canaries"
        if n is None:
            takes = "no number of canaries has a bound above that; lower delta, or the promise"
        elif n <= held["n_canaries"]:
            takes += f", and of {held['n_canaries']:,} the bound is lower again, since delta weighs more; use fewer, or lower delta"
        lines.append(f"NO   a training that breaks its promise of epsilon {held['claimed']:.3g} can be told: {takes}.")
    elif held["claim_note"]:
        lines.append(f"Nothing to hold it against: {held['claim_note']}.")
    return lines


def _wish(audit: dict[str, Any], found: dict[str, Any]) -> str:
    """The smallest plan for what is wished for."""
    wish, fpr = found["wish"], level(found["fpr"])
    lowest = " and a verdict that can be LOW" if wish.get("has_verdict", True) else ""
    goal = lowest if wish["tpr"] is None else f" and showing a TPR of {share(wish['tpr'])}"
    head = f"Smallest plan for certifying FPR {fpr}{goal}: "
    if audit["design"] == "pairs":
        if wish["holdout_rounds"] is None:
            return head + "no affordable number of rounds."
        models = "" if wish["models"] is None else f" (about {round(wish['models']):,} models)"
        return head + f"rounds: {wish['rounds']}, holdout_rounds: {wish['holdout_rounds']}{models}."
    unit, key = ("canaries", "canaries") if audit["design"] == "canaries" else ("records", "pool")
    if wish[unit] is None:
        return head + f"no affordable number of {unit}."
    return (
        head
        + f"{key}: {wish[unit]}, models: {wish['models']} ({wish['least_models']} or more).{' The data set has fewer records.' if wish['exceeds_data'] else ''}"
    )


def _between(low: float | None, high: float | None, show: Callable[[float | None], str]) -> str:
    return show(high) if low is None or show(low) == show(high) else f"{show(low)} to {show(high)}"


def _points(half: float | None) -> str:
    return "?" if half is None else f"{100 * half:.2g} points"


def _about(count: float) -> str:
    return f"{round(count):,}"


def _models(cost: dict[str, Any]) -> str:
    return _counted(cost, cost["models"])


def _to_train(cost: dict[str, Any]) -> str:
    return _counted(cost, cost["to_train"])


def _counted(cost: dict[str, Any], n: float) -> str:
    if cost["n_unknown_arms"]:
        return f"{_about(n)} to {_about(n + cost['n_unknown_arms'])}"
    return f"about {_about(n)}" if cost["is_about"] else _about(n)


def _seconds(found: dict[str, Any] | None) -> str:
    if found is None:
        return "?"
    return f"{found['median']:.3g}" + (f" ({found['low']:.3g} to {found['high']:.3g})" if found["high"] > found["low"] else "")


def _range(found: dict[str, float] | None) -> str:
    if found is None:
        return "?"
    low, high = duration(found["low"]), duration(found["high"])
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def size(n_bytes: float | None) -> str:
    """`3.4 MB`."""
    if n_bytes is None:
        return "?"
    unit, of = next(((unit, of) for unit, of in UNITS if n_bytes >= of), ("B", 1.0))
    return f"{n_bytes / of:.3g} {unit}"


def _plural(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each, the first and last to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
