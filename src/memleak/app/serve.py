"""`memleak app`: the window, served by Streamlit in this process, on this machine alone unless another address is asked for."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import sys
from pathlib import Path

PORT = 8501  # where no other is asked for
N_TRIED = 50  # ports from there on
MAX_UPLOAD_MB = 200
OTHERS_READ = "everybody who can reach this address can read the audits of this folder and use this machine's time; put a login before it"
MISSING = 'the window needs Streamlit and Plotly, which are not installed; run: pip install "memleak[app]"'
THEME = {  # as .streamlit/config.toml has it for `streamlit run app.py`, and report/page.css for the pages
    "light": {"primaryColor": "#2b5c8a", "backgroundColor": "#ffffff", "secondaryBackgroundColor": "#f3f4f6", "textColor": "#1d2126"},
    "dark": {"primaryColor": "#7fb2e5", "backgroundColor": "#16191d", "secondaryBackgroundColor": "#22262c", "textColor": "#e7e9ec"},
}


class AppError(RuntimeError):
    """The window cannot be opened; the text says why and what to do."""


def serve(folder: Path, port: int | None, address: str, has_browser: bool, max_upload_mb: int) -> None:
    """Show the audits of a project's folder until somebody presses Ctrl-C. `port` None: the first free one."""
    if importlib.util.find_spec("streamlit") is None or importlib.util.find_spec("plotly") is None:
        raise AppError(MISSING)
    if not folder.is_dir():
        raise AppError(f"{folder}: there is no such folder; name the one that holds params.yaml and results")
    if max_upload_mb < 1:
        raise AppError(f"--max-upload-mb is {max_upload_mb}, expected 1 or more")
    found = free_port(address, port)
    for said in remarks(folder, found, port, address):
        print(f"memleak app: {said}", file=sys.stderr, flush=True)
    if has_browser:
        print(f"memleak app: http://{address}:{found} (Ctrl-C ends it)", flush=True)
    os.environ |= {"MEMLEAK_PROJECT": str(folder.resolve()), "MEMLEAK_MAX_UPLOAD_MB": str(max_upload_mb)}
    _run(options(found, address, has_browser, max_upload_mb))


def _run(settings: list[str]) -> None:
    """Streamlit's own command line, in this process: Ctrl-C ends both."""
    import click
    from streamlit.web import cli

    try:
        cli.main(["run", str(Path(__file__).with_name("start.py")), *settings], standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        raise AppError(error.format_message()) from None


def options(port: int, address: str, has_browser: bool, max_upload_mb: int) -> list[str]:
    """How Streamlit is set up; it asks for no e-mail, reports nothing home, watches no file and offers no tools for building apps."""
    settings = {
        "server.port": port, "server.address": address, "server.headless": str(not has_browser).lower(), "server.maxUploadSize": max_upload_mb,
        "server.fileWatcherType": "none", "server.showEmailPrompt": "false", "browser.gatherUsageStats": "false", "client.toolbarMode": "viewer",
        "server.enableXsrfProtection": "true", "server.enableCORS": "true",  # whatever a project's own .streamlit/config.toml says
        "client.showErrorDetails": "none", "logger.hideWelcomeMessage": str(has_browser).lower(),  # without it a box over the page offers to install them
    }  # fmt: skip
    settings |= {f"theme.{paper}.{key}": value for paper, colours in THEME.items() for key, value in colours.items()}
    return [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def remarks(folder: Path, port: int, asked: int | None, address: str) -> list[str]:
    """What somebody who starts the window should know."""
    said = []
    if asked is None and port != PORT:
        said.append(f"port {PORT} is in use, so the window is at port {port}")
    if not is_local(address):
        said.append(f"WARNING: {address} is not this machine alone: {OTHERS_READ}")
    if not any(any(folder.glob(f"{below}results/metrics/*.json")) for below in ("", "*/", "*/*/")):
        how = "`memleak audit params.yaml` there" if (folder / "params.yaml").is_file() else "`make audit` in a clone, or `memleak init`,"
        said.append(f"{folder} has no finished audit yet; {how} makes one, and models and scores can be tested without")
    return said


def free_port(address: str, asked: int | None) -> int:
    """The port to listen at. Raises AppError where the one that was asked for is taken, or none is free."""
    if asked is not None:
        if not 0 < asked < 65536:
            raise AppError(f"--port is {asked}, expected 1 to 65535")
        if not _is_free(address, asked):
            raise AppError(f"port {asked} is in use or not allowed; name another, or leave --port out to take the first free one")
        return asked
    found = next((port for port in range(PORT, PORT + N_TRIED) if _is_free(address, port)), None)
    if found is None:
        raise AppError(f"no port from {PORT} to {PORT + N_TRIED - 1} is free; name another with --port")
    return found


def _is_free(address: str, port: int) -> bool:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise AppError(f"--address: {address} is no address of this machine; localhost is the usual one") from None
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        try:
            tried.bind(place)
        except OSError:
            return False
    return True


def is_local(address: str | None) -> bool:
    """Whether nobody but this machine reaches an address. None is every address of the machine."""
    if address is None:
        return False
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
