"""The pages: one HTML file an audit, one a sweep, one over all audits, one for anybody's scores. Everything from data is escaped by the template."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd
import yaml

from memleak import __version__, provenance
from memleak.params import n_views
from memleak.report import citations, downloads, front, frontier, inline, pool, published, recommendations, results, variants, words
from memleak.report import verdict as verdicts

_MEASURED = {"seconds": "sum", "cpu_seconds": "sum", "max_memory_mib": "max"}  # columns of timings.csv
_ORDER = {"HIGH": 0, "MEDIUM": 1, "UNDECIDED": 2, "LOW": 3}  # of the audits in the index
_H2 = re.compile(r"<h2(?P<attributes>[^>]*)>(?P<words>.*?)</h2>", re.DOTALL)
_ID = re.compile(r'\bid="([^"]*)"')
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("memleak.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


_ENVIRONMENT.filters |= {
    "figures": pool.figures, "percent": words.percent, "rate": words.rate, "p": words.p, "number": words.number, "rounds": words.rounds, "score": words.score,
    "estimate": words.estimate, "interval": words.unbroken(pool.interval), "share": words.unbroken(pool.share), "level": words.unbroken(pool.level),
    "typeset": words.typeset, "duration": words.duration, "auc": variants.auc, "points": variants.points, "change": variants.change, "p_words": variants.p_value,
    "figures3": lambda number: f"{number:.3g}",
}  # fmt: skip
_ENVIRONMENT.globals |= {"region": words.region, "version": __version__}


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
    begins = front.of(metrics, params, timings)
    verdict = begins.verdict
    html = rendered(
        template,
        figures,
        metrics["audit"],
        front=begins,
        front_figure=_first_panel(figures, "overview" if metrics["kind"] == "pairs" else "headline"),
        actions=recommendations.of(metrics, params),
        metrics=metrics,
        verdict=verdict,
        limits=verdicts.limits_of(metrics),
        epsilon=pool.epsilon_found(metrics),
        alarm=pool.claim_alarm(metrics),
        privacy=pool.privacy_sentences(metrics["models"]),
        stages=_stages(timings),
        params=yaml.safe_dump(_entries(params), sort_keys=False),
        versions=provenance.versions(),
        sweep=params.get("sweep"),
        sources=citations.of(metrics),
        **shown,
    )
    risk = "" if verdict.risk is None else f", risk {words.risk(verdict.risk, verdict.low or 0.0, verdict.high or 100.0)}"
    return html, f"{metrics['audit']}: {verdict.state}{risk}. {verdict.sentence}"


def _first_panel(figures: Mapping[str, str], name: str) -> str | None:
    """The one figure that matters; one of several panels is shown whole further below."""
    return inline.figure(figures[name], "the figure that matters most", only=1) if name in figures else None


def _stages(timings: pd.DataFrame) -> list[dict[str, Any]]:
    """Jobs, seconds, CPU seconds and largest memory of each stage, the longest first; None where nobody measured."""
    found = []
    for name, jobs in timings.groupby("stage", sort=False):
        measured = {key: getattr(jobs[key], how)() if key in jobs else None for key, how in _MEASURED.items()}
        found.append({"name": name, "n_jobs": len(jobs), **measured})
    return sorted(found, key=lambda stage: -stage["seconds"])


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
    html = rendered(
        "frontier.html",
        figures,
        sweep["sweep"],
        front=front.of_sweep(sweep),
        actions=recommendations.of_sweep(sweep),
        sources=citations.of_sweep(sweep),
        sweep=sweep,
        finding=found,
        rows=rows,
        significance=variants.significance(sweep),
        tested=sum(row["against"] is not None for row in rows),
        checked=any(row["epsilon"] and row["epsilon"]["claimed"] is not None for row in rows),
        private=any(row["dp"] or row["epsilon"] for row in rows),
        efficient=frontier.efficient(sweep),
        kinds={row["kind"] for row in rows},
        correlation=words.typeset(frontier.correlation(sweep)),
        other_attacks=frontier.attacks(sweep),
        undrawn=frontier.undrawn(sweep),
        uncertified=any(not one["certified"] for row in rows for one in (row["tpr_1"], row["tpr_01"]) if one),
    )
    return html, f"{sweep['sweep']}: {found.state}. {' '.join([*found.alarms, found.sentence])}"


def rendered(template: str, figures: Mapping[str, str], stem: str = "memleak", **shown: Any) -> str:
    """A page from a template of this room. Figures (SVG by name) become parts of it, every h2 an entry of its contents, every table a download.

    `stem`: what the names of these downloads begin with.
    """
    drawn = {name: inline.figure(svg, f"figure {name}") for name, svg in figures.items()}
    return downloads.linked(_with_contents(_ENVIRONMENT.get_template(template).render(figures=drawn, **shown)), stem)


def _with_contents(html: str) -> str:
    """The page with a list of its sections in place of the remark that asks for one; every h2 has an id to lead to."""
    taken = set(_ID.findall(html))
    entries: list[tuple[str, str]] = []

    def named(heading: re.Match[str]) -> str:
        plain = re.sub(r"<[^>]+>", "", heading["words"])
        own = _ID.search(heading["attributes"])
        name = own[1] if own else _free(downloads.slug(entities.unescape(plain)), taken)
        entries.append((name, " ".join(plain.split())))
        return heading[0] if own else heading[0].replace("<h2", f'<h2 id="{name}"', 1)

    html = _H2.sub(named, html)
    listed = "".join(f'<li><a href="#{name}">{words}</a></li>' for name, words in entries)
    return html.replace("<!-- contents -->", f'<nav class="contents" aria-label="Contents"><ol>{listed}</ol></nav>', 1)


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first with a number that nobody has."""
    free = next(one for number in range(len(taken) + 1) if (one := f"{name}-{number}" if number else name) not in taken)
    taken.add(free)
    return free


def index_page(metrics: Sequence[dict[str, Any]], sweeps: Sequence[dict[str, Any]] = (), unfinished: Sequence[results.Found] = ()) -> str:
    """The page over all audits, those that leak most first, with all sweeps, and what is not finished and why."""
    rows = sorted(
        ((found, front.of(found)) for found in metrics), key=lambda row: (_ORDER[row[1].grade], -(row[1].verdict.risk or 0), row[0]["audit"])
    )
    variants_of = {variant["audit"]: sweep["sweep"] for sweep in sweeps for variant in sweep["variants"]}
    begun = [(sweep, front.of_sweep(sweep)) for sweep in sweeps]
    return rendered("index.html", {}, "audits", rows=rows, sweeps=begun, variants=variants_of, unfinished=unfinished)


def stats_page(name: str, metrics: dict[str, Any], roc: str) -> str:
    """The page of anybody's scores."""
    return rendered("stats.html", {"roc": roc}, downloads.slug(name), name=name, metrics=metrics, table=stats_table(metrics))


def stats_table(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured, its value with interval, and what it rests on."""
    rows = [("AUC", words.estimate(metrics["auc"]), f"{metrics['n_members']:,} scores of members, {metrics['n_non_members']:,} of others")]
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
