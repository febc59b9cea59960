"""Test a model: name it, bring texts that it was trained on and others, and see whether the one can be told from the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from memleak.app import browse, figures, read, style, uploads
from memleak.app.job import Job, n_running
from memleak.app.uploads import Upload, UploadError
from memleak.report import front, pool, tester_rules, words

JOB, KINDS = "job", ["parquet", "csv", "tsv", "jsonl", "json", "txt"]
MOST_AT_ONCE = 2  # tests of all sessions together: each holds a model in memory
SIDES = {"train": ("trained on", "Texts that it was trained on"), "test": ("not trained on", "Texts that it was not trained on")}
EFFORTS = {"quick": "quick: one pass over the texts", "standard": "standard: all that needs no training", "thorough": "thorough: gradients as well"}
INTRO = (
    "Can somebody tell which texts a language model was trained on? Name a model, and bring some hundred texts that it was trained on and as many "
    "of the same kind that it was not. It is asked about all of them on this machine, and no text leaves it."
)
SAME_KIND = "Draw both lists at random from one source: what tells them apart by date, topic or length is found without any leak."
WITH_REFERENCE = (
    "A model that has not seen the training texts, such as the one that was fine-tuned; `base` looks it up. With one, attacks tell far more."
)
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


def page() -> None:
    """What is to be tested, how far the test is, and what it found."""
    st.title("Test a model")
    job: Job | None = st.session_state.get(JOB)
    with st.expander("What is tested", expanded=job is None, icon=":material/science:"):
        _form(job)
    if job is None:
        return
    if job.is_running:
        _watch()
    elif job.problem is not None:
        (st.info if job.is_cancelled else st.error)(style.plain(job.problem))
    else:
        _found(job)


def _form(job: Job | None) -> None:
    st.write(INTRO)
    left, right = st.columns(2)
    model = left.text_input("Model", key="model", placeholder="a folder, or owner/name on the Hugging Face hub")
    reference = right.text_input("Reference model (optional)", key="reference", placeholder="a folder, a name, or base", help=WITH_REFERENCE)
    given, places = {}, {}
    for column, (side, (_, label)) in zip(st.columns(2), SIDES.items(), strict=True):
        with column:
            upload = st.file_uploader(label, type=KINDS, key=f"{side}-upload", max_upload_size=uploads.largest_mb())
            named = st.text_input("or a file on this machine", key=f"{side}-file", placeholder="a path")
            given[side], places[side] = (upload, named), st.container()
    st.caption(SAME_KIND)
    with st.expander("Options"):
        chosen = _options()
    brought = {}
    for side, (upload, named) in given.items():
        with places[side]:
            brought[side] = _looked_at(side, upload, named, chosen["column"])
    is_running = job is not None and job.is_running
    if st.button("Run the test", type="primary", disabled=is_running, icon=":material/play_arrow:"):
        try:
            _start(model, reference, brought, chosen)
        except UploadError as error:
            st.error(style.plain(error))
            return
        st.rerun()


def _options() -> dict[str, Any]:
    left, right = st.columns(2)
    return {
        "column": left.text_input("Column that holds the texts", "text", key="column", help="Labels of classes stand in the column `label`, names in `id`."),
        "max_length": right.number_input("Tokens that are read of a text", 2, 32768, 256, key="max-length"),
        "effort": left.selectbox("Effort", list(EFFORTS), 1, format_func=EFFORTS.__getitem__, key="effort"),
        "device": right.selectbox("Device", ["auto", "cpu", "cuda"], key="device"),
        "attacks": left.text_input("Attacks (empty: all that fit)", key="attacks", placeholder="such as: min-k zlib"),
        "offline": right.toggle("Look for models on this machine only", key="offline"),
    }  # fmt: skip


def _looked_at(side: str, upload: Any, named: str, column: str) -> Upload | UploadError | None:
    """A list of texts with what it begins with; None where there is none yet. A file that was looked at is not looked at again."""
    if upload is None and not named.strip():
        return None
    key, seen = (side, upload.file_id if upload is not None else named, column), f"{side}-seen"
    if st.session_state.get(seen, (None,))[0] != key:
        try:
            path = None if upload is not None else uploads.file_of(named, SIDES[side][1], read.root(), st.get_option("server.address"))
            content, name = (upload.getvalue(), upload.name) if path is None else (path.read_bytes(), path.name)
            st.session_state[seen] = (key, uploads.texts(content, name, column))
        except UploadError as error:
            st.session_state[seen] = (key, error)
    found = st.session_state[seen][1]
    if isinstance(found, UploadError):
        st.error(style.plain(found))
    else:
        st.text(f"{words.counted(found.n, 'text')}, beginning with")
        st.code("\n".join(found.first), language=None, wrap_lines=True)
    return found


def _start(model: str, reference: str, brought: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Check all that was asked for, and begin."""
    root, address = read.root(), st.get_option("server.address")
    arguments = [f"--model={uploads.model_of(model, 'Model', root, address)}"]
    if reference.strip():
        known = "base" if reference.strip() == "base" else uploads.model_of(reference, "Reference model", root, address)
        arguments.append(f"--reference={known}")
    files = {}
    for side, (_, label) in SIDES.items():
        found = brought[side]
        if not isinstance(found, Upload):
            raise found or UploadError(f"{label}: bring a file of them")
        name = f"{side}-texts.{found.kind}"
        files[name] = found.content
        arguments.append(f"--{side}={name}")
    arguments += [f"--{name}={chosen[key]}" for name, key in (("column", "column"), ("max-length", "max_length"), ("effort", "effort"), ("device", "device"))]  # fmt: skip
    attacks = re.split(r"[\s,]+", chosen["attacks"].strip()) if chosen["attacks"].strip() else []
    if strange := [name for name in attacks if not _WORD.fullmatch(name)]:
        raise UploadError(f"Attacks: '{strange[0]}' is no name of an attack; write names with a blank between them, such as min-k zlib")
    if n_running() >= MOST_AT_ONCE:
        raise UploadError(f"{MOST_AT_ONCE} tests are running on this machine already; wait until one has ended")
    if old := st.session_state.pop(JOB, None):
        old.forget()
    arguments += [*(["--offline"] if chosen["offline"] else []), *(["--attacks", *attacks] if attacks else [])]
    st.session_state[JOB] = Job(arguments, files)


@st.fragment(run_every=1.0)
def _watch() -> None:
    """How far the test is; looked at every second, without the rest of the page."""
    job: Job | None = st.session_state.get(JOB)
    if job is None or not job.is_running:
        st.rerun()
        return
    now = job.progress
    st.progress(min(max(now.share, 0.0), 1.0), text=f"{style.plain(now.words)} · {words.duration(job.seconds)}")
    if now.line:
        st.text(now.line[:200])
    if st.button("Cancel", icon=":material/close:"):
        job.cancel()
        st.rerun()


# -- what was found --------------------------------------------------------------------------------------------------


def _found(job: Job) -> None:
    found, frames = job.result.found, job.result.frames
    browse.first_screen(front.of_tester(found), "tested")
    attacks, texts, advice, files = st.tabs(["Attacks", "Texts", "What to do", "Files"])
    with attacks:
        _attacks(found, job.result.curves, frames)
    with texts:
        _texts(found, frames)
    with advice:
        style.actions(tester_rules.of(found))
    with files:
        _files(job)


def _attacks(found: dict[str, Any], curves: pd.DataFrame, frames: pd.DataFrame) -> None:
    aucs = {name: one["auc"] for name, one in found["attacks"].items() if one["auc"]}
    browse.roc(curves, {name: aucs[name] for name in curves["subject"].unique() if name in aucs}, found["headline"], "tested")
    browse.table(attack_table(found), "attacks")
    st.plotly_chart(
        figures.heatmap(*cells(frames), title="Mean P(member) by attack", limits=(0, 1)), key="tested-heat", config=browse.BARE,
        alt="Mean probability of membership of both lists, by attack: an attack that tells nothing says one half of both",
    )  # fmt: skip
    st.caption("An attack that tells nothing says 50 % of both lists. Intervals are of the mean over these texts.")


def attack_table(found: dict[str, Any]) -> pd.DataFrame:
    """One row an attack, the highest AUC first; of one without a score why."""
    rows = [
        {
            "attack": f"{name} (headline)" if name == found["headline"] else name, "AUC": words.estimate(one["auc"]),
            **{f"TPR at FPR {level}": _rate(one[key]) for level, key in (("1 %", "tpr_1"), ("10 %", "tpr_10"))}, "remark": one["why"] or ("the auditor's" if one["is_auditors"] else ""),
        }
        for name, one in sorted(found["attacks"].items(), key=lambda item: -item[1]["auc"]["value"] if item[1]["auc"] else 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _rate(found: dict[str, Any] | None) -> str:
    return "n/a" if not found else pool.interval(found) + ("" if found["certified"] else ", cannot certify")


def cells(frames: pd.DataFrame) -> tuple[list[list[float | None]], list[str], list[str], list[list[str]]]:
    """Mean P(member) of each attack and list, with 1.96 standard errors: values, rows, columns and texts of a heatmap."""
    known = frames[frames["membership_prob"].notna()]
    means = known.groupby(["attack", "split"], sort=False)["membership_prob"].agg(["mean", "sem"])
    names = list(dict.fromkeys(known["attack"]))
    found = [[_mean(means, name, split) for split in SIDES] for name in names]
    texts = [[pool.interval(one).replace(" [", "\n[") for one in row] for row in found]
    return [[one["value"] for one in row] for row in found], names, [label for label, _ in SIDES.values()], texts


def _mean(means: pd.DataFrame, attack: str, split: str) -> dict[str, Any]:
    if (attack, split) not in means.index:
        return {"value": None, "low": None, "high": None}
    mean, error = means.loc[(attack, split)]
    half = 1.96 * error if error == error else None  # of a single text there is none
    return {"value": mean, "low": None if half is None else max(0.0, mean - half), "high": None if half is None else min(1.0, mean + half)}


def _texts(found: dict[str, Any], frames: pd.DataFrame) -> None:
    table, axis = points(found, frames)
    if table.empty:
        st.text("No probability could be told for these texts.")
        return
    drawn = figures.scatter(table, axis, "P(member)", title=f"Each text, by {found['headline']}")
    alt = f"Probability of membership of {len(table):,} texts; {int(table['flag'].sum())} are flagged"
    st.plotly_chart(drawn, key="tested-points", config={"displaylogo": False}, alt=alt)
    st.caption(
        "Flagged texts are larger and ringed: of them at most one in twenty by chance. P(member) is told as if there were as many members as others."
    )
    listed = table[table["group"] == SIDES["train"][0]].sort_values(["flag", "y"], ascending=False).head(100)
    shown = pd.DataFrame({"id": listed["id"], "P(member)": [pool.interval(row) for row in listed.rename(columns={"y": "value"}).to_dict("records")], "flagged": ["yes" if flag else "no" for flag in listed["flag"]]})  # fmt: skip
    st.subheader("Most exposed training texts", anchor=False)
    if st.toggle("Show what they say on this screen", key="show-texts"):
        shown["text"] = listed["id"].map(_named("train"))
    browse.table(shown, "texts")


def points(found: dict[str, Any], frames: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Every text as a point of the scatter, by the headline attack; and the name of the axis across: the loss, or where none is known the score."""
    own = frames[(frames["attack"] == found["headline"]) & frames["membership_prob"].notna()]
    across, axis = ("loss", "loss (nats a token)") if own["loss"].notna().any() else ("score", f"score of {found['headline']}")
    table = own.rename(columns={across: "x", "membership_prob": "y", "prob_low": "low", "prob_high": "high"})
    group = table["split"].map({side: label for side, (label, _) in SIDES.items()})
    return table[["id", "x", "y", "low", "high", "flag"]].assign(group=group, flag=table["flag"].astype(bool)), axis


def _named(side: str) -> dict[str, str]:
    """The uploaded texts of a side by their ids."""
    seen = st.session_state.get(f"{side}-seen")
    return uploads.by_id(seen[1], seen[0][2], side) if seen and isinstance(seen[1], Upload) else {}


def _files(job: Job) -> None:
    name = Path(style.plain(job.result.found["model"])).name
    types = {
        "report.html": ("The page", "text/html"),
        "memleak.json": ("All numbers (JSON)", "application/json"),
        "texts.csv": ("Each text (CSV)", "text/csv"),
    }
    with st.container(horizontal=True):
        for file, (label, mime) in types.items():
            st.download_button(
                label, job.result.files[file], f"{name}-{file}", mime, key=f"tested-{file}", on_click="ignore", icon=":material/download:"
            )
    st.caption("None of these files has a text in it. The test's own folder is removed when the next one begins or this window is closed.")
