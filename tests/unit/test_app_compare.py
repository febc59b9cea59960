"""Two audits side by side: no verdict between them but by a paired test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from streamlit.testing.v1 import AppTest
from windows import frames_of, html_of, opened, project_of

from memleak import artefacts

from .test_frontier_page import sweep, variant


@pytest.fixture
def two(pool_walk: Any, tmp_path: Path, digits_path: Path) -> Path:
    """A folder with two projects, `a` and `b`, whose audits differ in the weights of their models."""
    return _two(pool_walk, tmp_path, digits_path)


@pytest.fixture(scope="module")
def seen(pool_walk: Any, tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> AppTest:
    """Both projects side by side: drawn once, to be read and not to be clicked."""
    with pytest.MonkeyPatch.context() as patch:
        return opened("compare", _two(pool_walk, tmp_path_factory.mktemp("two"), digits_path), patch, **{"project": "a", "second-project": "b"})


def _two(walk: Any, folder: Path, digits_path: Path) -> Path:
    for name in ("a", "b"):
        project_of(walk, folder / name, digits_path)
    declared = yaml.safe_load((folder / "b/params.yaml").read_text())
    declared["recipes"]["tiny"]["weight_decay"] = 0.25
    (folder / "b/params.yaml").write_text(yaml.safe_dump(declared))
    return folder


def _twice(folder: Path) -> None:
    """The audit `small` under a second name."""
    shutil.copy(folder / "results/metrics/small.json", folder / "results/metrics/again.json")
    shutil.copytree(folder / "results/audits/small", folder / "results/audits/again")
    (folder / "params.yaml").unlink()


def test_audits_of_two_projects_stand_side_by_side_and_no_test_is_claimed(seen):
    assert not seen.exception and not seen.error
    assert [piece.value for piece in seen.subheader] == ["small", "b/small"]
    assert html_of(seen).count('aria-label="verdict"') == 2
    assert any("not a test" in piece.value for piece in seen.text)


def test_attacks_that_both_have_stand_with_both_intervals(seen, pool_walk):
    table = next(frame for frame in frames_of(seen) if "attack" in frame)
    assert table["attack"].tolist() == list(pool_walk.metrics["attacks"])
    assert (table["AUC, small"] == table["AUC, b/small"]).all() and table["AUC, small"].str.contains(r"\[").all()
    assert (table["AUC, second less first"] == "0.000").all()


def test_what_was_declared_differently_is_listed(seen):
    differs = next(frame for frame in frames_of(seen) if "what" in frame)
    assert differs["what"].tolist() == ["recipe.weight_decay"]
    assert differs["b/small"].tolist() == ["0.25"]


def test_variants_of_one_sweep_are_compared_by_its_paired_test(two, monkeypatch):
    _twice(two / "a")
    found = artefacts.stamped("sweep", sweep(variant("dropout", auc=0.56, audit="again")))
    found["variants"][0]["audit"] = "small"
    (two / "a/results/audits/defended").mkdir()
    artefacts.write_json(two / "a/results/audits/defended/frontier.json", found)

    page = opened("compare", two, monkeypatch, project="a", first="small", second="again")

    tested = next(frame for frame in frames_of(page) if "difference" in frame)
    assert not page.exception and tested["difference"].tolist() == ["dropout less none"]
    assert tested["AUC"].tolist() == ["\N{MINUS SIGN}0.080 [\N{MINUS SIGN}0.092, \N{MINUS SIGN}0.068]"] and tested["AUC, p"].tolist() == [
        "p = 0.0012"
    ]
    assert not any("not a test" in piece.value for piece in page.text)


def test_the_same_audit_twice_is_not_compared(two, monkeypatch):
    page = opened("compare", two, monkeypatch, project="a")

    assert not page.exception and "same audit" in page.info[0].value


def test_one_project_without_an_audit_asks_for_two(tmp_path, monkeypatch):
    page = opened("compare", tmp_path, monkeypatch)

    assert not page.exception and "Two finished audits" in page.info[0].value


def test_pairs_and_halves_are_not_held_against_each_other(two, walk, digits_path, monkeypatch):
    project_of(walk, two / "p", digits_path)

    page = opened("compare", two, monkeypatch, **{"project": "a", "second-project": "p"})

    assert not page.exception
    assert any("No attack has the same name" in piece.value for piece in page.text)
