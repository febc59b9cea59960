"""What the pages read of a project, kept as long as its files stay as they are.

Only folders below the one that the app was started in (`MEMLEAK_PROJECT`, or the current one) are ever looked at.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

from memleak import artefacts, provenance
from memleak.app import asks, style
from memleak.app.serve import is_local
from memleak.artefacts import ArtefactError
from memleak.params import SIGNALS_VERSION, ParamsError
from memleak.report import results

DEPTH = 3  # folders below the root in which projects are looked for
MANY = 2000  # folders that are looked into
FRESH = 5  # seconds for which is believed what lies in a folder: a run may go on beside the app
HERE = "."


def root() -> Path:
    """The folder that the app shows; nothing outside of it is read."""
    return Path(os.environ.get("MEMLEAK_PROJECT") or HERE).resolve()


def projects() -> list[str]:
    """Folders with results, as paths below the root; the root itself first, unless it is no project and others are."""
    return _projects(str(root()))


@st.cache_data(ttl=60, max_entries=4, show_spinner=False)
def _projects(directory: str) -> list[str]:
    here, below = Path(directory), sorted(found for found in _below(Path(directory)) if found != HERE)
    is_project = (here / "params.yaml").is_file() or (here / "results/metrics").is_dir()
    return [HERE, *below] if is_project or not below else below


def project() -> str:
    """The project that the sidebar names; the first where it names none."""
    return st.session_state.get("project") or projects()[0]


def _below(directory: Path) -> Iterator[str]:
    """Folders that have results; hidden ones, links and what lies in results or data are passed over."""
    for seen, (name, inside, _) in enumerate(os.walk(directory)):
        here = Path(name)
        depth = len(here.relative_to(directory).parts)
        if (here / "results/metrics").is_dir():
            yield str(here.relative_to(directory))
        passed = depth >= DEPTH or seen >= MANY
        inside[:] = [] if passed else sorted(one for one in inside if one[0] != "." and one not in ("results", "data", "logs"))


def folder(name: str | None = None) -> Path:
    """The folder of a project: that which the sidebar names, unless another is asked for. One that is not below the root is refused."""
    wanted = name or project()
    found = (root() / wanted).resolve()
    if not found.is_relative_to(root()):
        raise ArtefactError(f"{wanted}: lies outside {root().name}, the folder that the app was started in; start the app there")
    return found


@st.cache_data(ttl=FRESH, max_entries=8, show_spinner=False)
def audits(directory: Path) -> list[results.Found]:
    """The audits of a project, finished or not."""
    return results.audits_of(directory, _ask)


@st.cache_data(ttl=FRESH, max_entries=8, show_spinner=False)
def sweeps(directory: Path) -> dict[str, results.Found]:
    """The sweeps of a project by name."""
    return {found.name: found for found in results.sweeps_of(directory, _ask)}


def _ask(directory: Path) -> results.Asked | None:
    asked, problem = _asked(str(directory), _version(directory / "params.yaml"))
    if problem is not None:
        raise ParamsError(problem)
    return asked


@st.cache_data(ttl=60, max_entries=8, show_spinner=False)
def _asked(directory: str, version: tuple[str, int, int]) -> tuple[results.Asked | None, str | None]:
    """What params.yaml asks for, or why it cannot be read."""
    try:
        return asks.asked_of(Path(directory)), None
    except (ValueError, OSError) as error:
        return None, str(error)


def problem(directory: Path) -> str | None:
    """Why params.yaml is not read, so that only what lies there is shown; None where it is."""
    return _asked(str(directory), _version(directory / "params.yaml"))[1]


def asked(directory: Path, audit: str) -> results.AskedAudit | None:
    """An audit as params.yaml asks for it; None where that is not there, cannot be read or knows no such audit."""
    found, _ = _asked(str(directory), _version(directory / "params.yaml"))
    return None if found is None else found.audits.get(audit)


def params_of(directory: Path, audit: str) -> dict[str, Any] | None:
    """What a page knows of params.yaml."""
    found = asked(directory, audit)
    return None if found is None else found.page


def json(path: Path) -> Any:
    """A JSON file."""
    return _json(str(path), _version(path))


@st.cache_data(max_entries=64, show_spinner=False)
def _json(path: str, version: tuple[str, int, int]) -> Any:
    return artefacts.read_json(path)


def table(path: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    """Columns of a Parquet file that is small whatever the audit; None where it is not there."""
    return _table(str(path), _version(path), tuple(columns)) if is_there(path) else None


@st.cache_data(max_entries=32, show_spinner=False)
def _table(path: str, version: tuple[str, int, int], columns: tuple[str, ...]) -> pd.DataFrame:
    return artefacts.read_table(path, columns)


def csv(path: Path) -> pd.DataFrame | None:
    """A CSV file; None where it is not there."""
    return pd.read_csv(path) if is_there(path) else None


def drawing(folder: Path, name: str) -> str | None:
    """An SVG file as data, in which no program runs; None where it is not there, or is something else.

    A text that is no drawing would be taken for the path or address of one.
    """
    path = folder / f"{name}.svg"
    if path.parent != folder or not is_there(path):
        return None
    try:
        is_drawing = ElementTree.parse(path).getroot().tag.endswith("svg")
    except ElementTree.ParseError:
        is_drawing = False
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}" if is_drawing else None


def first_rows(path: Path, n: int) -> pd.DataFrame | None:
    """The first rows of a Parquet file of any length; None where it is not there."""
    if not is_there(path):
        return None
    with _named(path), pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=n), None)
        return file.schema_arrow.empty_table().to_pandas() if batch is None else batch.to_pandas()


def rows_of(path: Path, columns: Sequence[str], **equal: str | int) -> pd.DataFrame | None:
    """The rows in which some columns have these values, such as `sample_id=5, attack="lira"`; None where the file, or a column, is not there.

    Row groups that cannot have such rows are passed over by their statistics, the others read in turn: a million records cost no memory.
    """
    return _rows_of(str(path), _version(path), tuple(columns), tuple(equal.items())) if is_there(path) else None


@st.cache_data(max_entries=64, show_spinner="Reading what is known of this record")
def _rows_of(path: str, version: tuple[str, int, int], columns: tuple[str, ...], equal: tuple[tuple[str, str | int], ...]) -> pd.DataFrame | None:
    with _named(Path(path)):
        if not {*columns, *dict(equal)} <= artefacts.columns_of(path):
            return None
        return pq.read_table(
            path, columns=list(columns), filters=[(column, "==", value) for column, value in equal], use_threads=False, pre_buffer=False
        ).to_pandas()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of which file it is that it cannot be read."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtefactError(f"{path}: truncated or not Parquet ({str(error).splitlines()[0]}); delete it and run again") from None


def signals_of(directory: Path, audit: str) -> list[Path]:
    """The files in which the models of an audit answer about its records, those that are there; the population's are left out."""
    plan_path = directory / f"results/audits/{audit}/plan.parquet"
    if not is_there(plan_path):
        return []
    models = table(plan_path, ("recipe", "shard"))
    queries = [_query_name(asked) for asked in artefacts.read_facts(plan_path)["asked"] if asked["samples"] != "population"]
    assert models is not None
    found = []
    for recipe, shard in models.drop_duplicates().itertuples(index=False):
        for query in queries:
            place = f"given/{recipe}/{query}.parquet" if shard == "given" else f"{recipe}/{query}/{shard}.parquet"
            found.append(directory / "results/signals" / place)
    return [path for path in found if is_there(path)]


def _query_name(asked: dict[str, Any]) -> str:
    """The name under which a query's answers lie, from what the plan notes of it."""
    return f"{asked['samples']}-{provenance.digest(asked | {'version': SIGNALS_VERSION})}"


def shows_records(directory: Path, audit: str) -> bool:
    """Whether params.yaml lets an audit's report show records; where it does not surely say so, it does not."""
    found = asked(directory, audit)
    return found is not None and found.shows_records


def record(directory: Path, audit: str, source_id: int) -> np.ndarray | str | None:
    """One record as it was prepared: an image [H, W, C] from 0 to 1, features [F], or a text; None where the prepared data is not there."""
    found, known = asked(directory, audit), artefacts.read_facts(directory / f"results/audits/{audit}/plan.parquet")
    candidates = [directory / found.paths["data"][0]] if found else sorted((directory / "data/prepared").glob("*/dataset.json"))
    path = next((one for one in candidates if one.name == "dataset.json" and is_there(one) and _fits(json(one), known["data"])), None)
    if path is None:
        return None
    if known["data"].get("kind") == "text":
        return _text(path.parent / "texts.parquet", source_id)
    inputs = artefacts.read_array(path.parent / "inputs.npy")
    return _picture(inputs, source_id) if inputs.ndim == 4 else np.asarray(inputs[source_id])


def _fits(described: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(described.get(key) == value for key, value in wanted.items())


def _picture(inputs: np.ndarray, source_id: int) -> np.ndarray:
    """The largest value of an unusual range (digits: 16) is white, as on the pages."""
    some = inputs[: min(len(inputs), 1000)]
    darkest, lightest = (0.0, max(float(some.max()), 1.0)) if inputs.dtype == np.uint8 else (float(some.min()), float(some.max()))
    return ((np.asarray(inputs[source_id], dtype=np.float64) - darkest) / max(lightest - darkest, 1e-12)).clip(0, 1)


def _text(path: Path, row: int) -> str | None:
    """One text, by its place: the row groups before its own are counted, not read."""
    with _named(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            n = file.metadata.row_group(group).num_rows
            if row < n:
                return str(file.read_row_group(group, columns=["text"])["text"][row].as_py())
            row -= n
    return None


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Shows in one sentence why something cannot be shown; the pages around it stay."""
    try:
        yield
    except ArtefactError as error:
        st.error(style.plain(error))
    except LookupError as error:
        st.error(style.plain(f"{name}: its metrics lack {error}, so another version wrote them, or they are damaged; run snakemake again"))
    except Exception as error:  # of files that only say that they are ours, anything can be wrong
        logging.getLogger(__name__).exception("%s cannot be shown", name)
        why = f"{type(error).__name__}: {error}"[:300]
        st.error(style.plain(f"{name}: it cannot be shown ({why}); another version wrote it, or a file of it is damaged; run snakemake again"))


def is_there(path: Path) -> bool:
    """Whether a file is there to be shown. A link to what lies outside the root is followed for those alone who sit at this machine."""
    return path.is_file() and (is_local(st.get_option("server.address")) or path.resolve().is_relative_to(root()))


def _version(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    try:
        known = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), known.st_mtime_ns, known.st_size
