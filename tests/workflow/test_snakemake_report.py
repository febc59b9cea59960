"""Snakemake's own report of a finished run: made without network, with our pages, figures, captions and categories."""

from __future__ import annotations

import re
import zipfile

import pytest

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def reported(finished_run, tmp_path_factory):
    """The finished run and the texts of its report as a zip file, by name."""
    folder = finished_run.copy(tmp_path_factory.mktemp("report") / "project")
    done = folder.snakemake("--report", "overview.zip", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout[-2000:]
    with zipfile.ZipFile(folder / "overview.zip") as archive:
        return folder, {name: archive.read(name).decode("utf-8", "replace") for name in archive.namelist()}


def test_it_holds_the_page_of_the_audit_and_the_index_byte_for_byte(reported):
    folder, files = reported

    assert (folder / "results/audits/first/report.html").read_text() in files.values()
    assert (folder / "results/index.html").read_text() in files.values()


def test_it_names_the_audit_as_a_category_and_the_page_as_its_result(reported):
    _, files = reported
    (results,) = (text for name, text in files.items() if re.search(r"data/results?\b", name) or '"categories"' in text)

    assert '"first"' in results and "the page" in results and "all audits" in results


def test_it_says_how_to_read_what_it_shows(reported):
    _, files = reported

    assert any("The whole audit on one page: the verdict" in text for text in files.values())
    assert not any("{{" in text or "{%" in text for name, text in files.items() if "data/" in name and name.endswith(".js") and "caption" in text)


def test_one_file_can_be_made_too(finished):
    done = finished.snakemake("--report", "overview.html")

    assert done.returncode == 0, done.stdout[-2000:]
    page = (finished / "overview.html").read_text()
    assert "The whole audit on one page" in page
    assert not re.search(r"<(?:script|link)[^>]+(?:src|href)=[\"']?https?:", page)
