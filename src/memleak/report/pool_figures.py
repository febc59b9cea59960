"""Figures of an audit in which every model is the target in turn, and of anybody's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memleak.report import pool
from memleak.report.figures import FAINT, IN, OUT, RULE

OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#666666", "#8c6d1f")  # told apart by the colour-blind (after Okabe and Ito)
N_BINS = 60
OUTERMOST = (5, 99.9)  # percentiles: scores beyond them are counted in the outermost bins
N_PICTURES = 12


def roc(curves: pd.DataFrame, aucs: Mapping[str, float], headline: str, title: str = "all targets together") -> Figure:
    """The ROC of every attack, linear and log-log; the headline's in front with its 95 % band, the legend by AUC."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2 + 0.16 * np.ceil(len(aucs) / 3)), layout="constrained")
    by_auc = sorted(aucs, key=lambda name: -aucs[name])
    styles = _styles([name for name in by_auc if name != headline])
    floor = 0.7 * curves.loc[curves["fpr"] > 0, "fpr"].min()
    handles = {}
    for name in [*(name for name in by_auc if name != headline), headline]:
        own = curves[curves["subject"] == name].sort_values("fpr")
        style = {"color": IN, "lw": 2.4, "zorder": 5} if name == headline else styles[name]
        caught = own["tpr"].where(own["tpr"] > 0)  # where nobody is caught there is no point: a line from there to the next would lie
        (handles[name],) = left.plot([0, *own["fpr"]], [0, *caught], **style)
        right.step(own["fpr"], caught, where="post", **style)
    _band(left, right, curves[curves["subject"] == headline].sort_values("fpr"), floor)
    _uncertified(right, curves, floor)
    left.plot([0, 1], [0, 1], color=FAINT, ls=":", lw=1)
    right.plot([floor, 1], [floor, 1], color=FAINT, ls=":", lw=1)
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    left.set_title(f"ROC, {title}")
    right.set(xscale="log", yscale="log", xlabel="false-positive rate", ylabel="true-positive rate", xlim=(floor, 1.1), ylim=(floor, 1.2))
    right.set_title("The same, logarithmic")
    labels = [f"{name}: AUC {aucs[name]:.3f}" for name in by_auc]
    legend = figure.legend([handles[name] for name in by_auc], labels, loc="outside lower center", ncols=3, fontsize=8)
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
        axes.axvspan(floor, edge, color=FAINT, alpha=0.35, lw=0, zorder=0)
        axes.text(floor * 1.15, floor * 1.15, "too few records to certify", fontsize=7.5, color=RULE, va="bottom")


def scores(found: Mapping[str, tuple[np.ndarray, np.ndarray]], headline: str) -> Figure:
    """The scores of members and of non-members, of each attack in `found`: name -> (scores of members, of others)."""
    figure, panels = plt.subplots(1, len(found), figsize=(9 if len(found) > 1 else 5, 3.2), layout="constrained", squeeze=False)
    for axes, (name, (members, others)) in zip(panels[0], found.items(), strict=True):
        both = np.concatenate([members, others])
        low, high = np.percentile(both[np.isfinite(both)], OUTERMOST)
        edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
        for values, colour, label in ((others, OUT, "not trained on"), (members, IN, "trained on")):
            counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
            axes.stairs(counts, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(counts, edges, color=colour, lw=1.3, label=label)
        axes.set(xlabel="score (higher: rather a member)", ylabel="share of the scores", yscale="log", xlim=(edges[0], edges[-1]))
        axes.set_title(f"{name} (headline)" if name == headline else name)
    panels[0, 0].legend(fontsize=8)
    return figure


def exposure(table: pd.DataFrame, pictures: np.ndarray | None, class_names: Sequence[str] | None, alpha: float) -> Figure:
    """How often records are recognised, one count a record; below, the most exposed as pictures where `pictures` [n, H, W, C] are given.

    `table` has the most exposed first; `pictures` are those of its first rows.
    """
    rows = 0 if pictures is None else -(-len(pictures) // 6)
    figure = plt.figure(figsize=(9, 3.0 + 1.75 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, 6, height_ratios=[3.0, *[1.75] * rows])
    _rates(figure.add_subplot(grid[0, :]), table, alpha)
    for i, picture in enumerate(pictures if pictures is not None else ()):
        axes, row = figure.add_subplot(grid[1 + i // 6, i % 6]), table.iloc[i]
        axes.imshow(picture.squeeze(), cmap="gray_r" if picture.shape[-1] == 1 else None, interpolation="nearest")
        axes.set_axis_off()
        label = f"{pool.class_name(int(row['label']), class_names)}, id {row['sample_id']}"
        text = f"{label}\n{row['n_detected']} of {row['n_holding']}: {100 * row['rate']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
        axes.set_title(text, fontsize=7.5, fontweight="normal", loc="center", parse_math=False)
    return figure


def _rates(axes: Axes, table: pd.DataFrame, alpha: float) -> None:
    if not len(table):
        axes.text(0.5, 0.5, "Too few models for mock targets: no thresholds, no exposure.", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    edges, flagged = np.linspace(0, 1, 41), table["bh"].to_numpy(dtype=bool)
    held = table["n_holding"].to_numpy() > 0
    counts = [np.histogram(table.loc[held & part, "rate"], edges)[0] for part in (flagged, ~flagged)]
    axes.bar(
        edges[:-1], counts[1], width=0.025, align="edge", color=OUT, alpha=0.75, label=f"not shown to be exposed: {int((held & ~flagged).sum()):,}"
    )
    axes.bar(edges[:-1], counts[0], width=0.025, align="edge", bottom=counts[1], color=IN, label=f"exposed: {int(flagged.sum()):,}")
    axes.axvline(alpha, color=RULE, lw=1, ls="--", label=f"guessing at FPR {alpha:g}")
    axes.set(xlabel="share of the models that trained on the record in which it is recognised", ylabel="records", yscale="log", xlim=(-0.01, 1.01))
    axes.set_ylim(0.7, 1.5 * max((counts[0] + counts[1]).max(), 1))
    axes.set_title("How exposed each record is")
    axes.legend(fontsize=8)
