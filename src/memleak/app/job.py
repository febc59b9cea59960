"""One run of `memleak tester` in a process and a folder of its own: started, watched, cancelled, and forgotten with all its files."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import memleak
from memleak import artefacts

PATIENCE = 3.0  # seconds that a cancelled process has to end by itself
TAIL = 8192  # bytes of its words that are looked at
_BAR = re.compile(r"(\d+)/(\d+) \[[^\]]*?, ([^,\]]+)\]\s*$")  # how tqdm ends a line: done, of how many, and what is going on
_STEPS = {
    "texts": "Reading the texts", "model": "Asking the model", "plan": "Drawing up the plan", "blind features": "Looking at the texts without the model",
    "measures": "Measuring",
}  # fmt: skip
OUTPUTS = ("--directory=artefacts", "--json=memleak.json", "--csv=texts.csv", "--output=report.html")
_CURVES = ("subject", "fpr", "tpr", "low", "high", "certified")


@dataclass(frozen=True)
class Progress:
    """How far a run is, 0 to 1, what it does now, and the last line that it said."""

    share: float
    words: str
    line: str = ""


@dataclass(frozen=True)
class Result:
    """What a finished run found: its numbers, a row a text and attack, points of the ROC, and the files to keep."""

    found: dict[str, Any]
    frames: pd.DataFrame
    curves: pd.DataFrame
    files: Mapping[str, bytes]  # by the names to save them under


class Job:
    """A running or finished test. When nobody holds it any more, its process is ended and its folder removed."""

    def __init__(self, arguments: Sequence[str], uploads: Mapping[str, bytes], python: str = sys.executable) -> None:
        """Start `memleak tester` with arguments that may name `uploads`, which are written into its folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="memleak-app-"))  # that only this user can read
        self.started, self.is_cancelled = time.monotonic(), False
        for name, content in uploads.items():
            (self.folder / name).write_bytes(content)
        command = [python, "-P", "-m", "memleak", "tester", "--progress", *arguments, *OUTPUTS]
        with open(self.folder / "said", "wb") as said, open(self.folder / "errors", "wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=errors, env=_environment(), start_new_session=True
            )
        self._forget = weakref.finalize(self, _end_and_remove, self._process, self.folder)
        _ALL.add(self)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    @property
    def progress(self) -> Progress:
        """How far it is, by the last lines of its standard error."""
        share, words, line = 0.0, "Loading the model", ""
        for text in _lines(self.folder / "errors"):
            bar = _BAR.search(text)
            if bar:
                done, total, step = int(bar[1]), int(bar[2]), bar[3]
                share, words = max(0, done - 1) / max(total, 1), _STEPS.get(step, words if step.startswith("?") else f"Attack {step}")
            else:
                line = text
        return Progress(share, words, line)

    @functools.cached_property
    def problem(self) -> str | None:
        """Why there is no result, in one sentence; None where there is one. Of a finished run."""
        code = self._process.wait()
        if self.is_cancelled:
            return "Cancelled; nothing was kept."
        if code == 0 and (self.folder / "memleak.json").exists():
            return None
        lines = [line for line in _lines(self.folder / "errors") if not _BAR.search(line)]
        told = next((line.partition("memleak tester: ")[2] for line in reversed(lines) if line.startswith("memleak tester: ")), None)
        if told is None:
            why = "it ran out of memory, or somebody ended it" if code in (-9, 137) else f"exit code {code}"
            told = f"The test ended without a result ({why}). {lines[-1] if lines else ''}".strip()
        return told.replace(f"{self.folder.resolve()}/", "").replace(f"{self.folder}/", "")

    @functools.cached_property
    def result(self) -> Result:
        """What was found. Of a run without a problem."""
        read = {name: (self.folder / name).read_bytes() for name in ("report.html", "memleak.json", "texts.csv")}
        curves = artefacts.read_table(self.folder / "artefacts/results/audits/texts/roc.parquet", _CURVES)
        return Result(json.loads(read["memleak.json"]), pd.read_csv(self.folder / "texts.csv"), curves, read)

    def cancel(self) -> None:
        """End the process and all that it started."""
        self.is_cancelled = self.is_cancelled or self.is_running
        _end(self._process)

    def forget(self) -> None:
        """End it, and remove its folder."""
        self._forget()


_ALL: weakref.WeakSet[Job] = weakref.WeakSet()  # of all sessions


def n_running() -> int:
    """Tests that run now, whoever started them."""
    return sum(job.is_running for job in list(_ALL))


def _environment() -> dict[str, str]:
    """This process's own, with this memleak before any other; the run ends when this process does."""
    paths = [str(Path(memleak.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MEMLEAK_PARENT": str(os.getpid()), "COLUMNS": "200"}


def _lines(path: Path) -> list[str]:
    """The last lines that a process wrote, printable; a bar draws over itself, and each time is a line."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        text = file.read().decode("utf-8", errors="replace")
    lines = ("".join(letter for letter in line if letter.isprintable()).strip() for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: asked first, then made to."""
    if process.poll() is not None:
        return
    for ask in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, ask)
            else:
                process.send_signal(ask)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            return


def _end_and_remove(process: subprocess.Popen[bytes], folder: Path) -> None:
    _end(process)
    shutil.rmtree(folder, ignore_errors=True)
