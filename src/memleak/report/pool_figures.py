"""Figures of an audit in which every model is the target in turn, and of anybody's scores."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from memleak.report import inline, pool
from memleak.report.figures import FAINT, FPR, GREY, IN, OUT, PANEL, RULE, TPR, in_percent, log_in_percent, sheet, styled

OTHERS = tuple(inline.COLOURS[name] for name in ("blue", "green", "pink", "violet", "stone", "earth"))  # told apart by the colour-blind
PAPER = inline.COLOURS["paper"]
N_BINS = 60
OUTERMOST = (5, 99.9)  # percentiles: scores beyond them are counted in the outermost bins
N_PICTURES, N_ACROSS = 12, 3


@styled
def headline(metrics: dict[str, Any], curves: pd.DataFrame) -> Figure:
    """The one figure that matters: whom the headline attack finds while it is hardly ever wrong, and the rate that the verdict reads."""
    figure = sheet(PANEL, 4.4)
    axes = figure.subplots(subplot_kw={"gid": "headline"})
    name, other = metrics["headline"], pool.baseline(metrics)
    own = curves[curves["subject"] == name].sort_values("fpr")
    floor = _lowest(own, metrics["alpha"])
    _limits_of_rates(axes, floor)
    low, high = own["low"].clip(lower=floor), own["high"].clip(lower=floor)
    axes.fill_between(own["fpr"], low, high, step="post", color=IN, alpha=0.22, lw=0, zorder=3)
    axes.step(own["fpr"], _caught(own, floor), where="post", color=IN, lw=2.6, zorder=5, label=f"{name} (headline)")
    if other:
        beside = curves[curves["subject"] == other].sort_values("fpr")
        axes.step(beside["fpr"], _caught(beside, floor), where="post", color=OUT, lw=1.2, label=f"{other}, to compare")
    axes.plot([floor, 1], [floor, 1], color=GREY, ls=":", lw=1, label="guessing")
    _uncertified(axes, own, floor)
    _point(axes, found_at_alpha(metrics), floor)
    axes.set(xlabel="others wrongly called members (FPR)", ylabel="members found (TPR)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, handlelength=1.6).set_gid("headline")
    return figure


def found_at_alpha(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """FPR and TPR of the headline attack at the audit's alpha; at a threshold that others set where there is one, else the best in hindsight."""
    name, alpha = metrics["headline"], metrics["alpha"]
    own = metrics["attacks"][name].get("natural")
    if own and own["is_only"]:  # there is no other rate, at alpha or elsewhere
        return {"fpr": own["achieved_fpr"]["value"], "wrong": own["achieved_fpr"], "tpr": own["tpr"], "is_calibrated": True, "certified": True}
    if found := pool.calibrated(metrics, name):
        certified = found["n_non_members"] >= pool.records_for(alpha)
        return {
            "fpr": found["achieved_fpr"]["value"],
            "wrong": found["achieved_fpr"],
            "tpr": found["tpr"],
            "is_calibrated": True,
            "certified": certified,
        }
    rate = pool.rate(metrics["attacks"][name], alpha)
    return rate and {"fpr": alpha, "tpr": rate, "is_calibrated": False, "certified": rate["certified"]}


def _point(axes: Axes, found: dict[str, Any] | None, floor: float) -> None:
    """The rate at alpha with its interval and, above the axes where it covers nothing, what it means in words."""
    if found is None:
        return
    at, tpr, colour = max(found["fpr"], floor), found["tpr"], IN if found["certified"] else GREY
    value, low, high = (max(tpr[end] or 0.0, floor) for end in ("value", "low", "high"))
    axes.plot([at, at], [low, high], color=colour, lw=2.4, zorder=6, solid_capstyle="butt")
    axes.plot(at, value, "o", color=colour, mec=PAPER, mew=1.3, ms=9, zorder=7, clip_on=False)
    axes.annotate(
        pool.interval(tpr).split(" [")[0], (at, value), xytext=(8, -7), textcoords="offset points", va="top", fontsize=9.5, fontweight="bold", color=colour,
        zorder=8, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )  # fmt: skip
    wrong = pool.interval(found["wrong"]) if found["is_calibrated"] else f"at most {pool.level(found['fpr'])}"
    axes.set_title(f"Finds {pool.interval(tpr)} of the members\nand accuses {wrong} of the others", color=colour, fontsize=10, pad=20)
    certified = "" if found["certified"] else "; too few records to certify"
    small = f"at a threshold {'set beforehand' if found['is_calibrated'] else 'chosen in hindsight'}{certified}"
    axes.text(0, 1.025, small, transform=axes.transAxes, fontsize=8.5, color=GREY)


def _lowest(own: pd.DataFrame, alpha: float) -> float:
    """Where the axes begin: as low as the scores reach, but no further than a decade into what they cannot certify."""
    certain = own.loc[own["certified"], "fpr"].min() if own["certified"].any() else own["fpr"].min()
    return float(max(0.7 * own.loc[own["fpr"] > 0, "fpr"].min(), min(certain, alpha) / 8))


def _limits_of_rates(axes: Axes, floor: float) -> None:
    log_in_percent(axes)
    axes.set(xlim=(floor, 1.12), ylim=(floor, 1.2))
    axes.grid(color=FAINT, lw=0.4, alpha=0.6)


def _caught(own: pd.DataFrame, floor: float) -> pd.Series:
    """The true-positive rates; where nobody is caught there is no point: a line from there to the next would lie."""
    return own["tpr"].where(own["tpr"] > 0).clip(lower=floor)


@styled
def roc(curves: pd.DataFrame, aucs: Mapping[str, float], headline: str, title: str = "all targets together") -> Figure:
    """The ROC of every attack, linear and log-log; the headline's in front with its 95 % band, the legend by AUC."""
    figure = sheet(2 * PANEL, 4.0 + 0.19 * np.ceil(len(aucs) / 2))
    left, right = figure.subplots(1, 2)
    by_auc = sorted(aucs, key=lambda name: -aucs[name])
    styles = _styles([name for name in by_auc if name != headline])
    floor = 0.7 * curves.loc[curves["fpr"] > 0, "fpr"].min()
    handles = {}
    for name in [*(name for name in by_auc if name != headline), headline]:
        own = curves[curves["subject"] == name].sort_values("fpr")
        style = {"color": IN, "lw": 2.4, "zorder": 5} if name == headline else styles[name]
        caught = _caught(own, 0.0)
        (handles[name],) = left.plot([0, *own["fpr"]], [0, *caught], **style)
        right.step(own["fpr"], caught, where="post", **style)
    _band(left, right, curves[curves["subject"] == headline].sort_values("fpr"), floor)
    left.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    right.plot([floor, 1], [floor, 1], color=GREY, ls=":", lw=1)
    left.set(xlabel=FPR, ylabel=TPR, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    left.set_title(f"ROC, {title}")
    in_percent(left.xaxis)
    in_percent(left.yaxis)
    _limits_of_rates(right, floor)
    _uncertified(right, curves, floor)
    if right.get_legend_handles_labels()[1]:
        right.legend(loc="lower right", fontsize=8)
    right.set(xlabel=FPR, ylabel=TPR)
    right.set_title("The same, logarithmic")
    labels = [f"{name}: AUC {aucs[name]:.3f}" for name in by_auc]
    legend = figure.legend(
        [handles[name] for name in by_auc], labels, loc="outside lower center", ncols=min(2, len(labels)), fontsize=9, columnspacing=1.5
    )
    legend.get_texts()[by_auc.index(headline)].set_fontweight("bold")
    return figure


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour and a line for each name; the line changes when the colours are used up."""
    lines = ("-", "--", ":", "-.")
    return {name: {"color": OTHERS[i % len(OTHERS)], "ls": lines[i // len(OTHERS) % len(lines)], "lw": 1.2} for i, name in enumerate(names)}


def _band(left: Axes, right: Axes, own: pd.DataFrame, floor: float) -> None:
    for axes, lowest in ((left, 0.0), (right, floor)):
        low, high = own["low"].clip(lower=lowest), own["high"].clip(lower=lowest)
        axes.fill_between(own["fpr"], low, high, step=None if axes is left else "post", color=IN, alpha=0.22, lw=0, zorder=4)


def _uncertified(axes: Axes, curves: pd.DataFrame, floor: float) -> None:
    """Shade the false-positive rates that so few distinct records cannot certify."""
    edge = min(curves.loc[curves["certified"], "fpr"].min(), 1.0) if curves["certified"].any() else 1.0
    if edge > floor:
        axes.axvspan(floor, edge, color=FAINT, alpha=0.35, lw=0, zorder=0, label="too few records to certify")


@styled
def scores(found: Mapping[str, tuple[np.ndarray, np.ndarray]], headline: str) -> Figure:
    """The scores of members and of non-members, of each attack in `found`: name -> (scores of members, of others)."""
    figure = sheet(PANEL * len(found), 3.3)
    panels = figure.subplots(1, len(found), squeeze=False)
    for axes, (name, (members, others)) in zip(panels[0], found.items(), strict=True):
        both = np.concatenate([members, others])
        low, high = np.percentile(both[np.isfinite(both)], OUTERMOST)
        edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
        for values, colour, label in ((others, OUT, "not trained on"), (members, IN, "trained on")):
            counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
            axes.stairs(counts, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(counts, edges, color=colour, lw=1.3, label=label)
        axes.set(xlabel="score (higher: rather a member)", ylabel="share of the scores", yscale="log", xlim=(edges[0], edges[-1]))
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.2))  # no share is above 100 %
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8)
        axes.set_title(f"{name} (headline)" if name == headline else name)
    return figure


@styled
def exposure(table: pd.DataFrame, pictures: np.ndarray | None, class_names: Sequence[str] | None, alpha: float) -> Figure:
    """How often records are recognised, one count a record; beside it, the most exposed as pictures where `pictures` [n, H, W, C] are given.

    `table` has the most exposed first; `pictures` are those of its first rows.
    """
    rows = 0 if pictures is None else -(-len(pictures) // N_ACROSS)
    figure = sheet(2 * PANEL if rows else PANEL, max(3.4, 1.4 * rows))
    grid = figure.add_gridspec(max(rows, 1), 2 * N_ACROSS if rows else 1)
    _rates(figure.add_subplot(grid[:, :N_ACROSS]), table, alpha)
    for i, picture in enumerate(pictures if pictures is not None else ()):
        axes, row = figure.add_subplot(grid[i // N_ACROSS, N_ACROSS + i % N_ACROSS]), table.iloc[i]
        axes.set_gid("pictures")
        axes.imshow(picture.squeeze(), cmap="gray_r" if picture.shape[-1] == 1 else None, interpolation="nearest")
        axes.set_axis_off()
        label = textwrap.shorten(f"class {pool.class_name(int(row['label']), class_names)}", 22, placeholder="...")
        counts = f"id {row['sample_id']}: {row['n_detected']} of {row['n_holding']}"
        text = f"{label}\n{counts}\n{100 * row['rate']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
        axes.set_title(text, fontsize=8, fontweight="normal", loc="center")
    return figure


def _rates(axes: Axes, table: pd.DataFrame, alpha: float) -> None:
    if not len(table):
        axes.text(0.5, 0.5, "Too few models for mock targets: no thresholds, no exposure.", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    edges, flagged = np.linspace(0, 1, 41), table["bh"].to_numpy(dtype=bool)
    held = table["n_holding"].to_numpy() > 0
    counts = [np.histogram(table.loc[held & part, "rate"], edges)[0] for part in (flagged, ~flagged)]
    axes.bar(edges[:-1], counts[1], width=0.025, align="edge", color=OUT, alpha=0.75, label=f"not shown to be: {int((held & ~flagged).sum()):,}")
    axes.bar(edges[:-1], counts[0], width=0.025, align="edge", bottom=counts[1], color=IN, label=f"exposed: {int(flagged.sum()):,}")
    axes.axvline(alpha, color=RULE, lw=1, ls="--", label=f"guessing, at FPR {pool.level(alpha)}")
    axes.set(xlabel="of the models with the record, in how many it is told", ylabel="records", yscale="log", xlim=(-0.01, 1.01))
    in_percent(axes.xaxis)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0.7, 1.5 * max((counts[0] + counts[1]).max(), 1))
    axes.set_title("How exposed each record is")
    axes.legend(fontsize=8)
