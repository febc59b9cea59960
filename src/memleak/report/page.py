"""The pages: one HTML file an audit, one a sweep, one over all audits, one for anybody's scores. Everything from data is escaped by the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd
import yaml

from memleak import __version__, provenance
from memleak.params import n_views
from memleak.report import frontier, pool, published, variants
from memleak.report import verdict as verdicts

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("memleak.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def _rate(found: dict[str, Any] | None) -> str:
    """`88 % [62, 98], 14 of 16`."""
    if not found:
        return "no hold-out rounds"
    counted = f", {found['k']} of {found['n']}" if isinstance(found["k"], int) else f", n = {found['n']} rounds"
    return f"{_percent(found['value'])} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]{counted}"


def _p(value: float) -> str:
    return "<\N{NO-BREAK SPACE}0.0001" if value < 0.0001 else f"{value:.4f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _estimate(found: dict[str, Any] | None, digits: int = 3) -> str:
    """`0.640 [0.631, 0.649]`; a value alone where there is no interval."""
    if not found or found["value"] is None:
        return "n/a"
    value = _number(found["value"], digits)
    return value if found["low"] is None else f"{value} [{_number(found['low'], digits)}, {_number(found['high'], digits)}]"


def _rounds(value: int | None) -> str:
    return "more than 100,000" if value is None else f"{value:,}"


def _region(intervals: list[list[float | None]], signal: str) -> str:
    """The rule in words, in the units of the signal itself."""
    if not intervals:
        return "never: too few rounds for this alpha"
    parts = []
    for low, high in intervals:
        if signal == "loss":
            low, high = (None if high is None else -high), (None if low is None else -low)
        if low is None:
            parts.append("always" if high is None else f"{signal} < {high:.3g}")
        else:
            parts.append(f"{signal} > {low:.3g}" if high is None else f"{low:.3g} < {signal} < {high:.3g}")
    return " or ".join(parts)


def _unbroken(words: Callable[..., str]) -> Callable[..., str]:
    """The same words, but no line ends between a number and its percent sign."""
    return lambda *given: words(*given).replace(" %", "\N{NO-BREAK SPACE}%")


def _typeset(words: str) -> str:
    """Words with minus signs before numbers, and no line that ends before a percent sign."""
    return re.sub(r"(?<![\w.\]-])-(?=\d)", "\N{MINUS SIGN}", words).replace(" %", "\N{NO-BREAK SPACE}%")


_ENVIRONMENT.filters |= {
    "figures": pool.figures, "percent": _percent, "rate": _rate, "p": _p, "number": _number, "rounds": _rounds,
    "estimate": _estimate, "interval": _unbroken(pool.interval), "share": _unbroken(pool.share), "level": _unbroken(pool.level),
    "typeset": _typeset, "auc": variants.auc, "points": variants.points, "change": variants.change, "p_words": variants.p_value,
    "figures3": lambda number: f"{number:.3g}",
}  # fmt: skip
_ENVIRONMENT.globals |= {"region": _region, "version": __version__}


def _inline(svg: str, label: str) -> str:
    """An SVG file as part of a page: without its head, scalable, and named for those who cannot see it."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", body, count=1)
    body = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", body, count=1)
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def audit_page(
    metrics: dict[str, Any], plan: dict[str, Any], decisions: pd.DataFrame, timings: pd.DataFrame, figures: dict[str, str], params: dict[str, Any]
) -> tuple[str, str]:
    """The page of a `pairs` audit, and its verdict in one line."""
    shown = {
        "plan": plan,
        "decisions": {
            target: rows.sort_values(["attack", "round"]).to_dict("records")
            for target, rows in decisions[decisions["attack"] == metrics["headline"]].groupby("target")
        },
    }
    return _page("audit.html", metrics, timings, figures, params, shown)


def pool_page(metrics: dict[str, Any], timings: pd.DataFrame, figures: dict[str, str], params: dict[str, Any]) -> tuple[str, str]:
    """The page of an audit in which every model is the target in turn, and its verdict in one line."""
    beside, rows = published.beside(metrics), pool.attack_rows(metrics)
    comparable = [row["id"] for row in rows if row["kind"] in ("lira", "rmia") or row["is_headline"]]
    shown = {
        "rows": rows,
        "headline_at_alpha": pool.calibrated(metrics, metrics["headline"]),
        "levels": pool.levels(metrics),
        "names_of_records": pool.records(metrics),
        "has_gradients": pool.has_gradients(metrics),
        "baseline": pool.baseline(metrics),
        "classes": pool.class_rows(metrics),
        "exposed": pool.most_exposed(metrics),
        "shows_records": params["entry"]["include_records"] and len(metrics["data"]["shape"]) == 3,
        "n_queries": n_views(params["entry"]["views"]),
        "published": beside,
        "published_levels": published.LEVELS,
        "comparable": {name: [pool.rate(metrics["attacks"][name], fpr) for fpr in published.LEVELS] for name in comparable},
        "own": published.own_setup(metrics, params) if beside is not None else {},
        "differences": published.differences(metrics, params) if beside else [],
        "n_distinct": pool.n_distinct(metrics),
    }
    template = {"given": "given.html", "imported": "imported.html"}.get(metrics["kind"], "pool.html")
    return _page(template, metrics, timings, figures, params, shown)


def _page(
    template: str, metrics: dict[str, Any], timings: pd.DataFrame, figures: dict[str, str], params: dict[str, Any], shown: dict[str, Any]
) -> tuple[str, str]:
    verdict = verdicts.verdict(metrics)
    stages = timings.groupby("stage", sort=False)["seconds"].agg(["count", "sum"]).sort_values("sum", ascending=False)
    html = _ENVIRONMENT.get_template(template).render(
        metrics=metrics,
        verdict=verdict,
        limits=verdicts.limits_of(metrics),
        epsilon=pool.epsilon_found(metrics),
        alarm=pool.claim_alarm(metrics),
        privacy=pool.privacy_sentences(metrics["models"]),
        stages=[(name, int(row["count"]), row["sum"]) for name, row in stages.iterrows()],
        figures={name: _inline(svg, f"figure {name}") for name, svg in figures.items()},
        params=yaml.safe_dump(_entries(params), sort_keys=False),
        versions=provenance.versions(),
        **shown,
    )
    risk = "" if verdict.risk is None else f", risk {verdict.risk:.0f} [{verdict.low:.0f}, {verdict.high:.0f}]"
    return html, f"{metrics['audit']}: {verdict.state}{risk}. {verdict.sentence}"


def _entries(params: dict[str, Any]) -> dict[str, Any]:
    """The parts of params.yaml that an audit was made from."""
    entry = params["entry"]
    found = {"audits": {params["audit"]: {key: value for key, value in entry.items() if value is not None}}}
    for key, room in (("recipe", "recipes"), ("dataset", "datasets")):
        if params[key] is not None and (room == "recipes" or entry["design"]["kind"] == "given"):
            found[room] = {entry[key]: params[key]}
    return found


def frontier_page(sweep: dict[str, Any], figures: dict[str, str]) -> tuple[str, str]:
    """The page of a sweep, and its finding in one line."""
    found, rows = frontier.finding(sweep), frontier.rows(sweep)
    html = _ENVIRONMENT.get_template("frontier.html").render(
        sweep=sweep,
        finding=found,
        rows=rows,
        significance=variants.significance(sweep),
        tested=sum(row["against"] is not None for row in rows),
        checked=any(row["epsilon"] and row["epsilon"]["claimed"] is not None for row in rows),
        private=any(row["dp"] or row["epsilon"] for row in rows),
        efficient=frontier.efficient(sweep),
        kinds={row["kind"] for row in rows},
        correlation=_typeset(frontier.correlation(sweep)),
        other_attacks=frontier.attacks(sweep),
        undrawn=frontier.undrawn(sweep),
        uncertified=any(not one["certified"] for row in rows for one in (row["tpr_1"], row["tpr_01"]) if one),
        figures={name: _inline(svg, f"figure {name}") for name, svg in figures.items()},
    )
    return html, f"{sweep['sweep']}: {found.state}. {' '.join([*found.alarms, found.sentence])}"


def rendered(template: str, figures: Mapping[str, str], **shown: Any) -> str:
    """A page from a template of this room; figures (SVG by name) become parts of it."""
    return _ENVIRONMENT.get_template(template).render(figures={name: _inline(svg, f"figure {name}") for name, svg in figures.items()}, **shown)


def index_page(metrics: list[dict[str, Any]], sweeps: Sequence[dict[str, Any]] = ()) -> str:
    """The page over all audits, and above them all sweeps."""
    rows = [(found, verdicts.verdict(found)) for found in metrics]
    return _ENVIRONMENT.get_template("index.html").render(rows=rows, sweeps=[(sweep, frontier.finding(sweep)) for sweep in sweeps])


def stats_page(name: str, metrics: dict[str, Any], roc: str) -> str:
    """The page of anybody's scores."""
    return _ENVIRONMENT.get_template("stats.html").render(name=name, metrics=metrics, roc=_inline(roc, "figure roc"), table=stats_table(metrics))


def stats_table(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured, its value with interval, and what it rests on."""
    rows = [("AUC", _estimate(metrics["auc"]), f"{metrics['n_members']:,} scores of members, {metrics['n_non_members']:,} of others")]
    for found in metrics["rates"]:
        counts = f"{found['n_false_positives']:,} false positives of {found['n_scores']:,}"
        rows.append((f"TPR at FPR {pool.level(found['at_fpr'])}", pool.interval(found), counts + ("" if found["certified"] else "; cannot certify")))
    for key, label in (("balanced_accuracy", "balanced accuracy"), ("advantage", "advantage, TPR - FPR")):
        rows.append((label, pool.interval(metrics[key]), "optimistic: threshold chosen on these scores"))
    return rows


def stats_text(name: str, metrics: dict[str, Any]) -> str:
    """The same as a table of text."""
    rows = stats_table(metrics)
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"  {label:<{widths[0]}}  {value:<{widths[1]}}  {rests}".rstrip() for label, value, rests in rows]
    return "\n".join([f"{name}: {metrics['dependence']}", *lines, *(f"WARNING: {text}" for text in metrics["warnings"])])
