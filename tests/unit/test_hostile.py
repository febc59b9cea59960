"""Hostile strings in data, names and params end up as text: escaped on pages, neutralised in tables, refused where nothing can be made of them."""

from __future__ import annotations

import copy
import csv
import html
import io
import json
import re
import shutil
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import Tags

from memleak import artefacts, cli, params
from memleak.metrics import pool_audit
from memleak.report import page, text
from memleak.report import stage as report_stage

TAG = "<script>alert('x')</script>"
FORMULA = '=HYPERLINK("http://evil.example","click")'
HOSTILE = (
    TAG, FORMULA, "+1+1", "-2+3", "@SUM(A1)", "\tcmd", "\rcmd", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "a\nb", "{{7*7}}", "{% raw %}",
    "\u202egnp.exe", "&lt;b&gt;", "]]>", "</title>", "</style><style>", "javascript:alert(1)", "C:\\x\\\"y",
)  # fmt: skip
DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


def cells(written: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written, newline="")))


def is_harmless(written: str) -> bool:
    """Whether no cell of a table of text begins as a formula, numbers aside."""
    own = [cell for row in cells(written) for cell in row]
    return not any(cell.startswith(DANGEROUS) and not re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", cell) for cell in own)


# Tables


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_text_in_a_table_is_no_formula_and_otherwise_itself(hostile):
    table = pd.DataFrame({"text": [hostile, "plain"], "value": [-1.5, 2.0], hostile: [1, 2]})

    header, first, _ = cells(artefacts.csv_text(table))

    expected = (f"'{hostile}" if hostile.startswith(DANGEROUS) else hostile).replace("\r", "\n")
    assert first[0] == header[2] == expected and first[1] == "-1.5"


def test_a_table_of_numbers_is_as_pandas_writes_it(tmp_path):
    table = pd.DataFrame({"a": [-1.5, np.nan, 1e-12], "b": [1, -2, 3], "c": [True, False, True], "d": pd.array([1, None, -3], dtype="Int64")})

    artefacts.write_csv(tmp_path / "t.csv", table)

    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv")[["a", "b", "c"]], table[["a", "b", "c"]])


def test_every_kind_of_column_of_texts_is_neutralised():
    table = pd.DataFrame({"object": ["=1", None], "string": pd.array(["=1", None], dtype="string"), "category": pd.Categorical(["=1", "x"])})

    assert cells(artefacts.csv_text(table))[1] == ["'=1"] * 3


def test_everything_that_we_write_as_csv_goes_through_one_function(project):
    """`to_csv` of pandas stands in `artefacts`, in the export that our import reads back, and nowhere else."""
    found = {
        path.relative_to(project / "src/memleak").as_posix() for path in (project / "src/memleak").rglob("*.py") if ".to_csv(" in path.read_text()
    }
    callers = {name for name in found if re.search(r"(?<!report)\.to_csv\((?!self)", (project / "src/memleak" / name).read_text())}

    assert callers <= {"artefacts.py", "imports/export.py"}


def test_units_with_hostile_names_are_harmless_in_the_list_of_the_exposed(tmp_path):
    columns = [*pool_audit.OF_UNIT, *pool_audit.EXPOSED]
    exposed = pd.DataFrame({name: np.arange(len(HOSTILE)) for name in columns} | {"unit": HOSTILE, "bh": True})

    artefacts.write_csv(tmp_path / "exposed.csv", pool_audit.flagged(exposed))

    written = (tmp_path / "exposed.csv").read_bytes().decode()
    assert is_harmless(written) and len(cells(written)) == len(HOSTILE) + 1


def test_a_time_table_with_hostile_names_of_files_is_harmless(tmp_path):
    for name in ("=1+1", "@x", TAG.replace("/", "")):
        path = tmp_path / f"logs/score/small/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\tcpu_time\tmax_rss\n1\t1\t1\n")

    report_stage.timings(tmp_path / "logs", [], "small", tmp_path / "timings.csv")

    assert is_harmless((tmp_path / "timings.csv").read_text()) and len(cells((tmp_path / "timings.csv").read_text())) == 4


# Pages


def poisoned(pool_walk: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and params of an audit where everything that a user may name is hostile; ids cannot be, so those stay."""
    metrics, known = copy.deepcopy(pool_walk.metrics), json.loads(pool_walk.planned.page_json())
    names = [*HOSTILE]
    metrics["data"] |= {"name": TAG, "licence": FORMULA, "class_names": names[:10], "unit": {"column": TAG, "n": 3, "n_joined": 0}}
    metrics["unit"] = metrics["data"]["unit"] | {"n_records": 150, "largest": 2}
    for row, name in zip(metrics["exposure"]["most"], HOSTILE * 2, strict=False):
        row |= {"unit": name, "n_records": 1}
    metrics["notes"] = names
    found = metrics["attacks"]["lira"]
    value = {
        "n_samples": 30,
        "n_members": 30,
        "n_non_members": 30,
        "auc": found["auc"],
        "tpr": found["rates"][0] | {"at_fpr": 0.01},
        "difference": None,
    }
    metrics["slices"] = [{"column": TAG, "is_measure": False, "slices": [value | {"value": name} for name in names]}]
    metrics["recipe"] = TAG
    known["dataset"] = {"name": TAG, "source": "' onload='x"}
    return metrics, known


def timings_of() -> pd.DataFrame:
    return pd.DataFrame({"stage": [TAG, "train"], "job": ["=1", "x"], "seconds": [1.0, 2.0], "cpu_seconds": [1.0, 2.0], "max_memory_mib": [1.0, 2.0]})


def is_quiet(shown: str) -> bool:
    """Whether none of the hostile strings became a tag, an attribute or an answer of a template."""
    body = re.sub(r"<svg.*?</svg>", "", shown, flags=re.DOTALL)
    opened = re.findall(r"<[a-z][^>]*>", body)
    return (
        TAG not in shown and "<img src=x" not in shown and "</style><style>" not in shown
        and not any(re.search(r"\son\w+\s*=", re.sub(r"=\"[^\"]*\"", '=""', tag)) for tag in opened) and "javascript:alert(1)\"" not in shown
    )  # fmt: skip


def test_the_page_of_an_audit_shows_hostile_names_as_text(pool_walk):
    metrics, known = poisoned(pool_walk)

    shown, line = page.pool_page(metrics, timings_of(), {}, known)

    Tags(shown)
    assert is_quiet(shown) and html.escape(TAG, quote=False).split("(")[0] in shown
    assert "49" not in re.findall(r">\s*49\s*<", shown) and "\n" not in line.strip()


def test_the_tables_of_a_page_that_can_be_taken_away_hold_no_formulas(pool_walk):
    metrics, known = poisoned(pool_walk)
    shown, _ = page.pool_page(metrics, timings_of(), {}, known)

    links = re.findall(r"href=\"data:text/csv[^,]*,([^\"]*)\"", shown)

    assert links
    for link in links:
        assert is_harmless(urllib.parse.unquote(html.unescape(link)).lstrip("\ufeff").replace("\N{MINUS SIGN}", "-")), urllib.parse.unquote(link)[
            :500
        ]


def test_the_index_shows_hostile_names_as_text(pool_walk):
    metrics, _ = poisoned(pool_walk)

    shown = page.index_page([metrics])

    Tags(shown)
    assert is_quiet(shown)


def test_the_text_report_has_one_line_a_line(pool_walk):
    metrics, known = poisoned(pool_walk)

    told = text.text(metrics, known)

    assert "\r" not in told and "\x00" not in told and "\u202e" not in told.split("\n")[0]


def test_an_id_cannot_be_hostile():
    for hostile in HOSTILE:
        with pytest.raises(params.ParamsError):
            params.validate({"audits": {hostile: {}}})


def test_a_null_byte_in_params_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text("seed: 0\naudits: {a\0b: {}}\n")

    assert cli.main(["status", "--directory", str(tmp_path)]) == 0
    assert "params.yaml cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("name", [TAG, FORMULA, "{{7*7}}"])
def test_anybodys_scores_may_be_called_anything(tmp_path, name):
    draw, truth = np.random.default_rng(0), np.arange(400) % 2 == 0
    table = pd.DataFrame(
        {"score": draw.normal(size=400) + truth, "is_member": truth, "sample_id": [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(400)]}
    )
    table.to_parquet(tmp_path / "scores.parquet", index=False)

    assert cli.main(["stats", str(tmp_path / "scores.parquet"), "--output", str(tmp_path / "out"), "--name", name]) == 0

    shown = (tmp_path / "out/report.html").read_text()
    assert is_quiet(shown) and is_harmless((tmp_path / "out/roc.csv").read_text())
    assert artefacts.read_json(tmp_path / "out/metrics.json")["name"] == name


def test_what_failed_jobs_said_is_text_on_the_index(tmp_path, pool_walk):
    (tmp_path / "params.yaml").write_text("audits: {}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/index.log").write_text(f"memleak index: {TAG} {FORMULA}\n")
    shutil.copytree(pool_walk / "metrics", tmp_path / "results/metrics")
    (tmp_path / "results/metrics/other.json").write_text('{"format": 9, "memleak": "' + TAG.replace("'", "") + '", "of": "audit"}')

    assert cli.main(["status", "--directory", str(tmp_path), "--index", str(tmp_path / "index.html")]) == 0

    assert is_quiet((tmp_path / "index.html").read_text()) and "<script>alert(x)" not in Path(tmp_path / "index.html").read_text()
