"""The audits of a project: a row each, and one of them in full."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from memleak import artefacts
from memleak.app import figures, read, style, tables
from memleak.report import front, recommendations, variants, words
from memleak.report.results import Found

CURVES = ("subject", "fpr", "tpr", "low", "high", "certified")
FILES = {  # what an audit leaves behind: how it is called here, and its type
    "report.html": "text/html", "report.pdf": "application/pdf", "report.txt": "text/plain", "frontier.html": "text/html", "frontier.json": "application/json",
    "frontier.csv": "text/csv", "exposed.csv": "text/csv", "timings.csv": "text/csv",
}  # fmt: skip
BARE: dict[str, Any] = {"displaylogo": False, "displayModeBar": False}  # no buttons over a drawing that needs none
EMPTY = """No audit here yet. An audit is declared in `params.yaml` and made by one command; it then stands on this page.

```
memleak init            # writes params.yaml and what else a project needs
snakemake --cores all   # trains, attacks, measures, reports
```

A model that is there already can be tested at once, under *Test a model*; scores of your own under *Scores*."""


def page() -> None:
    """All audits, and the one that is chosen."""
    st.title("Audits")
    directory = read.folder()
    audits, sweeps = read.audits(directory), read.sweeps(directory)
    if problem := read.problem(directory):
        st.info(style.plain(f"Only what lies here is shown, not what should: {problem}"))
    if not audits and not sweeps:
        st.info(EMPTY)
        return
    names = [*(found.name for found in audits), *sweeps]
    if len(names) > 1:
        rows = tables.overview(audits, sweeps)
        _overview(rows.assign(lacks=[_below(said, directory) for said in rows["lacks"]]))
    chosen = st.selectbox("Show", names, key="audit", bind="query-params", persist_state="session")
    with read.told(chosen):
        if chosen in sweeps:
            _sweep(directory, sweeps[chosen])
        else:
            _audit(directory, next(found for found in audits if found.name == chosen))


def _overview(rows: pd.DataFrame) -> None:
    """The list; who selects a row sees that audit below."""

    def choose() -> None:
        selected = st.session_state["overview"].selection.rows
        if selected:
            st.session_state["audit"] = rows["name"].iloc[selected[0]]

    shown = rows if rows["lacks"].any() else rows.drop(columns="lacks")
    columns = {
        "risk": st.column_config.ProgressColumn("risk", min_value=0, max_value=100, format="%.0f", color="#8a929c", width="small"),
        "says": st.column_config.TextColumn("what it says", width="large"), "lacks": st.column_config.TextColumn("what is missing", width="medium"),
    }  # fmt: skip
    st.dataframe(
        shown, hide_index=True, key="overview", on_select=choose, selection_mode="single-row", column_config=columns, placeholder="", alt="All audits with verdict and risk",
    )  # fmt: skip


def _audit(directory: Path, found: Found) -> None:
    st.header(style.plain(found.name), anchor=False)
    if found.problem:
        st.warning(style.plain(_below(found.problem, directory)), icon=":material/warning:")
    elif found.metrics is not None and tables.lack_of(found):
        st.info(style.plain(f"Not all of it is there: {found.missing}."))
    if found.metrics is None:
        _unfinished(found)
        return
    metrics, place = found.metrics, directory / "results/audits" / found.name
    params = read.params_of(directory, found.name)
    first_screen(front.of(metrics, params, read.csv(place / "timings.csv")))
    curves = read.table(place / "roc.parquet", CURVES)
    attacks, records, training, advice, files = st.tabs(["Attacks", "Records and classes", "Training", "What to do", "Files"])
    with attacks:
        _attacks(metrics, curves)
    with records:
        _records(metrics)
    with training:
        _training(metrics["models"])
    with advice:
        style.actions(recommendations.of(metrics, params))
    with files:
        _files(place, directory / f"results/metrics/{found.name}.json", found.name)


def first_screen(found: front.Front, key: str = "risk") -> None:
    """The verdict, the gauge where there is a risk, the facts, and the controls."""
    told = found.verdict
    style.verdict(told.state, told.sentence, found.grade, tables.risk_of(told), found.alarms)
    left, right = st.columns([3, 2], gap="large") if told.risk is not None else (st.container(), st.container())
    with left:
        style.facts(found.facts)
    with right:
        if told.risk is not None:
            bands = [(zone.high, zone.grade) for zone in found.zones] or None
            st.plotly_chart(figures.gauge(told.risk, told.low, told.high, "Risk", bands), key=f"{key}-gauge", alt=tables.risk_of(told), config=BARE)
    st.subheader("Can these numbers be believed?", anchor=False)
    style.lights(found.lights)
    if found.notes:
        with st.expander("What else is to be known"):
            style.notes(found.notes)


def _below(sentence: str, directory: Path) -> str:
    """A sentence in which paths begin at the project's folder."""
    return sentence.replace(f"{directory}/", "")


def _unfinished(found: Found) -> None:
    """How far each stage is; the command goes on where it stopped."""
    if found.problem is None:
        st.info("This audit is not finished.")
        st.code("snakemake --cores all", language="bash")
    for stage in found.stages:
        st.progress(stage.done / max(stage.total, 1), text=style.plain(f"{stage.name}: {stage.done:,} of {stage.total:,}"))


def _attacks(metrics: dict[str, Any], curves: pd.DataFrame | None) -> None:
    if curves is None:
        st.info("roc.parquet is not there, so no curve can be drawn.")
    else:
        aucs, headline = subjects(metrics)
        roc(curves[curves["subject"].isin(aucs)], aucs, headline, "audit")
    st.subheader("Attacks side by side", anchor=False)
    table(tables.attacks(metrics), "attacks")
    if metrics["kind"] == "pairs":
        return
    st.caption("Thresholds of the TPRs are chosen on these scores, so they are optimistic; the verdict reads a threshold that was set elsewhere.")
    if len(metrics["attacks"]) > 1:
        st.plotly_chart(
            figures.heatmap(*tables.cells(metrics), title="True-positive rate of each attack", limits=(0, 1)), key="attacks-heat", config=BARE,
            alt="The same true-positive rates as in the table, darker is more",
        )  # fmt: skip


def roc(curves: pd.DataFrame, aucs: Mapping[str, Any], headline: str, key: str) -> None:
    """The curves on logarithmic and on linear axes."""
    said = f"True-positive over false-positive rate of {words.counted(len(aucs), 'curve')}; AUC {words.estimate(aucs[headline])}"
    for tab, log in zip(st.tabs(["Logarithmic", "Linear"]), (True, False), strict=True):
        tab.plotly_chart(figures.roc(curves, aucs, headline, log), key=f"{key}-roc-{log}", alt=said, config={"displaylogo": False})
    st.caption("Left is what counts: how many members are found while hardly anybody is wrongly accused. The dotted line is guessing.")


def subjects(metrics: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The AUC of each curve, and the curve in front: the headline attack's, or that of the record with the highest AUC."""
    if metrics["kind"] == "pairs":
        aucs = {name: one["auc"] for name, one in metrics["targets"].items()}
        return aucs, max(aucs, key=lambda name: aucs[name]["value"])
    return {name: one["auc"] for name, one in metrics["attacks"].items()}, metrics["headline"]


def _records(metrics: dict[str, Any]) -> None:
    found = tables.targets(metrics) if metrics["kind"] == "pairs" else tables.exposed(metrics)
    st.subheader("Audited records" if metrics["kind"] == "pairs" else "Most exposed records", anchor=False)
    if found.empty:
        st.text(
            "No record is recognised in more models than others, or this design cannot tell: it takes several models with and without each record."
        )
    else:
        table(found, "records")
        st.caption("One of them in full, in the models with and without it: under Records.")
    rows = [] if metrics["kind"] == "pairs" else tables.classes(metrics)
    if rows:
        st.plotly_chart(
            figures.intervals(rows, "The headline attack within each class"), key="classes", alt="AUC of each class with its interval", config=BARE
        )


def _training(models: dict[str, Any]) -> None:
    known = tables.training(models)
    if known is None:
        st.text("No curve of the training is known.")
    else:
        for tab, column in zip(st.columns(2), known.columns[1:], strict=True):
            tab.line_chart(known, x="epoch", y=column, height=260, alt=f"{column} by epoch, mean of {models['n']} models")
    gap = models.get("generalisation_gap")
    if gap is not None:
        st.text(
            f"Right in training less right on others: {variants.signed(100 * gap, 1)} points (mean of {tables.words.counted(models['n'], 'model')})."
        )
    table(tables.accuracies(models), "accuracies")


def table(found: pd.DataFrame, key: str) -> None:
    """A table, and the same as CSV; what a spreadsheet would take for a formula is text there."""
    st.dataframe(found, hide_index=True, key=key, alt=f"Table of {key}")
    st.download_button(
        "CSV", artefacts.csv_text(found), f"{key}.csv", "text/csv", key=f"{key}-csv", on_click="ignore", type="tertiary", icon=":material/download:"
    )


def _sweep(directory: Path, found: Found) -> None:
    """A sweep: what was found of its defences, and the frontier."""
    st.header(style.plain(found.name), anchor=False)
    if found.problem:
        st.warning(style.plain(_below(found.problem, directory)), icon=":material/warning:")
    sweep = found.metrics
    if sweep is None:
        _unfinished(found)
        return
    first_screen(front.of_sweep(sweep), "sweep")
    compared, advice, files = st.tabs(["Variants", "What to do", "Files"])
    with compared:
        st.plotly_chart(
            figures.frontier(sweep), key="frontier", alt="Accuracy of every variant over the headline attack's AUC", config={"displaylogo": False}
        )
        table(tables.variants_of(sweep), "variants")
    with advice:
        style.actions(recommendations.of_sweep(sweep))
    with files:
        _files(directory / "results/audits" / found.name, None, found.name)


def _files(place: Path, metrics: Path | None, name: str) -> None:
    """What can be taken away, and the page of the audit as it is."""
    paths = {**({"metrics.json": metrics} if metrics else {}), **{file: place / file for file in FILES}}
    there = {file: path for file, path in paths.items() if read.is_there(path)}
    with st.container(horizontal=True):
        for file, path in there.items():
            mime = FILES.get(file, "application/json")
            st.download_button(
                style.plain(file), path.read_bytes, f"{name}-{file}", mime, key=f"file-{file}", on_click="ignore", icon=":material/download:"
            )
    page_path = there.get("report.html") or there.get("frontier.html")
    if page_path is None:
        st.text("The page is not there yet.")
    elif st.toggle("Show the page here", key="preview"):
        # as data, so that a page which somebody else made cannot reach the app
        page_data = base64.b64encode(page_path.read_bytes()).decode("ascii")
        st.iframe(f"data:text/html;charset=utf-8;base64,{page_data}", height=900, alt="The page of this audit")
