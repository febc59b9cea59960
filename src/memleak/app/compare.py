"""Two audits side by side: what was found, what differs between them, and whether a test says which one leaks less."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from memleak.app import browse, figures, read, style, tables
from memleak.report import front, pool, variants, words

SIDES = ("first", "second")
NO_TEST = (
    "Two intervals side by side are not a test: where they overlap the audits may still differ, and each is conditional on its own models and records. "
    "A sweep (defences in params.yaml) trains its variants on the same records and tests them in pairs."
)


@dataclass(frozen=True)
class Side:
    """One of the two audits."""

    label: str  # the audit's name, with its project where that is another
    directory: Path
    name: str
    metrics: dict[str, Any]


def page() -> None:
    """Choose two, and see them beside each other."""
    st.title("Compare two audits")
    columns = st.columns(2, gap="large")
    chosen = [_choose(column, side, place) for place, (column, side) in enumerate(zip(columns, SIDES, strict=True))]
    if None in chosen:
        st.info("Two finished audits are needed; one may be of another project below this folder.")
        return
    first, second = (side for side in chosen if side is not None)
    if (first.directory, first.name) == (second.directory, second.name):
        st.info("This is the same audit twice; choose another one on one side.")
        return
    for column, key, side in zip(columns, SIDES, (first, second), strict=True):
        with column, read.told(side.label):
            _found(side, key)
    with read.told(f"{first.label}, {second.label}"):
        st.header("Is one better?", anchor=False)
        _tested(first, second)
        st.header("Attacks that both have", anchor=False)
        _attacks(first, second)
        st.header("What differs", anchor=False)
        _differences(first, second)


def _choose(column: Any, side: str, place: int) -> Side | None:
    """The audit of one side; the second begins with the second audit."""
    projects, here = read.projects(), read.project()
    with column:
        project = st.selectbox(f"Project of the {side}", projects, index=projects.index(here) if here in projects else 0, key=f"{side}-project", bind="query-params") if len(projects) > 1 else here  # fmt: skip
        directory = read.folder(project)
        found = {one.name: one.metrics for one in read.audits(directory) if one.metrics is not None}
        if not found:
            st.text("No finished audit here.")
            return None
        name = st.selectbox(f"The {side} audit", list(found), index=min(place, len(found) - 1), key=side, bind="query-params")
    return Side(name if project == here else f"{project}/{name}", directory, name, found[name])


def _found(side: Side, key: str) -> None:
    told = front.of(side.metrics)
    st.subheader(style.plain(side.label), anchor=False)
    style.verdict(told.verdict.state, told.verdict.sentence, told.grade, tables.risk_of(told.verdict), told.alarms)
    if told.verdict.risk is not None:
        gauge = figures.gauge(
            told.verdict.risk, told.verdict.low, told.verdict.high, "Risk", [(zone.high, zone.grade) for zone in told.zones] or None
        )
        st.plotly_chart(gauge, key=f"{key}-gauge", alt=tables.risk_of(told.verdict), config=browse.BARE)
    failing = [light for light in told.lights if light.state == "alarm"]
    if failing:
        style.lights(failing)


def _tested(first: Side, second: Side) -> None:
    """The paired test, where a sweep made one of these two; else that there is none."""
    for sweep in read.sweeps(first.directory).values() if first.directory == second.directory else ():
        if sweep.metrics is None:
            continue
        by_audit = {variant["audit"]: variant for variant in sweep.metrics["variants"]}
        if first.name in by_audit and second.name in by_audit:
            _of_sweep(sweep.metrics, by_audit[first.name], by_audit[second.name])
            return
    st.text(NO_TEST)


def _of_sweep(sweep: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    tested = [variant for variant in (first, second) if variant["label"] != sweep["baseline"] and variant["against"]]
    st.text(
        f"Both are variants of the sweep {sweep['sweep']}, tested in pairs on the same records against {sweep['baseline']} (p corrected for all its variants, Holm):"
    )
    st.dataframe(
        pd.DataFrame([_against(variant, sweep["baseline"]) for variant in tested]),
        hide_index=True,
        alt="Paired tests against the baseline of the sweep",
    )
    if sweep["baseline"] not in (first["label"], second["label"]):
        st.text(f"They were tested against {sweep['baseline']}, not against each other.")


def _against(variant: dict[str, Any], baseline: str) -> dict[str, str]:
    """The differences from the baseline, with their intervals and corrected p-values."""
    found = {"difference": f"{variant['label']} less {baseline}"}
    for key, name, say in (("auc", "AUC", variants.change), ("tpr", "TPR at FPR 1 %", variants.points), ("utility", "accuracy", variants.points)):
        difference = variant["against"].get(key)
        found[name] = words.typeset(say(difference))
        found[f"{name}, p"] = variants.p_value(difference["p_holm"]) if difference else "n/a"
    return found


def _attacks(first: Side, second: Side) -> None:
    common = [name for name in first.metrics["attacks"] if name in second.metrics["attacks"]]
    if not common:
        st.text("No attack has the same name in both.")
    elif "pairs" in (first.metrics["kind"], second.metrics["kind"]) and first.metrics["kind"] != second.metrics["kind"]:
        st.text("An audit of pairs is about a few records, the other about the average one; their rates cannot be compared.")
        return
    else:
        browse.table(pd.DataFrame([_side_by_side(name, first, second) for name in common]), "common-attacks")
    curves = [_curve(side) for side in (first, second)]
    known = [one for one in curves if one is not None]
    if known and "pairs" not in (first.metrics["kind"], second.metrics["kind"]):
        aucs = {f"{side.label}: {side.metrics['headline']}": side.metrics["attacks"][side.metrics["headline"]]["auc"] for side in (first, second)}
        browse.roc(pd.concat(known), aucs, next(iter(aucs)), "both")


def _side_by_side(attack: str, first: Side, second: Side) -> dict[str, str]:
    """An attack in both audits, with its interval in each, and the difference of the two values."""
    row, found = {"attack": attack}, [side.metrics["attacks"][attack] for side in (first, second)]
    if first.metrics["kind"] == "pairs":
        return row | {f"TPR, {side.label}": words.rate(one.get("tpr")) for side, one in zip((first, second), found, strict=True)}
    row |= {f"AUC, {side.label}": words.estimate(one["auc"]) for side, one in zip((first, second), found, strict=True)}
    row["AUC, second less first"] = words.typeset(variants.signed(found[1]["auc"]["value"] - found[0]["auc"]["value"], 3))
    rates = [pool.rate(one, 0.01) for one in found]
    return row | {f"TPR at FPR 1 %, {side.label}": pool.interval(one) for side, one in zip((first, second), rates, strict=True)}


def _curve(side: Side) -> pd.DataFrame | None:
    """The ROC of the headline attack."""
    curves = read.table(side.directory / f"results/audits/{side.name}/roc.parquet", browse.CURVES)
    if curves is None:
        return None
    return curves[curves["subject"] == side.metrics["headline"]].assign(subject=f"{side.label}: {side.metrics['headline']}")


def _differences(first: Side, second: Side) -> None:
    """Where the declarations of the two differ, by the names of params.yaml; without that file, by what the metrics note."""
    declared = [_declared(side) for side in (first, second)]
    rows = [
        {"what": key, first.label: declared[0].get(key, ""), second.label: declared[1].get(key, "")}
        for key in dict.fromkeys([*declared[0], *declared[1]])
        if declared[0].get(key) != declared[1].get(key)
    ]
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True, alt="What differs between the two audits")
    else:
        st.text("Nothing that was declared differs.")


def _declared(side: Side) -> dict[str, str]:
    known = read.params_of(side.directory, side.name)
    noted = {key: side.metrics.get(key) for key in ("kind", "headline", "alpha", "seed", "recipe", "design")}
    noted |= {"data": side.metrics["data"]["name"], "models": side.metrics["models"]["n"]}
    return _flat(noted | ({key: known[key] for key in ("recipe", "dataset")} | {"audit": known["entry"]} if known else {}))


def _flat(entry: Any, inside: str = "") -> dict[str, str]:
    """Nested entries by their path: `recipe.epochs`."""
    if not isinstance(entry, dict):
        return {inside: str(entry)}
    found: dict[str, str] = {}
    for key, value in entry.items():
        found |= _flat(value, f"{inside}.{key}" if inside else str(key))
    return found
