"""Looking at a project runs nothing of it, whatever its params.yaml names, and a file made to be endless ends nobody's window."""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

pytest.importorskip("streamlit")

from memleak.app import asks, read, uploads
from memleak.params import ParamsError
from memleak.report import results

from .test_results import CONFIG

EVIL = """import pathlib
pathlib.Path({mark!r}).touch()
from memleak.params import Frozen
class Options(Frozen): pass
def score(*given): pass
"""


def project_with(folder: Path, change: Any) -> Path:
    """A project whose params.yaml is changed, with a plug-in that leaves a mark when it is run, also as what we import ourselves."""
    config = copy.deepcopy(CONFIG)
    change(config["audits"]["many"], config["recipes"])
    for name in ("evil", "sklearn", "yaml", "sitecustomize"):
        (folder / f"{name}.py").write_text(EVIL.format(mark=str(folder / "mark")))
    (folder / "params.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda audit, _: audit["attacks"].update(own={"name": "evil.py:score"}),
        lambda audit, _: audit["attacks"].update(own={"name": "evil:score"}),
        lambda audit, _: audit["attacks"].update(own={"name": "range", "point": {"name": "evil.py:score"}}),
        lambda audit, _: audit.update(release=[{"evil.py:score": 3}]),
        lambda audit, _: audit.update(signals={"own": {"name": "evil.py:score"}}),
    ],
)
def test_a_plug_in_that_params_name_is_not_run_by_who_looks(tmp_path, change, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    folder = project_with(tmp_path, change)

    with pytest.raises(ParamsError, match="code of the project's own, which is not run here"):
        asks.asked_of(folder)

    assert not (folder / "mark").exists()


def test_code_that_trains_is_named_and_not_run(tmp_path):
    folder = project_with(tmp_path, lambda _, recipes: recipes.update(tiny={"architecture": "evil.py:score", "trainer": "evil.py:score"}))

    assert list(asks.asked_of(folder).audits) == ["many"] and not (folder / "mark").exists()


def test_another_process_reads_the_same_and_the_folder_of_the_window_stays(tmp_path):
    folder, before = project_with(tmp_path, lambda audit, _: None), os.getcwd()

    assert asks.asked_of(folder) == results.asked_of(folder) and os.getcwd() == before
    assert asks.asked_of(tmp_path.parent) is None


def test_params_without_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(asks, "PATIENCE", 0.05)

    with pytest.raises(ParamsError, match="longer than"):
        asks.asked_of(project_with(tmp_path, lambda audit, _: None))


def test_params_nested_without_end_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "params.yaml").write_text("{a: " * 3000)

    with pytest.raises(ParamsError, match="nested too deep"):
        asks.asked_of(tmp_path)


# what lies in the folder


@pytest.mark.parametrize("content", ["/etc/passwd", "http://example.org/x.png", "<html/>", "", "<svg", "\0"])
def test_a_drawing_that_is_none_is_not_taken_for_a_path(tmp_path, content):
    (tmp_path / "random00.svg").write_text(content)

    assert read.drawing(tmp_path, "random00") is None


def test_a_drawing_is_shown_as_data_from_its_own_folder_alone(tmp_path):
    (tmp_path / "figures").mkdir()
    for place in (tmp_path, tmp_path / "figures"):
        (place / "random00.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')

    assert read.drawing(tmp_path / "figures", "random00").startswith("data:image/svg+xml;base64,")
    assert read.drawing(tmp_path / "figures", "../random00") is None


def test_a_link_out_of_the_root_is_followed_on_this_machine_alone(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "report.html").symlink_to(tmp_path / "secret")
    monkeypatch.setenv("MEMLEAK_PROJECT", str(root))
    reached = {}
    for address in ("localhost", "0.0.0.0", None):
        monkeypatch.setattr(read.st, "get_option", lambda _, address=address: address)
        reached[address] = read.is_there(root / "report.html")

    assert reached == {"localhost": True, "0.0.0.0": False, None: False}


@pytest.mark.parametrize("name", ["texts.json", "texts.jsonl"])
def test_an_upload_nested_without_end_is_refused(name):
    with pytest.raises(uploads.UploadError, match="nested too deep"):
        uploads.texts(b"[" * 200_000, name, "text")


def test_parquet_whose_texts_are_no_text_is_refused():
    held = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    file = io.BytesIO()
    pq.write_table(pa.table({"text": held}), file)

    with pytest.raises(uploads.UploadError, match="not UTF-8"):
        uploads.texts(file.getvalue(), "texts.parquet", "text")
