"""Anybody's scores: drop a table of them and see what an attacker with such scores could tell."""

from __future__ import annotations

import io
import json
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from memleak.app import browse, style, uploads
from memleak.app.uploads import UploadError

_ONE_AT_A_TIME = threading.Lock()  # matplotlib draws for one session after the other
COLUMNS = ("score", "is_member", "target_id", "sample_id")
INTRO = (
    "Scores of an attack of your own, whatever made them. The table has a column `score` (higher: rather a member) and a column `is_member`; with `target_id` and "
    "`sample_id`, where one model or one record has several scores, the intervals know that they depend on each other."
)


def page() -> None:
    """The upload, and what was measured of it."""
    st.title("Scores")
    st.write(INTRO)
    upload = st.file_uploader("A table of scores", type=["parquet", "csv", "tsv"], key="scores-upload", max_upload_size=uploads.largest_mb())
    if upload is None:
        return
    try:
        with st.spinner("Measuring, with 95 % intervals ..."):
            files = measured(upload.getvalue(), upload.name)
    except UploadError as error:
        st.error(style.plain(error))
        return
    show(files, Path(upload.name).stem)


@st.cache_data(max_entries=4, show_spinner=False)
def measured(content: bytes, name: str) -> dict[str, bytes]:
    """metrics.json, roc.csv and report.html of a table, as `memleak stats` writes them, by name."""
    from memleak.metrics.stats import ScoresError
    from memleak.report import stage

    kind = uploads.kind_of(content, name)
    kept = uploads.narrowed(content, name, COLUMNS, uploads.MOST_SCORES) if kind == "parquet" else content
    with tempfile.TemporaryDirectory(prefix="memleak-app-") as folder:
        source, output = Path(folder) / f"scores.{kind}", Path(folder) / "measured"
        source.write_bytes(kept)
        try:
            with _ONE_AT_A_TIME:
                stage.stats(source, output, Path(name).stem)
        except ScoresError as error:
            raise UploadError(str(error).replace(str(source), name)) from None
        return {file: (output / file).read_bytes() for file in ("metrics.json", "roc.csv", "report.html")}


def show(files: Mapping[str, bytes], name: str) -> None:
    """What was measured: warnings, table, curves and files."""
    metrics = json.loads(files["metrics.json"])
    for warning in metrics["warnings"]:
        st.warning(style.plain(warning), icon=":material/warning:")
    left, right = st.columns(2)
    left.metric(
        "AUC",
        f"{metrics['auc']['value']:.3f}",
        f"95 % interval {metrics['auc']['low']:.3f} to {metrics['auc']['high']:.3f}",
        delta_color="off",
        delta_arrow="off",
    )
    best = max((rate for rate in metrics["rates"] if rate["certified"]), key=lambda rate: -rate["at_fpr"], default=None)
    if best is not None:
        right.metric(
            f"Members found at a false-positive rate of {100 * best['at_fpr']:g} %", f"{100 * best['value']:.1f} %",
            f"95 % interval {100 * best['low']:.1f} to {100 * best['high']:.1f}", delta_color="off", delta_arrow="off",
        )  # fmt: skip
    st.caption(style.plain(metrics["dependence"]))
    browse.roc(pd.read_csv(io.BytesIO(files["roc.csv"])).assign(subject=name), {name: metrics["auc"]}, name, "scores")
    browse.table(table(metrics), "measured")
    with st.container(horizontal=True):
        for file_name, mime in (("report.html", "text/html"), ("metrics.json", "application/json"), ("roc.csv", "text/csv")):
            st.download_button(
                style.plain(file_name), files[file_name], file_name, mime, key=f"scores-{file_name}", on_click="ignore", icon=":material/download:"
            )


def table(metrics: dict[str, Any]) -> pd.DataFrame:
    """What was measured, its value with interval, and what it rests on."""
    from memleak.report import page as pages

    return pd.DataFrame(pages.stats_table(metrics), columns=["measure", "value, 95 % interval", "rests on"])
