"""Figures of a single-point audit, and what all figures share. Each function draws on numbers that the artefacts hold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from memleak.attacks.fits import Empirical, fit
from memleak.report import inline

OUT, IN, RULE, FAINT, GREY = (inline.COLOURS[name] for name in ("out", "in", "ink", "faint", "grey"))
STATE_COLOUR = {"exposed": inline.COLOURS["alarm"], "effect found": inline.COLOURS["effect"], "no evidence": OUT}
FPR, TPR = "false-positive rate", "true-positive rate"
PANEL = 4.6  # inches: as wide as a phone shows with letters that can be read
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "memleak", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False, "figure.dpi": 110,
    "text.parse_math": False, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": RULE, "ytick.labelcolor": RULE,
    "axes.edgecolor": GREY, "text.color": RULE, "axes.labelcolor": RULE, "axes.titlecolor": RULE,
}  # fmt: skip
styled = matplotlib.rc_context(STYLE)  # for the time of drawing alone: the settings of whoever calls are theirs


def sheet(width: float, height: float) -> Figure:
    """An empty figure, inches; none that pyplot knows, so that it costs no memory once it is dropped."""
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save(figure: Figure, svg: Path, png: Path) -> None:
    """Write a figure twice, the same bytes for the same numbers."""
    from memleak import artefacts

    with artefacts.atomic(svg) as temporary:
        temporary.write_text(svg_of(figure), encoding="utf-8")
    with artefacts.atomic(png) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.05)


@styled
def svg_of(figure: Figure) -> str:
    """A figure as SVG, the same text for the same numbers; its panels are marked, which `inline.figure` cuts it by."""
    text, dpi = io.StringIO(), figure.dpi
    figure.set_dpi(72)  # as that of SVG, so that a pixel is a unit of the file
    _fix(figure)
    whole = figure.get_tightbbox().padded(0.05)
    known = {part: part.get_gid() for panel in _panels(figure) for part in panel}
    for number, panel in enumerate(_panels(figure)):
        box = _box(panel, whole)
        for place, part in enumerate(panel):
            part.set_gid(inline.mark(number, place, box))
    figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches=whole)
    for part, gid in known.items():
        part.set_gid(gid)
    figure.set_dpi(dpi)
    return text.getvalue()


def _fix(figure: Figure) -> None:
    """Give every part its final place: what is cut to size would move a legend, which stands in the middle of what there is."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        corner = figure.transFigure.inverted().transform(legend.get_window_extent().p0)
        legend.borderaxespad = 0
        legend.set_loc("lower left")
        legend.set_bbox_to_anchor(tuple(corner), figure.transFigure)


def _panels(figure: Figure) -> list[list[Artist]]:
    """What a page may put below each other: axes, together those with a gid in common, and legends."""
    found: dict[Any, list[Artist]] = {}
    for part in [*figure.axes, *figure.legends]:
        found.setdefault(part.get_gid() or part, []).append(part)
    return list(found.values())


def _box(panel: list[Artist], whole: Bbox) -> inline.Box:
    """The place of a panel in the file; panels in one row are equally high, so that they stand in line beside each other."""
    box, first = _around(panel), panel[0]
    beside = [axes for axes in first.figure.axes if _row_of(axes) == _row_of(first)] if first.figure and _row_of(first) else []
    row = _around([*panel, *beside])
    left, top = whole.x0 * 72, whole.y1 * 72
    return box.x0 - left, top - row.y1, box.x1 - left, top - row.y0


def _row_of(part: Artist) -> tuple[int, int] | None:
    """The rows of the grid that axes take."""
    spec = part.get_subplotspec() if isinstance(part, Axes) else None
    return (spec.rowspan.start, spec.rowspan.stop) if spec else None


def _around(parts: list[Artist]) -> Bbox:
    """The smallest box that holds all of these, with a rim."""
    return Bbox.union([box for part in parts if (box := part.get_tightbbox())]).padded(2)


def in_percent(axis: Axis, n: int = 6) -> None:
    """Ticks of a linear axis as `20 %`."""
    axis.set_major_locator(MaxNLocator(n, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{100 * number:.4g} %"))


def log_in_percent(axes: Axes) -> None:
    """Both axes logarithmic, a label at each power of ten: `0.1 %`, `1 %`."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10))
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{100 * number:g} %"))
        axis.set_minor_formatter(NullFormatter())


@styled
def overview(metrics: dict[str, Any]) -> Figure:
    """Power of the headline attack and paired difference of every target, the most exposed on top."""
    targets = metrics["targets"]
    names = list(targets)[::-1]
    figure = sheet(2 * PANEL, 0.36 * len(names) + 1.2)
    left, right = figure.subplots(1, 2)
    for row, name in enumerate(names):
        target = targets[name]
        colour, value = STATE_COLOUR[target["state"]], target["exposure"]
        if target["exposure_low"] is not None:
            _interval(left, row, target["exposure_low"], target["exposure_high"], colour)
        left.plot(value, row, "o", color=colour)
        effect = target["effect"]
        if effect["low"] is not None and effect["high"] is not None:
            _interval(right, row, effect["low"], effect["high"], colour)
            right.plot(effect["standardised"], row, "o", color=colour)
    left.axvline(metrics["alpha"], color=RULE, lw=1, ls="--")
    left.set(xlim=(-0.02, 1.02), xlabel="share of models with the record that are recognised")
    left.set_title(f"Power at FPR {100 * metrics['alpha']:g} % (dashed: guessing)")
    in_percent(left.xaxis)
    right.axvline(0, color=RULE, lw=1, ls="--")
    right.set(xlabel="mean of (IN - OUT) / standard deviation")
    right.set_title("Difference that the record makes")
    for axes in (left, right):
        axes.set_yticks(range(len(names)), labels=names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="x", color=FAINT, lw=0.4)
    return figure


def _interval(axes: Axes, row: float, low: float, high: float, colour: str) -> None:
    axes.plot([low, high], [row, row], color=colour, lw=3, alpha=0.45, solid_capstyle="butt")


@styled
def training(metrics: dict[str, Any]) -> Figure:
    """Loss and accuracy by epoch, mean over the models, with the final train and test accuracy.

    Where the user's own trainer tells no curves, the loss at the end alone.
    """
    models = metrics["models"]
    figure = sheet(2 * PANEL, 3.0)
    left, right = figure.subplots(1, 2)
    if models["loss_curve"] is None:
        left.bar(["train", "test"], [models["train_loss"], models["test_loss"]], color=[IN, RULE], width=0.5)
        left.set(ylabel="mean loss (nats)")
        left.set_title("Loss at the end (a trainer of the user tells no curve)")
        right.set(xticks=[])
    else:
        epochs = np.arange(1, len(models["loss_curve"]) + 1)
        left.plot(epochs, models["loss_curve"], color=OUT)
        left.set(xlabel="epoch", ylabel="training loss (nats)")
        if max(models["loss_curve"]) > 10 * min(models["loss_curve"]) > 0:
            left.set_yscale("log")
            left.yaxis.set_major_formatter(FuncFormatter(_power))
            left.yaxis.set_minor_formatter(NullFormatter())
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
        left.set_title("Loss while training")
        right.plot(epochs, models["accuracy_curve"], color=OUT, label="while training")
        right.set(xlabel="epoch")
    for part, colour in (("train", IN), ("test", RULE)):
        accuracy = models[f"{part}_accuracy"]
        right.axhline(accuracy["value"], color=colour, lw=1, label=f"{part}, at the end: {100 * accuracy['value']:.1f} %")
        right.axhspan(accuracy["low"], accuracy["high"], color=colour, alpha=0.12, lw=0)
    if models["chance"] is not None:
        right.axhline(models["chance"], color=GREY, lw=1, ls=":", label="chance")
    what = "token accuracy" if models.get("of_tokens") else "accuracy"
    right.set(ylabel=what, ylim=(0, 1.03))
    in_percent(right.yaxis)
    right.set_title(f"{what.capitalize()}, " + (f"mean of {models['n']} models" if models["n"] > 1 else "one model"))
    right.legend(fontsize=8, loc="best")
    return figure


def _power(number: float, _: int | None = None) -> str:
    """`0.01`, and powers of ten where zeros would have to be counted."""
    power = int(np.floor(np.log10(number) + 1e-9))
    return f"{number:g}" if -4 < power < 4 else "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@styled
def target(name: str, metrics: dict[str, Any], thresholds: dict[str, Any], roc: pd.DataFrame, inside: np.ndarray, outside: np.ndarray) -> Figure:
    """One target on one sheet: the values with their fits and rules, the ROC twice, precision and recall.

    `inside` and `outside` are the headline attack's statistic of the fitting rounds' models.
    """
    figure = sheet(2 * PANEL, 6.8)
    axes = figure.subplots(2, 2)
    _histogram(axes[0, 0], thresholds, metrics["headline"], name, inside, outside)
    own = roc[roc["subject"] == name].sort_values("fpr")
    _roc(axes[0, 1], own, metrics["targets"][name]["auc"])
    _roc_log(axes[1, 0], own)
    _precision_recall(axes[1, 1], own)
    return figure


def signal_of(thresholds: dict[str, Any], headline: str) -> str:
    """The signal that is shown: the headline attack's, or the margin where that decides on scores."""
    attack = thresholds[headline]["attack"]
    return attack["options"]["signal"] if attack["name"] == "single_point" else "margin"


def _histogram(axes: Axes, thresholds: dict[str, Any], headline: str, name: str, inside: np.ndarray, outside: np.ndarray) -> None:
    both = np.concatenate([inside, outside])
    edges = np.linspace(both.min(), both.max(), 19)
    pad = 0.12 * (both.max() - both.min())
    grid = np.linspace(both.min() - pad, both.max() + pad, 400)
    signal = signal_of(thresholds, headline)
    drawn = set()
    for values, colour, label in ((outside, OUT, "without the record (OUT)"), (inside, IN, "with it (IN)")):
        axes.hist(values, edges.tolist(), density=True, color=colour, alpha=0.35, label=label)
        axes.plot(values, np.full(len(values), 0.0), "|", color=colour, ms=9, clip_on=False)
    for attack, fitted in thresholds.items():
        options, own = fitted["attack"]["options"], fitted["targets"][name]
        if fitted["attack"]["name"] != "single_point" or options["signal"] != signal:
            continue
        style = "--" if options["fit"] == "kde" else "-"
        if options["fit"] not in drawn:
            for values, colour in ((outside, OUT), (inside, IN)):
                density = fit(values, options["fit"])
                if not isinstance(density, Empirical):
                    axes.plot(grid, np.exp(density.logpdf(grid)), color=colour, ls=style, lw=1.3)
            drawn.add(options["fit"])
        if attack == headline:
            for edge in {edge for pair in own["intervals"] for edge in pair if edge is not None}:
                axes.axvline(edge, color=RULE, lw=1.2, label=f"{headline}:\nmember beyond {edge:.2f}")
    axes.set_ylim(0, min(axes.get_ylim()[1], 4 * np.histogram(outside, edges, density=True)[0].max()))
    axes.set(
        xlabel="margin of the record (nats)" if signal == "margin" else "- loss of the record (nats)", ylabel="density", xlim=(grid[0], grid[-1])
    )
    axes.set_title(f"{name}: fitting rounds and fits")
    axes.legend(fontsize=7.5)


def _roc(axes: Axes, own: pd.DataFrame, auc: dict[str, Any]) -> None:
    axes.fill_between(own["fpr"], own["low"], own["high"], step="post", color=IN, alpha=0.2, lw=0, label="95 % interval")
    axes.step(own["fpr"], own["tpr"], where="post", color=IN)
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    axes.set(xlabel=FPR, ylabel=TPR, xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    in_percent(axes.xaxis)
    in_percent(axes.yaxis)
    axes.set_title(f"ROC, all rounds: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
    axes.legend(fontsize=7.5, loc="lower right")


def _roc_log(axes: Axes, own: pd.DataFrame) -> None:
    floor = 0.5 * own.loc[own["fpr"] > 0, "fpr"].min()
    seen = own[own["fpr"] > 0]
    axes.fill_between(seen["fpr"], seen["low"].clip(lower=floor), seen["high"].clip(lower=floor), step="post", color=IN, alpha=0.2, lw=0)
    axes.step(seen["fpr"], seen["tpr"].clip(lower=floor), where="post", color=IN)
    axes.plot([floor, 1], [floor, 1], color=GREY, ls=":", lw=1)
    uncertain = seen.loc[~seen["certified"], "fpr"].max()
    if np.isfinite(uncertain):
        axes.axvspan(floor, uncertain, color=FAINT, alpha=0.35, lw=0, label="too few models to certify")
        axes.legend(fontsize=7.5, loc="lower right")
    log_in_percent(axes)
    axes.set(xlabel=FPR, ylabel=TPR, xlim=(floor, 1.05), ylim=(floor, 1.1))
    axes.set_title("The same, logarithmic")


def _precision_recall(axes: Axes, own: pd.DataFrame) -> None:
    axes.plot(own["tpr"], own["precision"], "-o", ms=3, color=IN)
    axes.axhline(0.5, color=GREY, ls=":", lw=1)
    axes.set(xlabel="recall (true-positive rate)", ylabel="precision", xlim=(-0.01, 1.03), ylim=(0, 1.05))
    in_percent(axes.xaxis)
    in_percent(axes.yaxis)
    axes.set_title("Precision, members as many as others")
