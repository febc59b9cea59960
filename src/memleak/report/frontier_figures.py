"""Figures of a sweep: the frontier of privacy and utility, and the generalisation gap against attack success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memleak.report import frontier as words
from memleak.report import inline, labels, pool, variants
from memleak.report.figures import FAINT, GREY, IN, OUT, PANEL, RULE, in_percent, sheet, styled

MILD, RED, PAPER = (inline.COLOURS[name] for name in ("mild", "alarm", "paper"))
STYLES = {  # what differs from the baseline: marker, colour, words
    "baseline": ("*", RULE, "baseline"), "training": ("o", OUT, "trained otherwise"), "release": ("s", inline.COLOURS["green"], "released otherwise, the same models"),
    "both": ("^", inline.COLOURS["pink"], "trained and released otherwise"),
}  # fmt: skip
N_NAMED = 12  # variants that the first panel calls by name; more are numbered, and a key stands below
LONGEST = 24  # letters of such a name


@dataclass(frozen=True)
class Panel:
    """One measure of what leaks, over which accuracy is drawn. `found` is an estimate of each variant by label, where it has one."""

    axis: str
    chance: float
    found: Mapping[str, dict[str, Any]]
    line: tuple[str, ...]  # labels of those that no other beats in both, the most private first


def panels(sweep: dict[str, Any]) -> list[Panel]:
    """The measures that any variant with an accuracy has."""
    drawn = [variant for variant in sweep["variants"] if variants.value(variant["utility"]) is not None]
    measures = [("AUC of the headline attack", 0.5, {variant["label"]: variant["auc"] for variant in drawn})]
    for fpr in variants.LEVELS:
        measures.append((f"TPR at FPR {pool.level(fpr)}", fpr, {variant["label"]: variants.tpr(variant, fpr) for variant in drawn}))
    bounds = {variant["label"]: bound for variant in drawn if (bound := variants.bound_of(variant))}
    measures.append(("epsilon, lower bound", 0.0, {name: {"value": bound["epsilon"], "low": None, "high": None} for name, bound in bounds.items()}))
    utility = {variant["label"]: float(variant["utility"]["value"]) for variant in drawn}
    known = [(axis, chance, {name: one for name, one in found.items() if one and one["value"] is not None}) for axis, chance, found in measures]
    return [Panel(axis, chance, found, _unbeaten(found, utility, chance)) for axis, chance, found in known if found]


def _unbeaten(found: Mapping[str, dict[str, Any]], utility: Mapping[str, float], chance: float) -> tuple[str, ...]:
    """Those that no other beats in both, by point estimates; less than guessing is no more privacy than guessing."""
    leak = {name: max(one["value"], chance) for name, one in found.items()}
    line: list[str] = []
    for name in sorted(found, key=lambda name: (leak[name], -utility[name])):
        if not line or utility[name] > utility[line[-1]] or (utility[name], leak[name]) == (utility[line[-1]], leak[line[-1]]):
            line.append(name)
    return tuple(line)


@styled
def frontier(sweep: dict[str, Any]) -> Figure:
    """Accuracy over each measure of what leaks: left is private, up is useful. The first panel names the variants."""
    drawn = panels(sweep)
    if not drawn:
        return _empty("No variant has both an accuracy and a measure of what leaks.")
    layout = {1: ["a"], 2: ["ab"], 3: ["ab", "c."], 4: ["ab", "cd"]}[len(drawn)]
    names, rows = _short_names(sweep), words.rows(sweep)
    entries = _entries(rows, is_key=not _are_named(sweep))
    n_columns = _columns([text for text, _ in entries])
    figure = sheet(PANEL * len(layout[0]), 4.1 * len(layout) + 0.19 * -(-len(entries) // n_columns))
    axes = figure.subplot_mosaic("\n".join(layout))
    for letter, panel in zip("abcd", drawn, strict=False):
        _panel(axes[letter], panel, rows)
        axes[letter].set(xlabel=panel.axis, ylim=_limits([row["utility"] for row in rows]))
        axes[letter].set_ylabel("accuracy on records never seen")
    axes["a"].set_title("Up and left is better")
    figure.legend(
        [handle for _, handle in entries], [text for text, _ in entries], loc="outside lower center", ncols=n_columns, fontsize=8, handletextpad=0.4
    )
    _fix_layout(figure)
    for letter, panel in zip("abcd", drawn, strict=False):
        _name_points(axes[letter], panel, rows, names if letter == "a" else {row["label"]: str(row["number"]) for row in rows})
    return figure


@styled
def gap(sweep: dict[str, Any]) -> Figure:
    """The generalisation gap of every variant and the headline attack's success, with their correlation."""
    rows = [row for row in words.rows(sweep) if variants.value(row["gap"]) is not None and variants.value(row["auc"]) is not None]
    if not rows:
        return _empty("No variant has both a generalisation gap and an AUC.")
    entries = _entries(rows, is_key=False)
    figure = sheet(PANEL, 4.3)
    axes = figure.subplots()
    for row in rows:
        marker, colour, _ = STYLES[row["kind"]]
        _bars(axes, row["gap"], row["auc"], colour)
        counts = sweep["correlation"] is None or row["label"] in sweep["correlation"]["labels"]
        axes.plot(
            row["gap"]["value"], row["auc"]["value"], marker, color=colour, mfc=colour if counts else PAPER, ms=11 if marker == "*" else 6, zorder=4
        )
        _ring(axes, row, row["gap"]["value"], row["auc"]["value"])
    axes.axhline(0.5, color=GREY, ls=":", lw=1, zorder=0)
    axes.set(xlabel="generalisation gap: accuracy on members less that on others", ylabel="AUC of the headline attack")
    axes.set_xlim(_limits([row["gap"] for row in rows]))
    in_percent(axes.xaxis)
    axes.set_ylim(_limits([row["auc"] for row in rows], inside=0.5))
    said = words.correlation(sweep)
    axes.set_title(f"Gap and attack success\n{said}")
    figure.legend(
        [handle for _, handle in entries],
        [text for text, _ in entries],
        loc="outside lower center",
        ncols=_columns([text for text, _ in entries]),
        fontsize=8,
    )
    _fix_layout(figure)
    names = _short_names(sweep)
    labels.write(axes, [(row["gap"], row["auc"], names[row["label"]], row["is_baseline"]) for row in rows])
    return figure


def _panel(axes: Axes, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy over one measure, with both intervals, the line of those that no other beats, and what guessing would reach."""
    utility = {row["label"]: row["utility"] for row in rows}
    axes.step(
        [panel.found[name]["value"] for name in panel.line], [utility[name]["value"] for name in panel.line], where="post", color=IN, lw=1.3, zorder=2
    )
    axes.axvline(panel.chance, color=GREY, ls=":", lw=1, zorder=0)
    for row in rows:
        own = panel.found.get(row["label"])
        if own is None:
            continue
        marker, colour, _ = STYLES[row["kind"]]
        colour = colour if own.get("certified", True) else MILD
        _bars(axes, own, row["utility"], colour)
        fill = colour if row["label"] in panel.line or row["is_baseline"] else PAPER
        axes.plot(own["value"], row["utility"]["value"], marker, color=colour, mfc=fill, ms=11 if marker == "*" else 6, zorder=4)
        _ring(axes, row, own["value"], row["utility"]["value"])
        if row["is_baseline"]:
            axes.axhline(row["utility"]["value"], color=FAINT, ls="--", lw=0.8, zorder=0)
    axes.set_xlim(_limits(list(panel.found.values()), inside=panel.chance))
    in_percent(axes.yaxis)
    if panel.axis.startswith("TPR"):
        in_percent(axes.xaxis)
    if any(not own.get("certified", True) for own in panel.found.values()):
        axes.set_title("grey: too few records to certify", fontsize=8.5, fontweight="normal", color=GREY)


def _bars(axes: Axes, across: dict[str, Any], up: dict[str, Any], colour: str) -> None:
    """Both intervals of a point, where it has them."""
    if across["low"] is not None:
        axes.plot([across["low"], across["high"]], [up["value"]] * 2, color=colour, lw=1.2, alpha=0.5, zorder=3)
    if up["low"] is not None:
        axes.plot([across["value"]] * 2, [up["low"], up["high"]], color=colour, lw=1.2, alpha=0.5, zorder=3)


def _ring(axes: Axes, row: dict[str, Any], x: float, y: float) -> None:
    """Around a variant with an alarm."""
    if row["has_alarm"]:
        axes.plot(x, y, "o", color=RED, mfc="none", ms=13, mew=1.6, zorder=5)


def _limits(found: Sequence[dict[str, Any] | None], inside: float | None = None) -> tuple[float, float]:
    """A little more than what the intervals reach, and `inside`."""
    reached = [end for one in found if one for end in (one["value"], one["low"], one["high"]) if end is not None]
    low, high = min([*reached, *([] if inside is None else [inside])]), max([*reached, *([] if inside is None else [inside])])
    pad = 0.07 * (high - low) or 0.01
    return low - pad, high + pad


def _are_named(sweep: dict[str, Any]) -> bool:
    return len(sweep["variants"]) <= N_NAMED and max(len(variant["label"]) for variant in sweep["variants"]) <= LONGEST


def _short_names(sweep: dict[str, Any]) -> dict[str, str]:
    """What a variant is called in a figure: number and label where they are few, a number where they are many."""
    named = _are_named(sweep)
    return {
        variant["label"]: f"{number} {variant['label']}" if named else str(number) for number, variant in enumerate(variants.in_order(sweep), start=1)
    }


def _entries(rows: Sequence[dict[str, Any]], *, is_key: bool) -> list[tuple[str, Line2D]]:
    """The legend: what the markers mean or, as a key, which variant has which number."""
    found = []
    for row in rows if is_key else ():
        marker, colour, _ = STYLES[row["kind"]]
        found.append((f"{row['number']} {row['label']}", Line2D([], [], marker=marker, color=colour, ls="", ms=6)))
    for name, (marker, colour, text) in STYLES.items():
        if any(row["kind"] == name for row in rows):
            found.append((text, Line2D([], [], marker=marker, color=colour, ls="", ms=9 if marker == "*" else 6)))
    found.append(("dotted: guessing", Line2D([], [], color=GREY, ls=":")))
    if any(row["has_alarm"] for row in rows):
        found.append(("ALARM", Line2D([], [], marker="o", color=RED, mfc="none", mew=1.6, ls="", ms=10)))
    return found


def _columns(texts: Sequence[str]) -> int:
    """So many columns of a legend as fit in the width of a panel, of some 62 letters."""
    return max(1, min(len(texts), 3, 62 // (max(map(len, texts)) + 5)))


def _empty(text: str) -> Figure:
    figure = sheet(PANEL, 1.2)
    axes = figure.subplots()
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes.transAxes)
    axes.set_axis_off()
    return figure


def _fix_layout(figure: Figure) -> None:
    """Give every panel its final place, which labels are placed by."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _name_points(axes: Axes, panel: Panel, rows: Sequence[dict[str, Any]], names: Mapping[str, str]) -> None:
    drawn = [row for row in rows if row["label"] in panel.found]
    labels.write(axes, [(panel.found[row["label"]], row["utility"], names[row["label"]], row["is_baseline"]) for row in drawn])
