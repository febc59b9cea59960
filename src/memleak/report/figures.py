"""Figures of a single-point audit. Each function draws on numbers that the artefacts hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memleak.attacks.fits import Empirical, fit

OUT, IN, RULE, FAINT = "#4c6a92", "#d1622b", "#222222", "#b8bec8"
STATE_COLOUR = {"exposed": "#b3261e", "effect found": "#b26a00", "no evidence": "#4c6a92"}
plt.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "memleak", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False, "figure.dpi": 110,
})  # fmt: skip


def save(figure: Figure, svg: Path, png: Path) -> None:
    """Write a figure twice, the same bytes for the same numbers."""
    from memleak import artefacts

    for path, form, metadata in ((svg, "svg", {"Date": None}), (png, "png", {"Software": None})):
        with artefacts.atomic(path) as temporary:
            figure.savefig(temporary, format=form, metadata=metadata, bbox_inches="tight")
    plt.close(figure)


def overview(metrics: dict[str, Any]) -> Figure:
    """Power of the headline attack and paired difference of every target, the most exposed on top."""
    targets = metrics["targets"]
    names = list(targets)[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.45 * len(names) + 1.6), sharey=True, layout="constrained")
    for row, name in enumerate(names):
        target = targets[name]
        colour, value = STATE_COLOUR[target["state"]], target["exposure"]
        if target["exposure_low"] is not None:
            left.plot([target["exposure_low"], target["exposure_high"]], [row, row], color=colour, lw=3, alpha=0.45, solid_capstyle="butt")
        left.plot(value, row, "o", color=colour)
        effect = target["effect"]
        if effect["low"] is not None and effect["high"] is not None:
            right.plot([effect["low"], effect["high"]], [row, row], color=colour, lw=3, alpha=0.45, solid_capstyle="butt")
            right.plot(effect["standardised"], row, "o", color=colour)
    left.axvline(metrics["alpha"], color=RULE, lw=1, ls="--")
    left.set(xlim=(-0.02, 1.02), yticks=range(len(names)), yticklabels=names, xlabel="power: share of models with the record that are recognised")
    left.set_title(f"Power at FPR {metrics['alpha']:g} (dashed: guessing)")
    right.axvline(0, color=RULE, lw=1, ls="--")
    right.set(xlabel="mean of (IN - OUT) / standard deviation")
    right.set_title("Paired difference of the margin")
    for axes in (left, right):
        axes.grid(axis="x", color=FAINT, lw=0.4)
    return figure


def training(metrics: dict[str, Any]) -> Figure:
    """Loss and accuracy by epoch, mean over the models, with the final train and test accuracy.

    Where the user's own trainer tells no curves, the loss at the end alone.
    """
    models = metrics["models"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    if models["loss_curve"] is None:
        left.bar(["train", "test"], [models["train_loss"], models["test_loss"]], color=[IN, RULE], width=0.5)
        left.set(ylabel="mean loss (nats)")
        left.set_title("Loss at the end (a trainer of the user tells no curve)")
        right.set(xticks=[])
    else:
        epochs = np.arange(1, len(models["loss_curve"]) + 1)
        left.semilogy(epochs, models["loss_curve"], color=OUT)
        left.set(xlabel="epoch", ylabel="training loss (nats)")
        left.set_title("Loss while training")
        right.plot(epochs, models["accuracy_curve"], color=OUT, label="while training")
        right.set(xlabel="epoch")
    for part, colour in (("train", IN), ("test", RULE)):
        accuracy = models[f"{part}_accuracy"]
        right.axhline(accuracy["value"], color=colour, lw=1, label=f"{part}, at the end: {accuracy['value']:.3f}")
        right.axhspan(accuracy["low"], accuracy["high"], color=colour, alpha=0.12, lw=0)
    if models["chance"] is not None:
        right.axhline(models["chance"], color=FAINT, lw=1, ls=":", label="chance")
    what = "token accuracy" if models.get("of_tokens") else "accuracy"
    right.set(ylabel=what, ylim=(0, 1.03))
    right.set_title(f"{what.capitalize()}, mean of {models['n']} models")
    right.legend(fontsize=8, loc="lower right")
    return figure


def target(name: str, metrics: dict[str, Any], thresholds: dict[str, Any], roc: pd.DataFrame, inside: np.ndarray, outside: np.ndarray) -> Figure:
    """One target on one sheet: the values with their fits and rules, the ROC twice, precision and recall.

    `inside` and `outside` are the headline attack's statistic of the fitting rounds' models.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
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
                axes.axvline(edge, color=RULE, lw=1.2, label=f"{headline}: member beyond {edge:.2f}")
    axes.set_ylim(0, min(axes.get_ylim()[1], 4 * np.histogram(outside, edges, density=True)[0].max()))
    axes.set(
        xlabel="margin of the record (nats)" if signal == "margin" else "- loss of the record (nats)", ylabel="density", xlim=(grid[0], grid[-1])
    )
    axes.set_title(f"{name}: fitting rounds and fits")
    axes.legend(fontsize=7.5)


def _roc(axes: Axes, own: pd.DataFrame, auc: dict[str, Any]) -> None:
    axes.fill_between(own["fpr"], own["low"], own["high"], step="post", color=IN, alpha=0.15, lw=0, label="95 % interval")
    axes.step(own["fpr"], own["tpr"], where="post", color=IN)
    axes.plot([0, 1], [0, 1], color=FAINT, ls=":")
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    axes.set_title(f"ROC, all rounds: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
    axes.legend(fontsize=7.5, loc="lower right")


def _roc_log(axes: Axes, own: pd.DataFrame) -> None:
    floor = 0.5 * own.loc[own["fpr"] > 0, "fpr"].min()
    seen = own[own["fpr"] > 0]
    axes.fill_between(seen["fpr"], seen["low"].clip(lower=floor), seen["high"].clip(lower=floor), step="post", color=IN, alpha=0.15, lw=0)
    axes.step(seen["fpr"], seen["tpr"].clip(lower=floor), where="post", color=IN)
    axes.plot([floor, 1], [floor, 1], color=FAINT, ls=":")
    uncertain = seen.loc[~seen["certified"], "fpr"].max()
    if np.isfinite(uncertain):
        axes.axvspan(floor, uncertain, color=FAINT, alpha=0.35, lw=0, label="too few models to certify")
        axes.legend(fontsize=7.5, loc="lower right")
    axes.set(xscale="log", yscale="log", xlabel="false-positive rate", ylabel="true-positive rate", xlim=(floor, 1.05), ylim=(floor, 1.1))
    axes.set_title("The same, logarithmic")


def _precision_recall(axes: Axes, own: pd.DataFrame) -> None:
    axes.plot(own["tpr"], own["precision"], "-o", ms=3, color=IN)
    axes.axhline(0.5, color=FAINT, ls=":")
    axes.set(xlabel="recall (true-positive rate)", ylabel="precision", xlim=(-0.01, 1.03), ylim=(0, 1.05))
    axes.set_title("Precision and recall, members as many as others")
