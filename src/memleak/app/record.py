"""One record in full: in how many of the models that trained on it it was recognised, and what models with and without it say of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from plotly import graph_objects as go

from memleak.app import figures, read, style
from memleak.attacks import pools
from memleak.metrics import intervals
from memleak.report import pool, words

N_LISTED = 100  # most exposed records that are offered by name
EXPOSURE = ("sample_id", "source_id", "label", "n_holding", "n_detected", "rate", "low", "high", "n_others", "n_false_alarms", "p", "bh")
PIXELS = 224  # across, of a small picture
NEEDS = "Records are told apart where several models were trained with and without each of them: designs halves, canaries (of records) and pairs."


def page() -> None:
    """Which audit, which record, and what is known of it."""
    st.title("Records")
    directory = read.folder()
    audits = {found.name: found.metrics for found in read.audits(directory) if found.metrics is not None}
    if not audits:
        st.info("No finished audit here yet. Its records are shown once it is; see Audits.")
        return
    audit = st.selectbox("Audit", list(audits), key="audit", bind="query-params", persist_state="session")
    metrics = audits[audit]
    with read.told(audit):
        if metrics["kind"] == "pairs":
            _target(directory, audit, metrics)
        else:
            _one_of_pool(directory, audit, metrics)


def _target(directory: Path, audit: str, metrics: dict[str, Any]) -> None:
    """A record of a `pairs` audit: its tests, its values in the hold-out rounds, and its sheet."""
    name = st.selectbox("Record", list(metrics["targets"]), key="record", bind="query-params")
    known, place = metrics["targets"][name], directory / "results/audits" / audit
    share = {"value": known.get("exposure"), "low": known.get("exposure_low"), "high": known.get("exposure_high")}
    _measured([
        ("Finding", known["state"], f"{'a planted' if known['is_canary'] else 'a natural'} record, chosen as {known['kind']}"),
        ("Recognised in", pool.interval(share) if share["value"] is not None else "n/a", "of the hold-out models that trained on it, by the headline attack"),
        ("p", words.p(known["p_holm"]), "of the paired test, corrected for the number of records (Holm)"),
        ("AUC", words.estimate(known["auc"]), "over all rounds"),
    ])  # fmt: skip
    decided = read.rows_of(place / "decisions.parquet", ("value", "says_member", "is_member"), target=name, attack=metrics["headline"])
    if decided is not None and len(decided):
        _strip(decided.rename(columns={"value": "score"}), f"{metrics['attacks'][metrics['headline']]['statistic']} of the hold-out models")
    sheet = read.drawing(place / "figures", name)
    if sheet is not None:
        with st.expander("The sheet of this record: fitting rounds, ROC, precision and recall"):
            st.image(sheet, width="stretch", alt=f"Histogram, ROC and precision of {name}")
    _what_it_is(directory, audit, known["source_id"], metrics)


def _one_of_pool(directory: Path, audit: str, metrics: dict[str, Any]) -> None:
    place = directory / "results/audits" / audit
    listed = read.first_rows(place / "exposure.parquet", N_LISTED)
    if listed is None or listed.empty:
        st.info(NEEDS)
        return
    sample_id = _chosen(listed, metrics)
    known = None if sample_id is None else read.rows_of(place / "exposure.parquet", EXPOSURE, sample_id=sample_id)
    if sample_id is None or known is None or known.empty:
        st.warning(
            f"No such record: this audit is of {metrics['n_samples']:,} records; the most exposed are in the list, any other is found by its number."
        )
        return
    row = known.iloc[0].to_dict()
    label = pool.class_name(int(row["label"]), metrics["data"]["class_names"])
    share = {"value": row["rate"], "low": row["low"], "high": row["high"]}
    _measured([
        ("Recognised in", pool.interval(share), f"{row['n_detected']:,} of the {row['n_holding']:,} models that trained on it"),
        ("False alarms", pool.interval(_share_of(row["n_false_alarms"], row["n_others"])), f"{row['n_false_alarms']:,} of the {row['n_others']:,} models that did not; set for {pool.level(metrics['alpha'])}"),
        ("p", words.p(row["p"]), "beyond chance, all records considered" if row["bh"] else "NOT beyond chance, all records considered"),
        ("Class", label, f"record {sample_id} of the data set" if row["source_id"] == sample_id else f"made from record {row['source_id']:,}"),
    ])  # fmt: skip
    _scores(place, metrics, sample_id)
    _margins(directory, audit, sample_id)
    _what_it_is(directory, audit, int(row["source_id"]), metrics)


def _share_of(k: int, n: int) -> dict[str, Any] | None:
    """A share with its 95 % interval (Clopper-Pearson), as for the models that trained on it."""
    if not n:
        return None
    low, high = intervals.clopper_pearson(k, n)
    return {"value": k / n, "low": low, "high": high}


def _chosen(listed: pd.DataFrame, metrics: dict[str, Any]) -> int | None:
    """The id that was chosen from the most exposed, or typed; None for what is no number."""
    says = {
        str(row.sample_id): f"{row.sample_id} (in {row.n_detected} of {row.n_holding} models)" for row in listed.itertuples(index=False)
    }  # fmt: skip
    given = st.selectbox(
        "Record", list(says), format_func=lambda name: says.get(name, name), key="record", bind="query-params", accept_new_options=True,
        filter_mode="contains", help="The most exposed first. Any other: type its number.",
    )  # fmt: skip
    return int(given) if given is not None and given.isdecimal() and len(given) < 19 else None


def _measured(found: Sequence[tuple[str, str, str]]) -> None:
    """What was measured: a name, a number with its interval, and what it is of."""
    st.html(style.html_of(
        '<div class="numbers">{% for name, value, of in found %}<div><span class="faint">{{ name }}</span><b>{{ value }}</b><span class="faint">{{ of }}</span></div>{% endfor %}</div>',
        found=found,
    ))  # fmt: skip


def _scores(place: Path, metrics: dict[str, Any], sample_id: int) -> None:
    """What an attack concludes of the record in every model."""
    st.subheader("What the attack concludes", anchor=False)
    names = list(metrics["attacks"])
    attack = st.selectbox("Attack", names, index=names.index(metrics["headline"]), help="The headline was declared beforehand.")
    decided = read.rows_of(place / "decisions.parquet", ("score", "says_member", "is_member"), sample_id=sample_id, attack=attack)
    if decided is None or decided.empty:
        st.text("No decision about this record: no threshold could be set, or the file is not there.")
        return
    _strip(decided, f"score of {attack}")


def _margins(directory: Path, audit: str, sample_id: int) -> None:
    """How sure every model is of the record, with and without it in training."""
    st.subheader("How sure models are of it", anchor=False)
    answers = [
        rows for path in read.signals_of(directory, audit) if (rows := read.rows_of(path, ("model_id", "margin"), sample_id=sample_id)) is not None
    ]
    if not answers or not sum(map(len, answers)):
        st.text("The answers of the models (results/signals) are not here, or hold no margin.")
        return
    margin = pd.concat(answers).astype({"model_id": str}).groupby("model_id")["margin"].mean()  # over the views
    models = pools.read_models(directory / f"results/audits/{audit}/plan.parquet", np.array([sample_id]))
    truth = dict(zip(models.model_id.tolist(), models.is_member[:, 0].tolist(), strict=True))
    table = pd.DataFrame({"score": margin, "is_member": [truth.get(name, False) for name in margin.index]})
    _strip(table, "margin (nats): how much likelier the right answer is than all others together")


def _strip(table: pd.DataFrame, axis: str) -> None:
    """A point a model, those that trained on the record above the others; crossed out where the decision was wrong."""
    figure = go.Figure()
    for height, (is_member, name, colour, symbol) in enumerate(
        ((False, "without it", figures.OUT, "circle"), (True, "with it", figures.IN, "diamond"))
    ):
        own = table[table["is_member"] == is_member].sort_values("score")
        spread = 0.28 * np.sin(2.4 * np.arange(len(own)))  # so that equal values do not hide each other
        judged = own.get("says_member", pd.Series(is_member, index=own.index))
        said = [f"{score:.4g}" + ("" if says == is_member else ", decided wrongly") for score, says in zip(own["score"], judged, strict=True)]
        figure.add_scatter(
            x=own["score"], y=height + spread, mode="markers", name=f"{name} ({len(own)})", hovertext=said, hoverinfo="text",
            marker={"color": colour, "symbol": [symbol if says == is_member else "x-thin" for says in judged], "size": 9, "opacity": 0.8, "line": {"color": colour, "width": 1.5}},
        )  # fmt: skip
    figure.update_yaxes(
        tickvals=[0, 1], ticktext=["trained without it", "trained with it"], range=[-0.5, 1.5], automargin=True, zeroline=False, showgrid=False
    )
    figure.update_xaxes(title=axis, zeroline=False, automargin=True)
    figure.update_layout(height=250, margin={"l": 8, "r": 8, "t": 8, "b": 8}, showlegend=False, dragmode=False)
    inside, outside = (table.loc[table["is_member"] == arm, "score"] for arm in (True, False))
    told = words.typeset(
        f"{axis}: median {inside.median():.3g} in {len(inside)} models with the record, {outside.median():.3g} in {len(outside)} without"
    )
    st.plotly_chart(figure, key=f"strip-{axis}", alt=told, config={"displaylogo": False, "displayModeBar": False})
    crossed = " A cross: the decision about that model was wrong." if "says_member" in table else ""
    st.caption(style.plain(f"A point a model. {told[0].upper()}{told[1:]}.{crossed}"))


def _what_it_is(directory: Path, audit: str, source_id: int, metrics: dict[str, Any]) -> None:
    """The record itself: at once where params.yaml allows that, else only when somebody asks for it."""
    st.subheader("The record itself", anchor=False)
    if pool.has_gradients(metrics):
        st.text("A gradient of its own, of no record.")
        return
    asked = (str(directory), audit, source_id)
    if not read.shows_records(directory, audit) and st.session_state.get("shown") != asked:
        st.text("A report about leakage should not leak: records are not shown unless the audit says include_records: true.")
        st.button("Show the record on this screen", on_click=st.session_state.update, kwargs={"shown": asked}, icon=":material/visibility:")
        return
    record = read.record(directory, audit, source_id)
    if record is None:
        st.text("The prepared data (data/prepared) is not here, or is of another params.yaml.")
    elif isinstance(record, str):
        st.code(record, language=None, wrap_lines=True)
    elif record.ndim == 3:
        factor = max(1, PIXELS // max(record.shape[:2]))
        large = record.repeat(factor, axis=0).repeat(factor, axis=1)
        st.image(large[..., 0] if large.shape[2] == 1 else large, alt=f"Picture of record {source_id}")
    else:
        st.dataframe(pd.DataFrame({"feature": range(len(record)), "value": record}), hide_index=True, alt="Features of the record")
