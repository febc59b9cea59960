"""What lies in a results folder: finished audits, unfinished ones with the stages that they lack, and those that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memleak import artefacts


@dataclass(frozen=True)
class Stage:
    """How much of a stage is there, such as 12 of 64 files of models; `done` is `total` where it is finished."""

    name: str  # data, models, signals, scores, thresholds, metrics or report
    done: int
    total: int


@dataclass(frozen=True)
class Found:
    """One audit of a folder: its metrics, or why there are none."""

    name: str
    metrics: dict[str, Any] | None
    stages: tuple[Stage, ...] = ()  # empty where no params.yaml says what should be there
    problem: str | None = None  # in one sentence: older or newer format, damaged
    page: Path | None = None  # report.html, where it is there


def metrics_of(path: Path) -> dict[str, Any]:
    """The metrics of an audit. Raises ArtefactError for another format, in one sentence that says what to do."""
    return artefacts.read_json(path)


def audits_of(directory: Path) -> list[Found]:
    """The audits of a project's folder (with params.yaml and results/), or of a bare folder of results."""
    paths = sorted((directory / "results/metrics").glob("*.json"))
    return [Found(path.stem, metrics_of(path)) for path in paths]
