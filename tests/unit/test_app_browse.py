"""The list of audits and one of them in full: finished, unfinished, of another version, without figures, with hostile names."""

from __future__ import annotations

import copy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from streamlit.testing.v1 import AppTest
from windows import changed_metrics, frames_of, html_of, opened, project_of

from memleak import artefacts
from memleak.app import read, style, tables
from memleak.artefacts import ArtefactError
from memleak.report import verdict, words

from .test_frontier_page import sweep, variant

HOSTILE = "<script>alert('x')</script> ![x](http://example.org/x.png) [y](javascript:z)"
FORMULA = "=HYPERLINK('http://example.org')"


@pytest.fixture
def shown(pool_walk: Any, tmp_path: Path, digits_path: Path) -> Path:
    """A project with a finished audit of halves, without figures and page."""
    return project_of(pool_walk, tmp_path / "project", digits_path)


@pytest.fixture(scope="module")
def seen(pool_walk: Any, tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> AppTest:
    """The same project as it is shown, without figures and page: drawn once, to be read and not to be clicked."""
    folder = project_of(pool_walk, tmp_path_factory.mktemp("seen") / "project", digits_path)
    assert not (folder / "results/audits/small/figures").exists()
    with pytest.MonkeyPatch.context() as patch:
        return opened("browse", folder, patch)


def test_the_app_opens_on_the_audits_and_asks_nobody_else(shown, project, monkeypatch):
    monkeypatch.setenv("MEMLEAK_PROJECT", str(shown))
    page = AppTest.from_file(str(project / "app.py"), default_timeout=30).run()

    assert not page.exception and page.title[0].value == "Audits" and page.header[0].value == "small"
    settings = tomllib.loads((project / ".streamlit/config.toml").read_text())
    assert settings["server"]["address"] == "localhost" and settings["browser"]["gatherUsageStats"] is False
    assert len((project / "app.py").read_text().strip().split("\n")) <= 3


def test_an_empty_folder_says_what_to_run(tmp_path, monkeypatch):
    page = opened("browse", tmp_path, monkeypatch)

    assert "snakemake --cores all" in page.info[0].value and not page.exception


def test_an_audit_opens_with_its_verdict_and_the_interval_of_its_risk(seen, pool_walk):
    told, html = verdict.verdict(pool_walk.metrics), html_of(seen)

    assert not seen.exception and not seen.error
    assert f"<strong>{told.state}</strong>" in html and f"risk {words.risk(told.risk, told.low, told.high)}" in html
    assert "Attacked" in html and "Null" in html and "<ol>" in html  # facts, lights, what to do


def test_without_figures_the_app_draws_from_what_was_measured(seen):
    drawn = {piece.proto.id.split("-", 2)[-1] for piece in seen.get("plotly_chart")}

    assert len(drawn) == 5  # gauge, both ROCs, heatmap, classes


def test_the_table_of_attacks_has_an_interval_for_every_rate(seen):
    attacks = next(frame for frame in frames_of(seen) if "attack" in frame)

    assert attacks["attack"].tolist().count("lira (headline)") == 1 and len(attacks) == 4
    assert attacks["AUC"].str.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]").all()
    assert all("[" in cell for name in attacks if name.startswith("TPR") for cell in attacks[name])


def test_without_a_roc_the_rest_is_still_shown(shown, monkeypatch):
    (shown / "results/audits/small/roc.parquet").unlink()

    page = opened("browse", shown, monkeypatch)

    assert not page.exception and any("roc.parquet" in piece.value for piece in page.info)
    assert any("attack" in frame for frame in frames_of(page))


def test_an_unfinished_audit_says_how_far_each_stage_is(shown, monkeypatch):
    (shown / "results/metrics/small.json").unlink()
    shutil.rmtree(shown / "results/audits/small/scores")

    page = opened("browse", shown, monkeypatch)

    said = [piece.proto.text for piece in page.get("progress")]
    assert not page.exception
    assert style.plain("scores: 0 of 4") in said and style.plain("metrics: 0 of 1") in said and style.plain("data: 1 of 1") in said


def test_an_audit_of_an_older_version_is_named_and_not_shown(shown, monkeypatch):
    changed_metrics(shown, format=None)

    page = opened("browse", shown, monkeypatch)

    assert not page.exception and page.warning[0].value.startswith(style.plain("results/metrics/small.json: written by memleak before 0"))
    assert not page.get("plotly_chart")


def test_a_lacking_field_is_a_sentence_and_no_trace(shown, monkeypatch):
    changed_metrics(shown, models=None)

    page = opened("browse", shown, monkeypatch)

    assert not page.exception
    assert "lack" in page.error[0].value and "models" in page.error[0].value


def test_hostile_names_are_shown_as_text(shown, monkeypatch):
    metrics = artefacts.read_json(shown / "results/metrics/small.json")
    changed_metrics(shown, data=metrics["data"] | {"name": HOSTILE, "class_names": [FORMULA, *[HOSTILE] * 9]})

    page = opened("browse", shown, monkeypatch)

    assert not page.exception and "<script>" not in html_of(page) and "&lt;script&gt;" in html_of(page)
    assert not any(piece.allow_html and HOSTILE in piece.value for piece in page.markdown)
    assert not any(HOSTILE in piece.value for piece in [*page.markdown, *page.caption, *page.header, *page.subheader])


def test_what_a_spreadsheet_takes_for_a_formula_is_text_in_a_download(shown):
    metrics = artefacts.read_json(shown / "results/metrics/small.json")
    metrics["data"]["class_names"] = [FORMULA] * 10

    table = artefacts.csv_text(tables.exposed(metrics))

    assert f"'{FORMULA}" in table and f",{FORMULA}" not in table


def test_markdown_in_a_name_means_nothing():
    assert style.plain("*a* [b](c) <d> `e` $f$ :red[g]\n# h") == r"\*a\* \[b\]\(c\) \<d\> \`e\` \$f\$ \:red\[g\] \# h"


def test_an_address_opens_an_audit(shown, monkeypatch):
    shutil.copy(shown / "results/metrics/small.json", shown / "results/metrics/other.json")
    (shown / "params.yaml").unlink()  # a bare folder of results
    monkeypatch.setenv("MEMLEAK_PROJECT", str(shown))
    page = AppTest.from_string("from memleak.app import browse\nbrowse.page()\n", default_timeout=30)
    page.query_params["audit"] = "small"
    page.run()

    assert page.selectbox(key="audit").value == "small" and page.header[0].value == "small"
    assert frames_of(page)[0]["name"].tolist() == ["other", "small"]


def test_a_sweep_is_shown_with_its_frontier(shown, monkeypatch):
    found = artefacts.stamped("sweep", sweep(variant("dropout", auc=0.56)))
    (shown / "params.yaml").unlink()
    (shown / "results/audits/defended").mkdir()
    artefacts.write_json(shown / "results/audits/defended/frontier.json", found)

    page = opened("browse", shown, monkeypatch, audit="defended")

    assert not page.exception and "HELPS" in html_of(page)
    assert frames_of(page)[1]["variant"].tolist() == ["none", "dropout"]


def test_a_folder_outside_the_one_that_was_opened_is_refused(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/away").symlink_to(tmp_path)
    monkeypatch.setenv("MEMLEAK_PROJECT", str(tmp_path / "inside"))

    for name in ("..", str(tmp_path), "away"):
        with pytest.raises(ArtefactError, match="outside"):
            read.folder(name)
    assert read.folder(".") == tmp_path / "inside"


def test_projects_below_the_folder_are_found_and_nothing_that_is_hidden(tmp_path, monkeypatch):
    for name in ("a", "b/c", ".hidden", "a/results/inside"):
        (tmp_path / name / "results/metrics").mkdir(parents=True)
    monkeypatch.setenv("MEMLEAK_PROJECT", str(tmp_path))

    assert read.projects() == ["a", "b/c"]


def test_the_folder_itself_comes_first_where_it_is_a_project(tmp_path, monkeypatch):
    (tmp_path / "a/results/metrics").mkdir(parents=True)
    (tmp_path / "params.yaml").touch()
    monkeypatch.setenv("MEMLEAK_PROJECT", str(tmp_path))

    assert read.projects() == [".", "a"]


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "known.json"
    artefacts.write_json(path, {"a": 1})
    first = read.json(path)
    artefacts.write_json(path, {"a": 2222})

    assert (first, read.json(path)) == ({"a": 1}, {"a": 2222})


def test_what_was_not_held_out_is_not_told_as_if_it_were(walk: Any, pool_walk: Any):
    metrics = copy.deepcopy(walk.metrics)
    for target in metrics["targets"].values():
        target |= {"exposure_low": None, "exposure_high": None}

    assert set(tables.targets(metrics)["recognised in"]) == {"no hold-out rounds"}
    assert [name for name in tables.attacks(pool_walk.metrics) if name.startswith("TPR at") and "optimistic" not in name] == []
