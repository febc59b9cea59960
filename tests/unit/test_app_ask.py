"""Test a model: what is taken, the process that does it, and the page around it."""

from __future__ import annotations

import gc
import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from windows import opened

from memleak.app import ask, job, uploads
from memleak.app.job import Job
from memleak.app.uploads import UploadError

HOSTILE = "<script>alert('x')</script>"
TEXTS = "a first text\na second text\na third one\n"


def parquet(table: pd.DataFrame) -> bytes:
    written = io.BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXTS.encode()), ("a.csv", b"text\na first text\na second text\na third one\n"), ("a.json", b'["a first text", "a second text", "a third one"]'),
        ("a.jsonl", b'{"text": "a first text"}\n{"text": "a second text"}\n{"text": "a third one"}\n'),
        ("called.txt", parquet(pd.DataFrame({"text": TEXTS.splitlines(), "other": [1, 2, 3]}))),
    ],
)  # fmt: skip
def test_texts_are_read_from_every_usual_file(name, content):
    found = uploads.texts(content, name, "text")

    assert (found.n, found.first[0]) == (3, "a first text")
    assert uploads.by_id(found, "text", "train") == {f"train-{i}": text for i, text in enumerate(TEXTS.splitlines())}


def test_parquet_is_known_by_its_content_and_keeps_no_other_column():
    found = uploads.texts(parquet(pd.DataFrame({"text": ["a", "b"], "id": ["x", "y"], "secret": ["p", "q"]})), "called.csv", "text")

    assert found.kind == "parquet" and pq.read_schema(io.BytesIO(found.content)).names == ["text", "id"]
    assert uploads.by_id(found, "text", "train") == {"x": "a", "y": "b"}


def zipped() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (pickle.dumps(["a", "b"]), "texts.csv", "Python pickle"), (zipped(), "texts.parquet", "ZIP archive"), (b"\x1f\x8b..", "texts.txt", "gzip"),
        (b"a\0b", "texts.txt", "no text"), ("ä".encode("latin-1"), "texts.txt", "not UTF-8"), (b"text", "texts.exe", "does not say of which kind"),
        (b" \n", "texts.txt", "is empty"), (b"PAR1 and nothing", "texts.parquet", "truncated or not Parquet"), (b"words\na\n", "texts.csv", "there is no column text"),
        (b"{", "texts.json", "truncated or not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_texts_is_refused_by_its_name(content, name, said):
    with pytest.raises(UploadError, match=said) as refused:
        uploads.texts(content, name, "text")

    assert str(refused.value).startswith(name) and "/tmp" not in str(refused.value)


def test_a_file_above_the_limit_is_refused_with_the_limit(monkeypatch):
    monkeypatch.setenv("MEMLEAK_MAX_UPLOAD_MB", "1")

    with pytest.raises(UploadError, match="2 MB, at most 1 are taken"):
        uploads.texts(b"a\n" * 2**20, "texts.txt", "text")
    assert uploads.largest_mb() == 1


def test_one_long_text_that_many_rows_share_is_refused_before_it_is_unpacked(monkeypatch):
    """The file has some kilobytes; in memory it would be a hundred megabytes."""
    monkeypatch.setenv("MEMLEAK_MAX_UPLOAD_MB", "2")
    bomb = parquet(pd.DataFrame({"text": ["x" * 100_000] * 1000}))
    assert len(bomb) < 200_000

    with pytest.raises(UploadError, match="unpacks to more than 10 MB"):
        uploads.texts(bomb, "texts.parquet", "text")


def test_columns_that_unpack_to_much_are_refused_by_the_foot_of_the_file(monkeypatch):
    monkeypatch.setenv("MEMLEAK_MAX_UPLOAD_MB", "1")
    written = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], "big": ["x" * 2**22, "y" * 2**22]}), written, compression="zstd", use_dictionary=False)

    with pytest.raises(UploadError, match="unpacks to more than 5 MB"):
        uploads.texts(written.getvalue(), "texts.parquet", "text")


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(uploads, "MOST_ROWS", 2)

    for name, content in (("a.txt", TEXTS.encode()), ("a.parquet", parquet(pd.DataFrame({"text": ["a", "b", "c"]})))):
        with pytest.raises(UploadError, match="3 rows, at most 2 are taken"):
            uploads.texts(content, name, "text")


def test_a_preview_is_short():
    found = uploads.texts(("x" * 5000 + "\n").encode() * 9, "a.txt", "text")

    assert found.n == 9 and len(found.first) == uploads.N_SHOWN and max(map(len, found.first)) <= uploads.LENGTH + 1


# -- names of models and files ---------------------------------------------------------------------------------------


def test_who_reaches_the_app_from_elsewhere_sees_only_what_lies_below_its_folder(tmp_path):
    inside, outside = tmp_path / "root/model", tmp_path / "model"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    root = tmp_path / "root"
    (root / "link").symlink_to(outside)

    assert uploads.model_of("model", "Model", root, "0.0.0.0") == str(inside)
    for name in (str(outside), "../model", "link", "./../model", "~"):
        with pytest.raises(UploadError, match="lies outside"):
            uploads.model_of(name, "Model", root, "0.0.0.0")
        assert uploads.model_of(name, "Model", root, "localhost") == str((root / Path(name).expanduser()).resolve())


@pytest.mark.parametrize("name", ["gpt2", "EleutherAI/pythia-70m", "a.b/c_d-1"])
def test_names_on_the_hub_are_taken_by_their_form(name, tmp_path):
    assert uploads.model_of(f" {name} ", "Model", tmp_path, "0.0.0.0") == name


@pytest.mark.parametrize("name", ["--reference=x", "a b", "a/b;c", "..", "", "https://a.example/b", "a\\b"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name, tmp_path):
    with pytest.raises(UploadError, match="Model: "):
        uploads.model_of(name, "Model", tmp_path, "localhost" if name != ".." else "0.0.0.0")


def test_a_file_that_is_named_must_be_one(tmp_path):
    (tmp_path / "texts.txt").write_text(TEXTS)

    assert uploads.file_of("texts.txt", "Texts", tmp_path, None) == tmp_path / "texts.txt"
    with pytest.raises(UploadError, match="is a folder"):
        uploads.file_of(".", "Texts", tmp_path, None)
    with pytest.raises(UploadError, match=r"there is no 'gone\.txt'"):
        uploads.file_of("gone.txt", "Texts", tmp_path, None)


# -- the process -----------------------------------------------------------------------------------------------------


def stand_in(folder: Path, program: str) -> str:
    """A program in the place of Python, which is given what Python would be."""
    path = folder / "stand-in"
    path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time, subprocess\n{program}\n")
    path.chmod(0o755)
    return str(path)


def ended(found: Job, seconds: float = 20.0) -> Job:
    until = time.monotonic() + seconds
    while found.is_running and time.monotonic() < until:
        time.sleep(0.02)
    return found


BARS = r"""
sys.stderr.write("audit:   0%|          | 0/8 [00:00<?, ?step/s]\raudit:  25%|##        | 2/8 [00:01<00:06,  1.02step/s, model]")
sys.stderr.flush(); time.sleep(60)
"""


def test_progress_is_read_from_the_bar(tmp_path):
    running = Job([], {}, stand_in(tmp_path, BARS))
    until = time.monotonic() + 20
    while running.progress.share == 0 and time.monotonic() < until:
        time.sleep(0.02)

    assert (running.progress.share, running.progress.words) == (1 / 8, "Asking the model")
    running.forget()


def test_a_cancelled_test_ends_with_all_that_it_started(tmp_path):
    program = f"child = subprocess.Popen(['sleep', '60']); open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    running = Job([], {}, stand_in(tmp_path, program))
    until = time.monotonic() + 20
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = int((tmp_path / "child").read_text())

    running.cancel()

    assert not running.is_running and running.is_cancelled and "Cancelled" in (running.problem or "")
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z" or not _is_alive(child)
    running.forget()


def _is_alive(process: int) -> bool:
    time.sleep(0.2)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"


def test_one_that_will_not_end_is_made_to(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PATIENCE", 0.3)
    running = Job(
        [], {}, stand_in(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', file=sys.stderr, flush=True); time.sleep(60)")
    )
    while not running.progress.line:
        time.sleep(0.02)

    running.cancel()

    assert not running.is_running


def test_a_test_that_nobody_holds_any_more_is_ended_and_its_folder_removed(tmp_path):
    running = Job([], {"train-texts.txt": b"a"}, stand_in(tmp_path, "time.sleep(60)"))
    folder, process = running.folder, running._process
    assert (folder / "train-texts.txt").read_bytes() == b"a" and job.n_running() >= 1 and folder.stat().st_mode & 0o077 == 0

    del running
    gc.collect()

    assert process.poll() is not None and not folder.exists()


def test_the_tool_s_own_sentence_is_the_error_without_folders(tmp_path):
    program = "sys.stderr.write('loading\\nmemleak tester: ' + os.getcwd() + '/train-texts.txt: has no text\\n'); sys.exit(1)"

    assert ended(Job([], {}, stand_in(tmp_path, program))).problem == "train-texts.txt: has no text"


def test_a_test_that_was_killed_says_so(tmp_path):
    assert "ran out of memory" in (ended(Job([], {}, stand_in(tmp_path, "os.kill(os.getpid(), 9)"))).problem or "")
    assert "exit code 3" in (ended(Job([], {}, stand_in(tmp_path, "sys.exit(3)"))).problem or "")


def test_two_tests_do_not_disturb_each_other(tmp_path):
    jobs = [ended(Job([f"--model={i}"], {"a": b"%d" % i}, stand_in(tmp_path, "print(sys.argv[1:], file=sys.stderr); sys.exit(3)"))) for i in (1, 2)]

    assert jobs[0].folder != jobs[1].folder and [(one.folder / "a").read_bytes() for one in jobs] == [b"1", b"2"]
    assert ["--model=1" in (jobs[0].problem or ""), "--model=2" in (jobs[1].problem or "")] == [True, True]


# -- the page --------------------------------------------------------------------------------------------------------


def said(page) -> str:
    return " ".join(str(one.value) for kind in ("error", "markdown", "text", "code", "info", "warning", "caption") for one in getattr(page, kind))


def read(shown) -> str:
    """Markdown as it is read: what is escaped stands for itself."""
    return shown.value.replace("\\", "")


def test_every_widget_has_a_label_and_nothing_fails_at_first(monkeypatch, tmp_path):
    page = opened("ask", tmp_path, monkeypatch)

    assert not page.exception and page.title[0].value == "Test a model"
    assert all(widget.label for kind in (page.text_input, page.selectbox, page.number_input, page.button) for widget in kind)


def test_what_is_missing_is_said_in_a_sentence(monkeypatch, tmp_path):
    page = opened("ask", tmp_path, monkeypatch)
    page.button[0].click().run()
    assert "Model: name a folder" in read(page.error[0])

    page.text_input(key="model").set_value("gpt2")
    page.button[0].click().run()
    assert "Texts that it was trained on: bring a file" in read(page.error[0]) and not page.exception


def test_hostile_texts_are_shown_as_text(monkeypatch, tmp_path):
    (tmp_path / "train.txt").write_text(f"{HOSTILE}\n**bold** ![x](http://x.example)\n")
    page = opened("ask", tmp_path, monkeypatch)
    page.text_input(key="train-file").set_value("train.txt").run()

    assert HOSTILE in page.code[0].value and "2 texts" in said(page)
    assert all("script" not in str(one.value) for one in page.markdown)


def test_a_name_of_an_attack_cannot_be_an_option(monkeypatch, tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(TEXTS)
    page = opened("ask", tmp_path, monkeypatch)
    for key, value in (("model", "gpt2"), ("train-file", "train.txt"), ("test-file", "test.txt"), ("attacks", "--trust min-k")):
        page.text_input(key=key).set_value(value)
    page.run()
    page.button[0].click().run()

    assert "is no name of an attack" in read(page.error[0])


@pytest.mark.slow
def test_a_model_is_tested_from_the_form_to_the_verdict(monkeypatch, tmp_path):
    """The whole path with a tiny model, whose test runs in a process of its own."""
    from checkpoints import records, tiny_gpt2

    tiny_gpt2(tmp_path / "model")
    texts = list(dict.fromkeys(records(200)))[:80]
    (tmp_path / "train.txt").write_text("\n".join(texts[:40]))
    (tmp_path / "test.txt").write_text("\n".join(texts[40:]))
    page = opened("ask", tmp_path, monkeypatch)
    for key, value in (("model", "model"), ("train-file", "train.txt"), ("test-file", "test.txt"), ("attacks", "min-k, zlib")):
        page.text_input(key=key).set_value(value)
    page.number_input(key="max-length").set_value(32)
    page.selectbox(key="effort").set_value("quick")
    page.run()
    page.button[0].click().run()
    assert any("Cancel" in button.label for button in page.button), said(page)

    running = page.session_state["job"]
    assert ended(running, 120).problem is None
    page.run()

    assert not page.exception and [tab.label for tab in page.tabs][-2:] == ["What to do", "Files"]
    assert {"report.html", "memleak.json", "texts.csv"} == set(running.result.files)
    table = ask.attack_table(running.result.found)
    assert {"min-k", "zlib", "loss"} <= {name.removesuffix(" (headline)") for name in table["attack"]}
    assert table.loc[table["AUC"] != "n/a", "AUC"].str.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]").all()
    page.toggle(key="show-texts").set_value(True).run()
    assert not page.exception and any(set(texts) & set(frame.value.get("text", [])) for frame in page.dataframe)

    folder = running.folder
    del running
    page.session_state["job"].forget()
    assert not folder.exists()


def test_a_cell_holds_the_mean_of_a_list_with_its_interval():
    frames = pd.DataFrame({"attack": "loss", "split": ["train"] * 4 + ["test"] * 4, "membership_prob": [0.8, 0.6, 0.8, 0.6, 0.2, 0.4, 0.2, 0.4]})
    values, rows, columns, texts = ask.cells(frames)

    half = 1.96 * np.std([0.8, 0.6, 0.8, 0.6], ddof=1) / 2
    assert values == [[pytest.approx(0.7), pytest.approx(0.3)]] and (rows, columns) == (["loss"], ["trained on", "not trained on"])
    assert texts[0][0] == f"70.0 %\n[{100 * (0.7 - half):.1f}, {100 * (0.7 + half):.1f}]"


def test_points_lie_over_the_loss_or_where_it_is_unknown_over_the_score():
    frame = pd.DataFrame({"id": ["a", "b"], "split": ["train", "test"], "loss": [1.0, 2.0], "membership_prob": [0.9, 0.1], "score": [-1.0, -2.0], "prob_low": 0.0, "prob_high": 1.0, "flag": [True, False], "attack": "loss"})  # fmt: skip

    with_loss, axis = ask.points({"headline": "loss"}, frame)
    assert axis.startswith("loss") and list(with_loss["x"]) == [1.0, 2.0] and list(with_loss["group"]) == ["trained on", "not trained on"]
    without, axis = ask.points({"headline": "loss"}, frame.assign(loss=np.nan))
    assert axis == "score of loss" and list(without["x"]) == [-1.0, -2.0]


def test_the_page_imports_no_torch():
    program = "import sys, memleak.app.ask; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
