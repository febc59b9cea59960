"""One record: what was measured of it, read by its rows alone, and shown only where somebody allows that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from windows import html_of, opened, project_of

from memleak import data
from memleak.app import read

HOSTILE = "<img src=x onerror=alert(1)> ![x](http://example.org) **bold**"


@pytest.fixture
def shown(pool_walk: Any, tmp_path: Path, digits_path: Path) -> Path:
    """A project whose audit may show records."""
    return project_of(pool_walk, tmp_path / "project", digits_path)


@pytest.fixture
def discreet(pool_walk: Any, tmp_path: Path, digits_path: Path) -> Path:
    """A project whose audit may not."""
    return project_of(pool_walk, tmp_path / "discreet", digits_path, include_records=False)


def test_the_most_exposed_record_comes_first_with_its_share_and_interval(shown, pool_walk, monkeypatch):
    first = pd.read_parquet(pool_walk.audit("exposure.parquet")).iloc[0]

    page = opened("record", shown, monkeypatch)

    assert not page.exception and page.selectbox(key="record").value == str(first["sample_id"])
    assert f"{first['n_detected']} of the {first['n_holding']} models that trained on it" in html_of(page)
    assert len(page.get("plotly_chart")) == 2  # scores, margins


def test_any_other_record_is_found_by_its_number(shown, pool_walk, monkeypatch):
    last = pd.read_parquet(pool_walk.audit("exposure.parquet")).iloc[-1]

    page = opened("record", shown, monkeypatch, record=str(last["sample_id"]))

    assert not page.exception and f"{last['n_detected']} of the {last['n_holding']} models" in html_of(page)


@pytest.mark.parametrize("name", ["999999", "nonsense", "-1", "1e3", "9" * 40])
def test_a_record_that_does_not_exist_is_a_sentence(shown, monkeypatch, name):
    page = opened("record", shown, monkeypatch, record=name)

    assert not page.exception and "150 records" in page.warning[0].value


def test_the_margins_are_those_of_models_with_and_without_the_record(shown, pool_walk):
    sample_id = int(pd.read_parquet(pool_walk.audit("exposure.parquet"))["sample_id"].iloc[3])
    paths = read.signals_of(shown, "small")
    rows = pd.concat([read.rows_of(path, ("model_id", "view", "margin"), sample_id=sample_id) for path in paths])
    every = pd.concat([pd.read_parquet(path) for path in pool_walk.signals])

    assert len(paths) == len(pool_walk.signals) and len(rows) == 12 * 2  # models, views
    assert sorted(rows["margin"]) == sorted(every.loc[every["sample_id"] == sample_id, "margin"])


def test_row_groups_without_the_record_are_not_decoded(tmp_path, monkeypatch):
    """Only one group of a hundred can hold the record; the others are damaged on purpose, and reading them would be an error."""
    path = tmp_path / "large.parquet"
    with pq.ParquetWriter(path, pa.schema([("sample_id", pa.int64()), ("score", pa.float64())]), compression="none", use_dictionary=False) as writer:
        for group in range(100):
            writer.write_table(pa.table({"sample_id": np.arange(10) + 10 * group, "score": np.full(10, float(group))}))
    chunk = pq.ParquetFile(path).metadata.row_group(3).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(content)

    found = read.rows_of(path, ("score",), sample_id=571)

    assert found is not None and found["score"].tolist() == [57.0]


def test_a_record_is_shown_where_the_audit_allows_it(shown, monkeypatch):
    page = opened("record", shown, monkeypatch)

    assert page.get("image") and not page.button


def test_elsewhere_a_record_is_shown_only_when_asked_for(discreet, monkeypatch):
    page = opened("record", discreet, monkeypatch)
    assert not page.get("image") and page.button[0].label == "Show the record on this screen"

    page.button[0].click().run()
    assert page.get("image") and not page.exception

    page.selectbox(key="record").set_value(page.selectbox(key="record").options[1].split()[0]).run()
    assert not page.get("image")  # another record asks again


def test_a_picture_is_that_of_the_prepared_data(shown, digits_path):
    picture = read.record(shown, "small", 4)
    digits = data.read(digits_path)

    assert np.allclose(picture, digits.inputs[4] / 16)


def test_a_text_is_found_by_its_place_and_shown_as_it_is(tmp_path):
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"text": ["a", "b", HOSTILE, "d"]}), path, row_group_size=2)

    assert [read._text(path, row) for row in (1, 2, 9)] == ["b", HOSTILE, None]


def test_a_text_is_never_markdown(shown, monkeypatch):
    monkeypatch.setattr(read, "record", lambda *_: HOSTILE)

    page = opened("record", shown, monkeypatch)

    assert page.code[0].value == HOSTILE
    assert not any(HOSTILE in piece.value for piece in page.markdown)


def test_a_target_of_pairs_shows_its_finding_and_its_sheet(walk, tmp_path, digits_path, monkeypatch):
    folder = project_of(walk, tmp_path / "pairs", digits_path)
    name, known = next(iter(walk.metrics["targets"].items()))

    page = opened("record", folder, monkeypatch)

    assert not page.exception and page.selectbox(key="record").value == name
    assert known["state"] in html_of(page) and len(page.get("plotly_chart")) == 1
    assert page.expander[0].label.startswith("The sheet")


def test_an_audit_that_cannot_tell_records_apart_says_which_can(given_alone, tmp_path, monkeypatch):
    page = opened("record", given_alone.folder, monkeypatch)

    assert not page.exception and "halves" in page.info[0].value


def test_without_an_audit_the_page_says_where_to_look(tmp_path, monkeypatch):
    page = opened("record", tmp_path, monkeypatch)

    assert "Audits" in page.info[0].value
