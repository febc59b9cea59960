"""Figures to hover over: the same numbers and colours as those of the pages. Pure functions; all text from data is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from memleak.report import frontier as sweeps
from memleak.report import pool, variants, words
from memleak.report.limits import AVERAGE, Limits

IN, OUT, GREY = "#d1622b", "#4c6a92", "#8a929c"  # grey is read on light and dark paper
OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f", "#777777")  # told apart by the colour-blind (after Okabe and Ito)
LINES = ("solid", "dash", "dot", "dashdot")
BANDS = {"LOW": "#7bb894", "MEDIUM": "#e8c078", "HIGH": "#e3a19b"}
NEEDLE = "#6b7480"  # seen on light and on dark paper
SHADES = ("#eef0f2", "#f0b795", "#d1622b", "#7a2c0a")  # from nothing to much
KINDS = {  # of a sweep's variants: marker, colour, words
    "baseline": ("star", GREY, "baseline"), "training": ("circle", OUT, "trained otherwise"),
    "release": ("square", "#009e73", "released otherwise, the same models"), "both": ("triangle-up", "#b8578f", "trained and released otherwise"),
}  # fmt: skip
MOST_POINTS = 5000  # records that are drawn; flagged ones always are


def roc(curves: pd.DataFrame, aucs: Mapping[str, Any], headline: str, log: bool = False) -> go.Figure:
    """The ROC of every attack, the headline's in front with its 95 % band; the legend, by AUC, shows and hides them.

    `curves`: subject, fpr, tpr, low, high, certified, a row a point. `aucs`: value, low and high by subject.
    """
    seen = curves[(curves["tpr"] > 0) & ((curves["fpr"] > 0) | (not log))]  # where nobody is caught there is no point: a line from there would lie
    floor = 0.7 * float(curves.loc[curves["fpr"] > 0, "fpr"].min()) if (curves["fpr"] > 0).any() else 1e-4
    by_auc = sorted(aucs, key=lambda name: -_value(aucs[name]))
    styles = {name: (OTHERS[i % len(OTHERS)], LINES[i // len(OTHERS) % len(LINES)]) for i, name in enumerate(n for n in by_auc if n != headline)}
    figure = go.Figure()
    _uncertified(figure, curves, floor, log)
    _band(figure, curves[curves["subject"] == headline].sort_values("fpr"), floor, log)
    for rank, name in enumerate(by_auc):
        own = seen[seen["subject"] == name].sort_values("fpr")
        colour, dash = styles.get(name, (IN, "solid"))
        figure.add_scatter(
            x=own["fpr"], y=own["tpr"], mode="lines", name=f"{_safe(name)}: AUC {_interval(aucs[name])}", legendrank=rank,
            line={"color": colour, "dash": dash, "width": 3 if name == headline else 1.4, "shape": "hv" if log else "linear"},
            hoverinfo="text", hovertext=[_rates(name, row) for row in own.to_dict("records")], zorder=3 if name == headline else 2,
        )  # fmt: skip
    ends = [floor if log else 0.0, 1.0]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="guessing", line={"color": GREY, "dash": "dot", "width": 1.2}, hoverinfo="skip")
    for update, title in ((figure.update_xaxes, "false-positive rate"), (figure.update_yaxes, "true-positive rate")):
        update(**_percent_axis(title, floor if log else None))
    return _finished(figure, "ROC, logarithmic" if log else "ROC", height=420 + 25 * (len(by_auc) + 3), legend_below=True)


def _uncertified(figure: go.Figure, curves: pd.DataFrame, floor: float, log: bool) -> None:
    """Shade the false-positive rates that so few distinct records cannot certify."""
    edge = min(float(curves.loc[curves["certified"], "fpr"].min()), 1.0) if curves["certified"].any() else 1.0
    first = floor if log else 0.0
    if edge > first:
        figure.add_scatter(
            x=[first, edge, edge, first], y=[first, first, 1, 1], mode="none", fill="toself", fillcolor="rgba(138,146,156,.22)",
            name=f"too few records to certify (FPR below {100 * edge:.2g} %)", hoverinfo="skip", zorder=0, legendrank=2000,
        )  # fmt: skip


def _band(figure: go.Figure, own: pd.DataFrame, floor: float, log: bool) -> None:
    """The headline's 95 % interval at every false-positive rate."""
    own = own[own["low"].notna() & ((own["fpr"] > 0) | (not log))]
    if own.empty:
        return
    lowest, shape = (floor, "hv") if log else (0.0, "linear")
    edges: dict[str, Any] = {"x": own["fpr"], "mode": "lines", "line": {"width": 0, "shape": shape}, "hoverinfo": "skip", "legendgroup": "band"}
    figure.add_scatter(y=own["low"].clip(lower=lowest), showlegend=False, zorder=1, **edges)
    figure.add_scatter(
        y=own["high"].clip(lower=lowest),
        fill="tonexty",
        fillcolor="rgba(209,98,43,.25)",
        name="95 % interval of the headline",
        legendrank=1001,
        zorder=1,
        **edges,
    )


def _rates(name: str, row: Mapping[str, Any]) -> str:
    """What a point of a ROC says."""
    known = row.get("low") is not None and row["low"] == row["low"]
    tpr = pool.interval({"value": row["tpr"], "low": row["low"], "high": row["high"]}) if known else pool.share(row["tpr"])
    said = f"<b>{_safe(name)}</b><br>finds {tpr} of the members<br>while wrong about {pool.level(row['fpr'])} of the others"
    return said if row.get("certified", True) else f"{said}<br>(too few records to certify)"


def gauge(
    value: float | None, low: float | None, high: float | None, title: str, bands: Sequence[tuple[float, str]] | None = None
) -> go.Figure:  # fmt: skip
    """The risk score on its scale of 0 to 100: a needle, and its interval as a dark arc. `bands`: upper end and name of each grade, ascending (default: those of an average record)."""
    bands = bands_of(AVERAGE) if bands is None else bands
    ends = [0.0, *(end for end, _ in bands)]
    colours = _colours([name for _, name in bands])
    steps: list[dict[str, Any]] = [{"range": [ends[i], ends[i + 1]], "color": colours[i]} for i in range(len(bands))]
    if low is not None and high is not None:
        steps.append({"range": [low, max(high, low + 0.5)], "color": "rgba(45,52,61,.72)", "thickness": 0.4})
    known = value is not None
    figure = go.Figure(
        go.Indicator(
            mode="gauge+number" if known else "gauge", value=value if known else 0,
            number={"font": {"size": 44}, "valueformat": ".1f" if high is not None and high < 20 else ".0f"}, domain={"x": [0, 1], "y": [0.04, 0.98]},
            gauge={
                "axis": {"range": [0, 100], "tickvals": ends, "ticks": "outside"}, "bar": {"thickness": 0}, "steps": steps, "borderwidth": 0,
                **({"threshold": {"line": {"color": NEEDLE, "width": 5}, "thickness": 1.0, "value": value}} if known else {}),
            },
        )
    )  # fmt: skip
    interval = (
        f"95 % interval {words.score(low, high)} to {words.score(high, high)}"
        if low is not None and high is not None
        else "no number: nothing was measured that carries one"
    )
    figure.add_annotation(text=interval, x=0.5, y=0.0, xref="paper", yref="paper", yanchor="top", showarrow=False, font={"size": 13})
    graded = " · ".join(f"<span style='color:{colour}'>&#9632;</span> {_safe(name)}" for (_, name), colour in zip(bands, colours, strict=True))
    figure.add_annotation(text=graded, x=0.5, y=-0.13, xref="paper", yref="paper", yanchor="top", showarrow=False, font={"size": 12})
    return _finished(figure, title, height=290, margin={"l": 34, "r": 34, "t": 76, "b": 52})


def bands_of(limits: Limits) -> tuple[tuple[float, str], ...]:
    """The grades of a verdict as bands of the gauge."""
    return (100 * limits.low, "LOW"), (100 * limits.high, "MEDIUM"), (100.0, "HIGH")


def _colours(names: Sequence[str]) -> list[str]:
    """Green, amber and red for the three grades; of other scales shades of one colour."""
    shades = ("#f3d3c0", "#eaa983", "#d9733f", "#a3400f")
    return [BANDS.get(name, shades[i % len(shades)]) for i, name in enumerate(names)]


def scatter(
    table: pd.DataFrame, x: str = "", y: str = "P(member)", guess: float | None = 0.5, title: str = "Leak probability of each record"
) -> go.Figure:
    """A point a record; flagged ones are ringed. `table`: id, x, y, low, high, group (its colour and legend), flag; `x` and `y` name the axes."""
    drawn, colours = thinned(table), (IN, OUT, *OTHERS)
    figure = go.Figure()
    for i, group in enumerate(pd.unique(drawn["group"])):
        own, flagged = drawn[drawn["group"] == group], drawn.loc[drawn["group"] == group, "flag"].to_numpy(dtype=bool)
        marker = {
            "color": colours[i % len(colours)], "opacity": 0.65, "symbol": "circle" if i % 2 == 0 else "diamond",
            "size": np.where(flagged, 10, 6), "line": {"width": np.where(flagged, 2, 0), "color": GREY},
        }  # fmt: skip
        said = [_record(row, y) for row in own.to_dict("records")]
        figure.add_scatter(
            x=own["x"], y=own["y"], mode="markers", name=f"{_safe(group)} ({len(own):,})", marker=marker, hoverinfo="text", hovertext=said
        )
    if guess is not None:
        figure.add_hline(y=guess, line={"color": GREY, "dash": "dot", "width": 1.2})
    figure.update_xaxes(title=_safe(x))
    figure.update_yaxes(title=_safe(y), tickformat=".0%", range=[-0.03, 1.03])
    shown = "" if len(drawn) == len(table) else f" ({len(drawn):,} of {len(table):,} drawn)"
    return _finished(figure, title + shown, height=430, legend_below=True)


def thinned(table: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Every flagged record, and of the others as many, evenly by rank, as can be drawn."""
    if len(table) <= most:
        return table
    flagged, others = table[table["flag"].astype(bool)], table[~table["flag"].astype(bool)].sort_values("y", kind="stable")
    places: Any = np.unique(np.linspace(0, len(others) - 1, max(2, most - len(flagged))).astype(int)) if len(others) else []
    return pd.concat([flagged, others.iloc[places]])


def _record(row: Mapping[str, Any], y: str) -> str:
    value = {key: None if row.get(key) is None or row[key] != row[key] else row[key] for key in ("y", "low", "high")}
    said = pool.interval({"value": value["y"], "low": value["low"], "high": value["high"]}) if value["low"] is not None else pool.share(value["y"])
    return f"<b>{_safe(row['id'])}</b><br>{_safe(row['group'])}<br>{_safe(y)}: {said}" + ("<br>flagged" if row["flag"] else "")


def heatmap(
    values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str], texts: Sequence[Sequence[str]], title: str = "",
    limits: tuple[float, float] | None = None, scale: str = "",
) -> go.Figure:  # fmt: skip
    """A cell for each row and column, with its number and interval as text; darker is more."""
    shown = [[_safe(text).replace("\n", "<br>") for text in row] for row in texts]
    hover = [[f"<b>{_safe(row)}</b><br>{_safe(column)}<br>{text}" for column, text in zip(columns, line, strict=True)] for row, line in zip(rows, shown, strict=True)]  # fmt: skip
    figure = go.Figure(
        go.Heatmap(
            z=[[np.nan if value is None else value for value in row] for row in values], x=[_safe(name) for name in columns], y=[_safe(name) for name in rows],
            text=shown, texttemplate="%{text}", textfont={"size": 11}, hovertext=hover, hoverinfo="text", xgap=2, ygap=2,
            zmin=limits and limits[0], zmax=limits and limits[1], colorscale=[[i / (len(SHADES) - 1), shade] for i, shade in enumerate(SHADES)],
            colorbar={"title": {"text": _safe(scale)}, "thickness": 10, "tickformat": ".0%"}, showscale=bool(scale),
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    figure.update_xaxes(side="top", type="category", tickangle=0 if len(columns) < 6 else None)
    return _finished(figure, title, height=110 + 42 * max(len(rows), 1), margin={"l": 8, "r": 8, "t": 84, "b": 8})


def intervals(
    rows: Sequence[Mapping[str, Any]], title: str = "", axis: str = "AUC with its 95 % interval", guess: float | None = 0.5, is_share: bool = False
) -> go.Figure:
    """A dot with its interval for each of `rows`: name, value, low, high, and optionally is_headline and says (to hover over)."""
    known = [row for row in rows if row.get("value") is not None]
    figure = go.Figure()
    for is_headline, colour in ((True, IN), (False, OUT)):
        own = [row for row in known if bool(row.get("is_headline")) is is_headline]
        figure.add_scatter(
            x=[row["value"] for row in own], y=[_safe(row["name"]) for row in own], mode="markers", name="headline" if is_headline else "others",
            marker={"color": colour, "size": 11 if is_headline else 9, "symbol": "diamond" if is_headline else "circle"}, error_x=_bars(own, colour),
            hoverinfo="text", hovertext=[_safe(row.get("says") or f"{row['name']}: {_interval(row, is_share)}") for row in own], showlegend=False,
        )  # fmt: skip
    if guess is not None:
        figure.add_vline(x=guess, line={"color": GREY, "dash": "dash", "width": 1.2})
    names = [_safe(row["name"]) for row in known]
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1], automargin=True, range=[-0.6, len(names) - 0.4])
    figure.update_xaxes(title=_safe(axis), **({"tickformat": ".0%"} if is_share else {}))
    return _finished(figure, title, height=120 + 27 * max(len(names), 1))


def frontier(sweep: Mapping[str, Any], measure: str = "auc") -> go.Figure:
    """Accuracy of every variant of a sweep over what leaks, with both intervals: left is private, up is useful. `measure`: auc, tpr_1 or tpr_01."""
    axis, guess = {
        "auc": ("AUC of the headline attack", 0.5), "tpr_1": ("true-positive rate at FPR 1 %", 0.01), "tpr_01": ("true-positive rate at FPR .1 %", 0.001),
    }[measure]  # fmt: skip
    rows = [row for row in sweeps.rows(dict(sweep)) if None not in (variants.value(row["utility"]), variants.value(row[measure]))]
    figure = go.Figure()
    for row in rows:  # a trace each, so that the legend is the key to the numbers
        symbol, colour, kind = KINDS[row["kind"]]
        figure.add_scatter(
            x=[row[measure]["value"]], y=[row["utility"]["value"]], mode="markers+text", name=f"{row['number']} {_safe(row['label'])}: {kind}",
            text=[f"<b>{row['number']}</b>"], textposition="top right", error_x=_bars([row[measure]], colour), error_y=_bars([row["utility"]], colour),
            marker={"symbol": symbol, "color": colour, "size": 15 if row["is_baseline"] else 9}, hoverinfo="text", hovertext=[_variant(row, measure, axis)],
        )  # fmt: skip
    figure.add_vline(x=guess, line={"color": GREY, "dash": "dot", "width": 1.2})
    figure.update_xaxes(title=axis, **({} if measure == "auc" else {"tickformat": ".1%"}))
    figure.update_yaxes(title="accuracy on records never seen", tickformat=".0%")
    return _finished(figure, "Privacy and utility: up and left is better", height=440 + 24 * len(rows), legend_below=True)


def _variant(row: Mapping[str, Any], measure: str, axis: str) -> str:
    leak = _interval(row[measure]) if measure == "auc" else pool.interval(row[measure])
    return f"<b>{_safe(row['label'])}</b><br>{axis}: {leak}<br>accuracy: {pool.interval(row['utility'])}<br>{_safe('; '.join(row['found']))}"


def _bars(found: Sequence[Mapping[str, Any]], colour: str) -> dict[str, Any]:
    """Error bars from value to both ends; none where there is no interval."""
    ends = [(one["value"] if one.get("low") is None else one["low"], one["value"] if one.get("high") is None else one["high"]) for one in found]
    up, down = ([high - one["value"] for one, (_, high) in zip(found, ends, strict=True)], [one["value"] - low for one, (low, _) in zip(found, ends, strict=True)])  # fmt: skip
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 2.2, "width": 0}


def _percent_axis(title: str, floor: float | None) -> dict[str, Any]:
    """A rate in percent; logarithmic from `floor` on where there is one."""
    if floor is None:
        return {"title": title, "range": [-0.01, 1.02], "tickformat": ".0%"}
    ticks = [10.0**power for power in range(int(np.floor(np.log10(floor))), 1)]
    return {"title": title, "type": "log", "range": [np.log10(floor), 0.05], "tickvals": ticks, "ticktext": [pool.level(tick) for tick in ticks]}


def _value(found: Any) -> float:
    return float(found["value"] if isinstance(found, Mapping) else found)


def _interval(found: Any, is_share: bool = False) -> str:
    """`0.640 [0.631, 0.649]`, or `6.8 % [5.9, 7.8]`; a value alone where there is no interval."""
    if is_share:
        return pool.interval(found)
    ends = found if isinstance(found, Mapping) and found.get("low") is not None and found.get("high") is not None else None
    return f"{_value(found):.3f}" if ends is None else f"{_value(found):.3f} [{ends['low']:.3f}, {ends['high']:.3f}]"


def _finished(figure: go.Figure, title: str | None, height: int, legend_below: bool = False, margin: dict[str, int] | None = None) -> go.Figure:
    """Size, title and legend that suit a phone as well; paper and ink are left to the theme."""
    legend = (
        {"orientation": "h", "y": -0.14, "yanchor": "top", "x": 0, "title": {"text": ""}, "font": {"size": 12}, "maxheight": 700, "tracegroupgap": 0}
        if legend_below
        else {}
    )
    figure.update_layout(
        title={"text": _safe(title or ""), "font": {"size": 16}, "x": 0}, height=height, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        margin=margin or {"l": 12, "r": 12, "t": 48, "b": 12}, legend=legend, hoverlabel={"align": "left"}, dragmode=False,
    )  # fmt: skip
    if margin is None:
        figure.update_xaxes(automargin=True, gridcolor="rgba(138,146,156,.25)", zeroline=False)
        figure.update_yaxes(automargin=True, gridcolor="rgba(138,146,156,.25)", zeroline=False)
    return figure


def _safe(text: Any) -> str:
    """Text from data as text: Plotly would take what looks like HTML for HTML."""
    return html.escape(str(text), quote=False)
