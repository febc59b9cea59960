"""`memleak app`: which port, who can reach it, and what is said before it opens."""

from __future__ import annotations

import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from memleak import cli
from memleak.app import serve


@pytest.fixture
def taken():
    """A port of this machine that somebody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_in_use_is_one_sentence_and_exit_code_1(taken, tmp_path, capsys):
    pytest.importorskip("streamlit")
    code = cli.main(["app", str(tmp_path), "--port", str(taken), "--address", "127.0.0.1", "--no-browser"])

    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1
    assert f"port {taken} is in use" in said and "leave --port out" in said


def test_without_a_port_the_next_free_one_is_taken_and_said(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "PORT", taken)
    found = serve.free_port("127.0.0.1", None)

    assert taken < found < taken + serve.N_TRIED
    assert f"port {taken} is in use, so the window is at port {found}" in serve.remarks(tmp_path, found, None, "127.0.0.1")


def test_where_no_port_is_free_that_is_said(taken, monkeypatch):
    monkeypatch.setattr(serve, "PORT", taken)
    monkeypatch.setattr(serve, "N_TRIED", 1)

    with pytest.raises(serve.AppError, match=f"no port from {taken} to {taken} is free"):
        serve.free_port("127.0.0.1", None)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(serve.AppError, match="expected 1 to 65535"):
        serve.free_port("localhost", port)


def test_what_is_no_address_is_refused():
    with pytest.raises(serve.AppError, match="is no address of this machine"):
        serve.free_port("no such machine", 8501)


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.7", False), ("machine.example", False), (None, False)],
)  # fmt: skip
def test_only_this_machine_is_local(address, is_local):
    assert serve.is_local(address) is is_local


def test_an_address_that_others_reach_is_warned_of(tmp_path):
    said = " ".join(serve.remarks(tmp_path, 8501, None, "0.0.0.0"))

    assert "WARNING" in said and "everybody who can reach this address can read the audits" in said
    assert "WARNING" not in " ".join(serve.remarks(tmp_path, 8501, None, "localhost"))


def test_a_folder_without_results_is_said_and_one_that_is_missing_refused(tmp_path, capsys):
    pytest.importorskip("streamlit")
    assert "has no finished audit yet" in " ".join(serve.remarks(tmp_path, 8501, None, "localhost"))
    (tmp_path / "mine/results/metrics").mkdir(parents=True)
    (tmp_path / "mine/results/metrics/small.json").touch()
    assert serve.remarks(tmp_path, 8501, None, "localhost") == []  # a folder of projects

    code = cli.main(["app", str(tmp_path / "nowhere")])
    assert code == 1 and "nowhere: there is no such folder" in capsys.readouterr().err


def test_without_streamlit_the_sentence_names_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert cli.main(["app", str(tmp_path)]) == 1
    assert 'pip install "memleak[app]"' in capsys.readouterr().err


def test_the_window_looks_the_same_however_it_is_started(project):
    """`streamlit run app.py` reads the file, `memleak app` gives the same as options."""
    config = tomllib.loads((project / ".streamlit/config.toml").read_text())
    settings = dict(zip(*[iter(serve.options(8501, "localhost", False, serve.MAX_UPLOAD_MB))] * 2, strict=True))
    told = {f"--theme.{paper}.{key}": value for paper in ("light", "dark") for key, value in config["theme"][paper].items()}
    told |= {"--client.toolbarMode": config["client"]["toolbarMode"], "--client.showErrorDetails": config["client"]["showErrorDetails"]}
    told |= {"--server.address": config["server"]["address"], "--server.maxUploadSize": str(config["server"]["maxUploadSize"])}

    assert {key: settings[key] for key in told} == told
    assert settings["--browser.gatherUsageStats"] == "false" and config["browser"]["gatherUsageStats"] is False


def test_the_file_that_streamlit_runs_lies_in_the_package():
    assert (Path(serve.__file__).with_name("start.py")).is_file()


def test_the_command_line_imports_neither_streamlit_nor_plotly():
    program = "import sys, memleak.cli, memleak.app.serve; memleak.cli.parser(); sys.exit(bool({'streamlit', 'plotly', 'torch'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
