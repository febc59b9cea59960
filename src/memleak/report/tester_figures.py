"""Figures of an audit by MembershipTester: the four of the earlier tool, drawn on what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memleak.report import inline, pool_figures
from memleak.report.figures import FAINT, GREY, IN, OUT, PANEL, RULE, in_percent, sheet, styled
from memleak.report.figures import svg_of as svg_of
from memleak.report.verdict import LEVELS

MILD, PAPER = inline.COLOURS["mild"], inline.COLOURS["paper"]
MANY = 400  # points of a side that are drawn
N_CURVES = 7  # the headline, the loss, and the best of the others


def all_of(found: Mapping[str, Any], frames: Mapping[str, pd.DataFrame], curves: pd.DataFrame) -> dict[str, Figure]:
    """The figures by the names that the earlier tool gave them."""
    aucs = {name: found["attacks"][name]["auc"]["value"] for name in curves["subject"].unique()}
    first = (found["headline"], "loss")
    drawn = sorted(aucs, key=lambda name: (name not in first, -aucs[name]))[:N_CURVES]
    aucs, curves = {name: aucs[name] for name in drawn}, curves[curves["subject"].isin(drawn)]
    figures = {
        "probabilities": probabilities(frames[found["headline"]], found),
        "heatmap": heatmap(found, frames),
        "curves": pool_figures.roc(curves, aucs, found["headline"], "the audited model"),
        "dashboard": dashboard(found),
    }
    if (found.get("layers") or {}).get("rows"):
        figures["layers"] = layers(found)
    return figures


@styled
def dashboard(found: Mapping[str, Any]) -> Figure:
    """The AUC of every attack and, below it, of what needs no model; above, the risk score."""
    attacks = sorted((name for name, one in found["attacks"].items() if one["auc"]), key=lambda name: -found["attacks"][name]["auc"]["value"])
    controls = control_aucs(found)
    n = len(attacks) + len(controls)
    figure = sheet(PANEL, 2.4 + 0.25 * n)
    top, axes = figure.subplots(2, 1, height_ratios=[1.0, 0.25 * n + 0.6], subplot_kw={"gid": "dashboard"})
    _gauge(top, found)
    rows = {name: n - place for place, name in enumerate([*attacks, *controls])}
    for name in attacks:
        _dot(axes, rows[name], found["attacks"][name]["auc"], IN if name == found["headline"] else OUT, "o")
    for name, auc in controls.items():
        _dot(axes, rows[name], auc, MILD, "s")
    if controls:
        axes.axhline(len(controls) + 0.5, color=FAINT, lw=0.8)
    axes.axvline(0.5, color=RULE, lw=1, ls="--")
    axes.set_yticks(list(rows.values()), labels=list(rows))
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == found["headline"] else "normal")
        label.set_color(GREY if label.get_text() in controls else RULE)
    axes.set(xlim=_limits(found, controls), ylim=(0.4, n + 0.6), xlabel="AUC, 95 % interval (dashed: guessing)")
    axes.set_title("Attacks (grey: without the model)" if controls else "Attacks")
    axes.grid(axis="x", color=FAINT, lw=0.4)
    return figure


@styled
def layers(found: Mapping[str, Any]) -> Figure:
    """The AUC of the gradient's norm in each layer, in the network's order."""
    rows, best = found["layers"]["rows"], found["layers"]["outstanding"]
    figure = sheet(PANEL, 0.9 + 0.2 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _dot(axes, -place, row["auc"], IN if row["name"] == best else OUT, "o")
    axes.axvline(0.5, color=RULE, lw=1, ls="--")
    axes.set_yticks([-place for place in range(len(rows))], labels=[row["name"] for row in rows], fontsize=8)
    axes.set(ylim=(-len(rows) + 0.4, 0.6), xlabel="AUC, 95 % interval (dashed: guessing)")
    axes.set_title("Gradient's norm by layer, in order")
    axes.grid(axis="x", color=FAINT, lw=0.4)
    return figure


def control_aucs(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The AUC of each control that has one, by what it is called."""
    controls, named = found["controls"], {}
    if (controls.get("blind") or {}).get("auc"):
        named["blind classifier"] = controls["blind"]["auc"]
    for name, one in ((controls.get("length") or {}).get("sizes") or {}).items():
        named[f"length in {name}"] = one["auc"]
    if controls.get("placebo"):
        named["placebo (reference)"] = controls["placebo"]["auc"]
    return named


def _limits(found: Mapping[str, Any], controls: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    known = [*(one["auc"] for one in found["attacks"].values() if one["auc"]), *controls.values()]
    return min(0.38, *(one["low"] for one in known)) - 0.02, max(0.62, *(one["high"] for one in known)) + 0.02


def _dot(axes: Axes, row: float, auc: Mapping[str, float], colour: str, marker: str) -> None:
    axes.plot([auc["low"], auc["high"]], [row, row], color=colour, lw=3, alpha=0.4, solid_capstyle="butt")
    axes.plot(auc["value"], row, marker, color=colour, ms=5)


def _gauge(axes: Axes, found: Mapping[str, Any]) -> None:
    """The risk score with its interval, on the levels that its lower end may stand for."""
    risk, edges = found["risk"], [0.0, *(limit for limit, _ in LEVELS)]
    for (low, high), (_, name), shade in zip(pairwise(edges), LEVELS, (0.10, 0.25, 0.42, 0.6), strict=True):
        axes.barh(0, high - low, left=low, height=1.0, color=IN, alpha=shade, lw=0)
        axes.text((low + high) / 2, -0.82, name, ha="center", va="center", fontsize=8, color=GREY)
    axes.plot([risk["low"], risk["high"]], [0, 0], color=RULE, lw=3, solid_capstyle="butt")
    axes.plot(risk["value"], 0, "o", color=PAPER, mec=RULE, mew=2, ms=9, clip_on=False)
    axes.set(xlim=(0, 100), ylim=(-1.15, 0.6), yticks=[], xticks=edges)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(f"Risk {risk['value']:.0f} [{risk['low']:.0f}, {risk['high']:.0f}]: {risk['level']} (by the lower end)")


@styled
def probabilities(frame: pd.DataFrame, found: Mapping[str, Any]) -> Figure:
    """P(member) of every text by the headline attack, and whether such probabilities can be believed."""
    figure = sheet(2 * PANEL, 3.7)
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    drawn = np.random.default_rng(0)  # of the places of points across, which mean nothing
    for side, (split, colour, label) in enumerate((("test", OUT, "not trained on"), ("train", IN, "trained on"))):
        own = frame[frame["split"] == split].sort_values("membership_prob")[:: max(1, (frame["split"] == split).sum() // MANY)]
        across = side + drawn.uniform(-0.32, 0.32, len(own))
        flagged = own["flag"].to_numpy(dtype=bool)
        left.plot(own["membership_prob"], across, ".", color=colour, ms=5, alpha=0.45, label=label)
        left.plot(own["membership_prob"][flagged], across[flagged], "o", color=colour, ms=6, mfc="none", mew=1.2)
    left.axvline(0.5, color=RULE, lw=1, ls="--")
    left.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.6, 1.6),
        yticks=[0, 1],
        yticklabels=["not\ntrained on", "trained on"],
        xlabel="P(member), as many members as others",
    )
    in_percent(left.xaxis)
    what = "image" if found["task"] == "image-classification" else "text"
    left.set_title(f"Every {what}, by {found['headline']}" + (" (rings: flagged)" if frame["flag"].any() else ""))
    bins = found["reliability"]["bins"]
    right.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    right.scatter([one["said"] for one in bins], [one["found"] for one in bins], s=[12 + 260 * one["weight"] for one in bins], color=IN, alpha=0.8)
    right.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="P(member) that was said", ylabel="share of members found", aspect="equal")
    in_percent(right.xaxis)
    in_percent(right.yaxis)
    right.set_title("Can it be believed?")
    return figure


@styled
def heatmap(found: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean P(member) of the texts trained on and of the others, by attack."""
    names = [name for name in found["attacks"] if frames[name]["membership_prob"].notna().any()]
    means = np.array([[frames[name].loc[frames[name]["split"] == split, "membership_prob"].mean() for split in ("train", "test")] for name in names])
    figure = sheet(PANEL, 1.1 + 0.3 * max(len(names), 1))
    axes = figure.subplots()
    if not names:
        axes.text(0.5, 0.5, "No attack has a score.", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return figure
    axes.imshow(means, cmap="RdBu_r", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        axes.text(column, row, f"{100 * value:.0f} %", ha="center", va="center", fontsize=8, color="#fefefe" if abs(value - 0.5) > 0.3 else "#111111")
    axes.set(xticks=[0, 1], xticklabels=["trained on", "not trained on"], yticks=range(len(names)), yticklabels=names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Mean P(member)")
    return figure
