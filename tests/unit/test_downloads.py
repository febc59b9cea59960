"""The CSV under every table of a page."""

from __future__ import annotations

import base64
import io
import re

import pandas as pd
import pytest

from memleak.report import downloads


def table_of(*rows: str) -> str:
    return f'<div class="table"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def read(table: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(downloads.to_csv(table)))


def files(html: str) -> dict[str, bytes]:
    """The downloads of a page by name."""
    found = re.findall(r'<a download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)
    return {name: base64.b64decode(content) for name, content in found}


def test_an_estimate_becomes_three_columns_of_numbers_with_the_unit_in_their_names():
    found = read(
        table_of(
            "<th>attack</th><th>TPR at FPR 1&nbsp;%</th><th>AUC</th>",
            '<td>lira</td><td>6.8 %<br><span class="small range">[5.9, 7.8]</span></td><td>0.639 [0.627, 0.650]</td>',
            "<td>loss</td><td>1,001 % [0, 2,000.5]</td><td>n/a</td>",
        )
    )

    assert list(found) == [
        "attack",
        *(f"TPR at FPR 1 %{end} (percent)" for end in ("", " low", " high")),
        *(f"AUC{end}" for end in ("", " low", " high")),
    ]
    assert found.iloc[0].tolist() == ["lira", 6.8, 5.9, 7.8, 0.639, 0.627, 0.650]
    assert found.iloc[1].tolist()[:4] == ["loss", 1001, 0, 2000.5] and found.iloc[1, 4:].isna().all()


def test_false_positives_are_a_column_of_numbers_and_remarks_one_of_words():
    found = read(
        table_of(
            "<th>class</th><th>TPR</th>",
            '<td>8</td><td class="no">11.9 %<br>[7.8, 16.7]<br><span class="small">4,480 FP, cannot certify</span></td>',
            "<td>9</td><td>100 % [79.4, 100.0], 16 of 16</td>",
        )
    )

    assert found["TPR false positives"].tolist()[0] == 4480 and found["TPR false positives"].isna().tolist() == [False, True]
    assert found["TPR remark"].tolist() == ["cannot certify", "16 of 16"]


def test_typographic_signs_and_commas_become_plain_numbers():
    found = read(
        table_of(
            "<th>what</th><th>points</th>", "<td>a</td><td>\u221236.4<br>[\u221240.2, +0.6]<br>p &lt; 0.0001</td>", "<td>b</td><td>1,234,567</td>"
        )
    )

    assert found["points"].tolist() == [-36.4, 1234567] and found["points high"].tolist()[0] == 0.6
    assert found["points remark"].tolist()[0] == "p < 0.0001"


def test_a_bound_of_a_p_value_is_a_number_and_says_that_it_is_a_bound():
    found = read(table_of("<th>attack</th><th>p</th>", "<td>a</td><td>&lt;&nbsp;0.0001</td>", "<td>b</td><td>0.2990</td>"))

    assert found["p"].tolist() == [0.0001, 0.299] and found["p remark"].tolist()[0] == "less than this"


def test_words_and_numbers_of_several_units_stay_as_they_are():
    found = read(table_of("<th>a</th><th>b</th><th>c</th>", "<td>5 %</td><td>one</td><td>0.6 to 0.7</td>", "<td>3 s</td><td>2</td><td>1 / 2</td>"))

    assert found.to_dict("list") == {"a": ["5 %", "3 s"], "b": ["one", "2"], "c": ["0.6 to 0.7", "1 / 2"]}


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "=HYPERLINK(&quot;http://x&quot;)", "\t=1", "\r=1", "-3.23 / 5.38"]
)
def test_what_a_spreadsheet_would_take_for_a_formula_gets_an_apostrophe(formula):
    table = table_of(f"<th>{formula}</th><th>n</th>", f"<td>{formula}</td><td>-1.5</td>")
    found = read(table)

    assert found.columns[0][0] == "'" and found.iloc[0, 0][0] == "'"
    assert found["n"].tolist() == [-1.5]


def test_quotes_commas_and_markup_come_back_as_they_were_shown():
    said = read(
        table_of("<th>record</th>", "<td>&lt;script&gt;alert(&quot;a, b&quot;)&lt;/script&gt;</td>", "<td>\u05e9\u05dc\u05d5\u05dd \U0001f600</td>")
    )

    assert said["record"].tolist() == ['<script>alert("a, b")</script>', "\u05e9\u05dc\u05d5\u05dd \U0001f600"]


def test_wide_and_tall_cells_keep_every_number_under_its_heading():
    found = read(
        table_of(
            '<th rowspan="2">attack</th><th colspan="2">rank</th>',
            "<th>with lira</th><th>with rmia</th>",
            '<td rowspan="2">loss</td><td>1</td><td>2</td>',
            "<td>3</td><td>4</td>",
            '<td>base</td><td colspan="2" class="no">too few models</td>',
        )
    )

    assert list(found) == ["attack", "rank with lira", "rank with lira remark", "rank with rmia"]
    assert found["attack"].tolist() == ["loss", "loss", "base"]
    assert found["rank with lira"].tolist()[:2] == [1, 3] and found["rank with rmia"].tolist()[:2] == [2, 4]
    assert found["rank with lira remark"].tolist()[2] == "too few models"


def test_a_name_left_out_since_it_stands_above_is_repeated_and_headings_that_stand_twice_are_counted():
    found = read(
        table_of(
            "<th>attack</th><th>p</th><th>p</th><th></th>", "<td>a</td><td>1</td><td>2</td><td>x</td>", "<td></td><td>3</td><td>4</td><td>y</td>"
        )
    )

    assert list(found) == ["attack", "p", "p (2)", "column 4"] and found["attack"].tolist() == ["a", "a"]


def test_every_table_gets_a_link_named_after_its_heading_and_nothing_else_changes():
    table = table_of("<th>a</th>", "<td>1</td>")
    page = f"<h1>x</h1>{table}<h2 id='s'>Attacks <em>side</em> by side</h2><p>a</p>{table}\n{table}<details><summary>More &amp; more</summary>{table}</details>"
    linked = downloads.linked(page, "my/audit")

    assert list(files(linked)) == [
        "my-audit-x.csv", "my-audit-attacks-side-by-side.csv", "my-audit-attacks-side-by-side-2.csv", "my-audit-more-more.csv",
    ]  # fmt: skip
    assert re.sub(r'\n<p class="download">.*?</p>', "", linked) == page
    assert downloads.linked(page, "my/audit") == linked


def test_a_file_is_read_by_excel_and_by_pandas():
    """The mark at its beginning says UTF-8 to a spreadsheet; pandas does not see it."""
    (content,) = files(downloads.linked(table_of("<th>n\u00e4me</th>", "<td>\u00fc</td>"), "x")).values()

    assert content.startswith(b"\xef\xbb\xbf") and pd.read_csv(io.BytesIO(content)).to_dict("list") == {"n\u00e4me": ["\u00fc"]}


def test_a_heading_with_quotes_cannot_leave_its_attribute():
    linked = downloads.linked('<h2>"&gt;&lt;script&gt;</h2>' + table_of("<th>a</th>", "<td>1</td>"), '"><script>')

    assert (
        "<script>" not in linked
        and 'aria-label="CSV of the table under &quot;&gt;&lt;script&gt;"' in linked
        and list(files(linked)) == ["script-script.csv"]
    )


def test_a_table_without_rows_or_headings_is_a_table_still():
    assert downloads.to_csv("<table><tr><th>a</th><th>b</th></tr></table>") == "a,b\r\n"
    assert downloads.to_csv("<table><tr><td>1</td></tr></table>") == "column 1\r\n1\r\n"
    assert downloads.to_csv("<table></table>") == ""
