"""The app and the pages as a person sees them, in a real browser without a screen."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
sync_api = pytest.importorskip("playwright.sync_api")

from checkpoints import records, tiny_gpt2  # noqa: E402
from unit.conftest import PAIRS, POOL, Walk, reported, walked  # noqa: E402

from memleak.report import stage  # noqa: E402

pytestmark = pytest.mark.workflow
ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOSTILE = "<script>window.__hacked=1</script><img src=x onerror=\"window.__hacked=1;alert('x')\">"
WIDTHS, SCHEMES = (1400, 400), ("light", "dark")
PATIENCE = 60_000  # milliseconds: the machine may have other work
CONTRAST = 4.5  # of text on its paper (WCAG 2.2, level AA)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of this machine, or a reason to skip."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Path:
    """Two finished audits with pages and figures; in the second every name that comes from data is hostile."""
    folder = tmp_path_factory.mktemp("project")
    few = PAIRS | {"design": PAIRS["design"] | {"rounds": 5, "holdout_rounds": 2}}
    pairs = reported(walked(tmp_path_factory.mktemp("pairs"), digits_path, few))
    halves = walked(tmp_path_factory.mktemp("halves"), digits_path, POOL)
    _rename(halves, digits_path)
    for name, walk in (("first", pairs), ("second", halves)):
        shutil.copytree(walk / "audits/small", folder / "results/audits" / name)
        (folder / "results/metrics").mkdir(parents=True, exist_ok=True)
        found = json.loads((walk / "metrics/small.json").read_text())
        (folder / f"results/metrics/{name}.json").write_text(json.dumps(found | {"audit": name}))
    truth = np.arange(400) < 200
    pd.DataFrame({"score": np.random.default_rng(0).normal(size=400) + truth, "is_member": truth}).to_csv(folder / "scores.csv", index=False)
    tiny_gpt2(folder / "model")
    texts = list(dict.fromkeys(records(200)))[:80]
    (folder / "train.txt").write_text("\n".join([HOSTILE, *texts[:40]]))
    (folder / "test.txt").write_text("\n".join(texts[40:]))
    return folder


def _rename(walk: Walk, data: Path) -> None:
    """Give data and classes hostile names, and make figures and page of that."""
    path, params = walk / "metrics/small.json", json.loads(walk.planned.page_json())
    metrics = json.loads(path.read_text())
    metrics["data"] |= {"class_names": [f"{HOSTILE} {label}" for label in range(metrics["data"]["n_classes"])], "name": HOSTILE}
    path.write_text(json.dumps(metrics))
    figures = []
    for name in walk.planned.figures():
        figures.append(walk.audit(f"figures/{name}.svg"))
        stage.figure(
            name, walk.plan, [], [], path, walk.audit("roc.parquet"), figures[-1], figures[-1].with_suffix(".png"), score_paths=walk.scores,
            exposure_path=walk.audit("exposure.parquet"), data_path=data,
        )  # fmt: skip
    stage.timings(walk.folder / "logs/benchmarks", walk.planned.names_of_models(), "small", walk.audit("timings.csv"))
    stage.report(path, walk.plan, walk.audit("decisions.parquet"), walk.audit("timings.csv"), figures, params, walk.audit("report.html"))


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`memleak app` on a project, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "memleak", "app", str(folder), "--no-browser", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def _answers(port: int, process: subprocess.Popen[str], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[0]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError("the app did not answer")


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """Where the app is."""
    port = _free_port()
    process = _start(project, "--port", str(port), "--address", "127.0.0.1")
    try:
        _answers(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(process.pid, signal.SIGINT)  # so that it removes what its sessions brought
        process.communicate(timeout=60)


class Seen:
    """A page of the browser that remembers what ought not to happen: a dialogue, or a question to another machine."""

    def __init__(self, browser: Any, width: int = 1400, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.dialogs: list[str] = []
        self.asked: list[str] = []
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def text(self, words: str) -> None:
        """Wait until words are seen."""
        self.page.get_by_text(words).filter(visible=True).first.wait_for()

    def is_sound(self) -> None:
        """No error is shown, nothing was executed, nobody else was asked."""
        assert self.page.locator('[data-testid="stException"]').count() == 0
        assert "Traceback" not in self.page.locator("body").inner_text()
        assert self.dialogs == [] and self.page.evaluate("window.__hacked") is None
        assert [url for url in self.asked if not re.match(r"(file:|data:|blob:|about:|wss?://127\.0\.0\.1|http://127\.0\.0\.1)", url)] == []

    def fits(self) -> None:
        """Nothing but tables has to be moved sideways."""
        assert self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 1
        assert (
            self.page.evaluate("Math.max(0, ...[...document.querySelectorAll('[data-testid=stMain]')].map(e => e.scrollWidth - e.clientWidth))") <= 1
        )

    def is_drawn(self) -> None:
        """Wait until the app has nothing left to do."""
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
        self.page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton]').length == 0")

    def plots(self, at_least: int) -> None:
        self.page.locator(".js-plotly-plot .main-svg").nth(at_least - 1).wait_for(state="attached")


@pytest.fixture
def seen(browser: Any) -> Iterator[Seen]:
    found = Seen(browser)
    yield found
    found.page.close()


def test_audits_are_browsed_compared_and_looked_into(seen, address, tmp_path):
    page = seen.page
    page.goto(address)
    seen.text("Can these numbers be believed?")
    seen.plots(1)
    page.screenshot(path=tmp_path / "audits.png", full_page=True)
    seen.is_sound()

    page.goto(f"{address}/?audit=second")
    page.get_by_role("heading", name="second").wait_for()
    seen.plots(2)
    assert page.get_by_role("tab", name="Logarithmic").is_visible()
    seen.is_sound()

    page.get_by_role("link", name="Compare").click()
    seen.text("Compare two audits")
    seen.text("What differs")
    page.screenshot(path=tmp_path / "compare.png", full_page=True)
    seen.is_sound()

    page.goto(f"{address}/record?audit=second")
    seen.text("Recognised in")
    page.screenshot(path=tmp_path / "record.png", full_page=True)
    seen.is_sound()


def test_scores_are_dropped_and_measured(seen, address, project, tmp_path):
    page = seen.page
    page.goto(f"{address}/scores")
    page.locator("input[type=file]").first.wait_for(state="attached")
    page.locator("input[type=file]").first.set_input_files(project / "scores.csv")
    seen.text("95 % interval")
    seen.plots(1)
    page.screenshot(path=tmp_path / "scores.png", full_page=True)
    seen.is_sound()

    with page.expect_download() as taken:
        page.get_by_role("button", name="metrics.json").click()
    assert 0.5 < json.loads(Path(taken.value.path()).read_text())["auc"]["value"] < 1


def test_a_file_that_is_no_table_is_refused_in_a_sentence(seen, address, tmp_path):
    (tmp_path / "scores.csv").write_bytes(b"\x80\x04\x95.")
    seen.page.goto(f"{address}/scores")
    seen.page.locator("input[type=file]").first.wait_for(state="attached")
    seen.page.locator("input[type=file]").first.set_input_files(tmp_path / "scores.csv")

    seen.text("Python pickle")
    seen.is_sound()


def test_a_model_is_tested_and_the_page_taken_along(seen, address, project, tmp_path):
    page = seen.page
    page.goto(f"{address}/ask")
    page.get_by_label("Model", exact=True).fill("model")
    for place, name in enumerate(("train.txt", "test.txt")):
        page.locator("input[type=file]").nth(place).set_input_files(project / name)
        seen.text("41 texts, beginning with" if name == "train.txt" else "40 texts, beginning with")
    seen.is_sound()  # with a hostile text on the screen
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Attacks (empty: all that fit)").fill("zlib")
    page.get_by_label("Attacks (empty: all that fit)").press("Enter")
    page.get_by_role("button", name="Run the test").click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.screenshot(path=tmp_path / "running.png")

    page.get_by_text("Can these numbers be believed?").wait_for(timeout=3 * PATIENCE)
    seen.plots(2)
    page.screenshot(path=tmp_path / "tested.png", full_page=True)
    seen.is_sound()
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as taken:
        page.get_by_role("button", name="The page").click()
    assert "<h1" in Path(taken.value.path()).read_text() and "window.__hacked" not in Path(taken.value.path()).read_text()


def test_the_navigation_is_reached_by_the_keyboard(seen, address):
    seen.page.goto(address)
    seen.page.get_by_role("link", name="Scores").wait_for()
    reached = []
    for _ in range(12):
        seen.page.keyboard.press("Tab")
        reached.append(seen.page.evaluate("document.activeElement.innerText || ''").strip())

    assert any("Compare" in text for text in reached) and any("Scores" in text for text in reached)


@pytest.mark.parametrize("place", ["", "compare", "record", "ask", "scores"])
def test_the_app_fits_on_a_phone(browser, address, place, tmp_path):
    seen = Seen(browser, 400, "dark")
    seen.page.goto(f"{address}/{place}")
    seen.page.locator("h1").first.wait_for()
    seen.is_drawn()
    seen.page.screenshot(path=tmp_path / "phone.png", full_page=True)

    seen.fits()
    seen.is_sound()
    seen.page.close()


LUMINANCE = """([r, g, b]) => { const f = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  return .2126 * f(r) + .7152 * f(g) + .0722 * f(b) }"""
CONTRASTS = f"""() => {{ const luminance = {LUMINANCE}, parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const paper = element => {{ for (let e = element; e; e = e.parentElement) {{ const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c }}
    return [255, 255, 255] }};
  return [...document.querySelectorAll('p, li, td, th, h1, h2, h3, summary, figcaption, a')].filter(e => e.offsetParent && e.innerText.trim()).map(e => {{
    const [a, b] = [luminance(parts(getComputedStyle(e).color)), luminance(paper(e))].sort((x, y) => y - x); return [(a + .05) / (b + .05), e.innerText.slice(0, 60)] }}) }}"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("audit", ["first", "second"])
def test_a_page_fits_is_read_and_executes_nothing(browser, project, audit, width, scheme, tmp_path):
    seen = Seen(browser, width, scheme)
    seen.page.goto((project / f"results/audits/{audit}/report.html").as_uri())
    seen.page.screenshot(path=tmp_path / f"{audit}-{width}-{scheme}.png", full_page=True)

    seen.fits()
    seen.is_sound()
    unnamed = "[...document.querySelectorAll('img, svg[role=img]')].filter(e => !(e.getAttribute('alt') || e.getAttribute('aria-label'))).length"
    assert seen.page.evaluate(unnamed) == 0
    assert [found for found in seen.page.evaluate(CONTRASTS) if found[0] < CONTRAST] == []
    assert len(seen.page.evaluate(CONTRASTS)) > 30 and seen.page.evaluate("document.querySelectorAll('h1').length") == 1
    seen.page.close()


def test_hostile_names_are_seen_as_they_are(seen, project):
    seen.page.goto((project / "results/audits/second/report.html").as_uri())

    assert "<script>window.__hacked=1</script>" in seen.page.locator("body").inner_text()
    seen.is_sound()


def test_the_app_ends_with_ctrl_c_and_leaves_no_process(project):
    port = _free_port()
    process = _start(project, "--port", str(port), "--address", "127.0.0.1")
    _answers(port, process)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)

    assert "Traceback" not in said and process.returncode in (0, 130)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_port_in_use_is_said_and_another_is_taken_where_none_was_asked_for(project):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        process = _start(project, "--port", str(listening.getsockname()[1]), "--address", "127.0.0.1")
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 1 and "is in use" in said and "Traceback" not in said
