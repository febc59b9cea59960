"""The pages: one HTML file an audit, and one over all audits. Everything from data is escaped by the template."""

from __future__ import annotations

import re
from typing import Any

import jinja2
import pandas as pd
import yaml

from memleak import __version__, provenance
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
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


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


_ENVIRONMENT.filters |= {"percent": _percent, "rate": _rate, "p": _p, "number": _number, "rounds": _rounds}
_ENVIRONMENT.globals |= {"region": _region}


def _inline(svg: str, label: str) -> str:
    """An SVG file as part of a page: without its head, scalable, and named for those who cannot see it."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", body, count=1)
    body = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", body, count=1)
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def audit_page(
    metrics: dict[str, Any], plan: dict[str, Any], decisions: pd.DataFrame, timings: pd.DataFrame, figures: dict[str, str], params: dict[str, Any]
) -> tuple[str, str]:
    """The page of an audit, and its verdict in one line."""
    verdict = verdicts.verdict(metrics)
    stages = timings.groupby("stage", sort=False)["seconds"].agg(["count", "sum"]).sort_values("sum", ascending=False)
    html = _ENVIRONMENT.get_template("audit.html").render(
        metrics=metrics,
        verdict=verdict,
        limits={"high": verdicts.HIGH, "low": verdicts.LOW},
        plan=plan,
        decisions={
            target: rows.sort_values(["attack", "round"]).to_dict("records")
            for target, rows in decisions[decisions["attack"] == metrics["headline"]].groupby("target")
        },
        stages=[(name, int(row["count"]), row["sum"]) for name, row in stages.iterrows()],
        figures={name: _inline(svg, f"figure {name}") for name, svg in figures.items()},
        params=yaml.safe_dump(
            {"audits": {params["audit"]: params["entry"]}, "recipes": {params["entry"]["recipe"]: params["recipe"]}}, sort_keys=False
        ),
        versions=provenance.versions(),
        version=__version__,
    )
    risk = "" if verdict.risk is None else f", risk {verdict.risk:.0f} [{verdict.low:.0f}, {verdict.high:.0f}]"
    return html, f"{metrics['audit']}: {verdict.state}{risk}. {verdict.sentence}"


def index_page(metrics: list[dict[str, Any]]) -> str:
    """The page over all audits."""
    rows = [(found, verdicts.verdict(found)) for found in metrics]
    return _ENVIRONMENT.get_template("index.html").render(rows=rows, version=__version__)
