"""Scores: the same numbers as `memleak stats`, for a table that somebody drops."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from windows import AppTest, opened

from memleak.app import scores
from memleak.app.uploads import UploadError
from memleak.metrics import stats


def table(n: int = 300, separation: float = 1.0) -> pd.DataFrame:
    draw, truth = np.random.default_rng(0), np.arange(2 * n) < n
    return pd.DataFrame({"score": draw.normal(size=2 * n) + separation * truth, "is_member": truth})


def csv(found: pd.DataFrame) -> bytes:
    return found.to_csv(index=False).encode()


def test_the_numbers_are_those_of_memleak_stats():
    found = json.loads(scores.measured(csv(table()), "mine.csv")["metrics.json"])
    truth = table()
    expected, _ = stats.measure(stats.Scores(truth["score"].to_numpy(), truth["is_member"].to_numpy()))

    assert found["auc"] == pytest.approx(expected["auc"]) and found["name"] == "mine"
    rows = scores.table(found)
    assert rows.iloc[0]["value, 95 % interval"].startswith(f"{expected['auc']['value']:.3f} [") and len(rows) == len(expected["rates"]) + 3


def test_parquet_and_csv_give_the_same():
    written = io.BytesIO()
    table().assign(other="x").to_parquet(written)

    assert scores.measured(written.getvalue(), "mine.parquet")["roc.csv"] == scores.measured(csv(table()), "mine.csv")["roc.csv"]


def test_a_page_can_be_taken_along_and_escapes_the_name_of_the_file():
    page = scores.measured(csv(table()), "<script>alert(1)<script>.csv")["report.html"].decode()

    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"score,truth\n1,1\n", "has no column is_member"), (csv(table().assign(is_member="perhaps")), "neither true or false"),
        (csv(table().assign(is_member=True)), "0 of non-members"), (b"\x80\x04.", "Python pickle"), (csv(table().assign(score=np.inf)), "not finite"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_measured_is_refused_by_the_name_it_has(content, said):
    with pytest.raises(UploadError, match=said) as refused:
        scores.measured(content, "mine.csv")

    assert str(refused.value).startswith("mine.csv") and "/" not in str(refused.value).split(" ")[0]


def shown(found: pd.DataFrame, name: str = "mine") -> AppTest:
    def script(files, name):
        from memleak.app import scores

        scores.show(files, name)

    page = AppTest.from_function(script, default_timeout=60, kwargs={"files": scores.measured(csv(found), f"{name}.csv"), "name": name}).run()
    assert not page.exception
    return page


def test_the_page_shows_auc_rate_and_table_with_their_intervals():
    page = shown(table())

    assert [metric.label for metric in page.metric] == ["AUC", "Members found at a false-positive rate of 1 %"]
    assert all("95 % interval" in metric.delta for metric in page.metric) and len(page.dataframe) == 1
    assert [tab.label for tab in page.tabs] == ["Logarithmic", "Linear"] and not page.warning


def test_scores_with_the_wrong_sign_are_warned_of():
    page = shown(table().assign(score=lambda t: -t["score"]))

    assert "change their sign" in page.warning[0].value


def test_a_handful_of_scores_certifies_nothing_and_is_shown_all_the_same():
    page = shown(table(8))

    assert [metric.label for metric in page.metric] == ["AUC"] and not page.exception


def test_the_empty_page_says_what_to_bring(tmp_path, monkeypatch):
    page = opened("scores", tmp_path, monkeypatch)

    assert not page.exception and "is_member" in page.markdown[0].value
