"""What lies in a results folder: finished audits, unfinished ones with the stages that they lack, and those that cannot be read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memleak import artefacts, params, plan

STAGES = ("data", "models", "signals", "scores", "thresholds", "metrics", "report")
OF = {"audit": "an audit", "sweep": "a sweep", "scores": "anybody's scores", "tester": "MembershipTester"}
AGAIN = "run snakemake again in that folder; nothing is trained again, the statistics alone are"
TAIL = 8192  # bytes at the end of a log in which a job's last sentence stands
SENTENCE = re.compile(r"^memleak [a-z-]+: .+\Z", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Stage:
    """How much of a stage is there, such as 12 of 64 files of models; `done` is `total` where it is finished."""

    name: str  # data, models, signals, scores, thresholds, metrics or report; of a sweep: audits, metrics, report
    done: int
    total: int

    @property
    def is_finished(self) -> bool:
        return self.done == self.total


@dataclass(frozen=True)
class Found:
    """One audit of a folder: its metrics, or why there are none."""

    name: str
    metrics: dict[str, Any] | None
    stages: tuple[Stage, ...] = ()  # empty where no params.yaml says what should be there
    problem: str | None = None  # in one sentence: older or newer format, damaged; beside metrics: they are of an earlier params.yaml
    page: Path | None = None  # report.html, where it is there

    @property
    def is_finished(self) -> bool:
        """Whether metrics and page are there and speak of what params.yaml asks for; models may have been removed since."""
        last = [stage for stage in self.stages if stage.name in ("metrics", "report")]
        return self.metrics is not None and self.problem is None and all(stage.is_finished for stage in last)

    @property
    def missing(self) -> str:
        """The stages that are not whole, such as `models 12 of 64, metrics 0 of 1`."""
        return ", ".join(f"{stage.name} {stage.done} of {stage.total}" for stage in self.stages if not stage.is_finished)


@dataclass(frozen=True)
class Failure:
    """The sentence with which a job ended."""

    job: str  # such as train/digits-cnn-1a2b3c4d/halves-p3f9a-s0-m0000-0008
    says: str
    log: Path
    seconds: float  # since the epoch


def metrics_of(path: Path, *kinds: str) -> dict[str, Any]:
    """The metrics of an audit, or of whatever `kinds` allow: sweep, scores, tester.

    Raises ArtefactError for another format, in one sentence that says what to do.
    """
    found = artefacts.read_json(path)
    if not isinstance(found, dict) or not ("format" in found or found.keys() & {"audit", "sweep", "auc", "attacks"}):
        raise artefacts.ArtefactError(f"{path}: holds no metrics of memleak; expected a file such as results/metrics/AUDIT.json")
    form = found.get("format", 1)
    if not isinstance(form, int) or form > artefacts.METRICS_FORMAT:
        writer = f"memleak {found.get('memleak', 'of a later version')}"
        raise artefacts.ArtefactError(f"{path}: written by {writer}, in format {form}; this one reads {artefacts.METRICS_FORMAT}: update memleak")
    if form < artefacts.METRICS_FORMAT:
        raise artefacts.ArtefactError(f"{path}: written by memleak before 0.2; {AGAIN}")
    wanted = kinds or ("audit",)
    if found.get("of") not in wanted:
        there, expected = OF.get(str(found.get("of")), "something else"), " or ".join(OF[kind] for kind in wanted)
        raise artefacts.ArtefactError(f"{path}: holds metrics of {there}; expected those of {expected}")
    return found


def plan_of(directory: Path) -> plan.Plan | None:
    """What params.yaml says should be there; None without that file. Raises ParamsError where it cannot be read."""
    if not (directory / "params.yaml").is_file():
        return None
    with _inside(directory):  # paths in params are relative to the folder of the run
        return plan.build(params.load(Path("params.yaml")))


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """As if started there. Where it was, nothing is changed: the current folder is that of all threads."""
    with contextlib.nullcontext() if directory.resolve() == Path.cwd() else contextlib.chdir(directory):
        yield


def audits_of(directory: Path) -> list[Found]:
    """The audits of a project's folder (with params.yaml and results/), or of a bare folder of results.

    Where params.yaml cannot be read, or is not there, those of which metrics are there.
    """
    with contextlib.suppress(ValueError):  # `memleak status` says what is wrong with params.yaml; what lies there can still be looked at
        planned = plan_of(directory)
        if planned is not None:
            with _inside(directory):  # options of the user's own attacks are read there
                paths = [_paths(audit) for audit in planned.audits.values()]
            return [_audit(directory, *asked) for asked in zip(planned.audits.values(), paths, strict=True)]
    return [_read(directory, path.stem) for path in sorted((directory / "results/metrics").glob("*.json"))]


def sweeps_of(directory: Path) -> list[Found]:
    """The sweeps of a project's folder, or of a bare folder of results; their metrics are those of frontier.json."""
    with contextlib.suppress(ValueError):
        planned = plan_of(directory)
        if planned is not None:
            return [_sweep(directory, sweep.id, [audit.id for audit in sweep.audits.values()]) for sweep in planned.sweeps.values()]
    return [_sweep(directory, path.parent.name, []) for path in sorted((directory / "results/audits").glob("*/frontier.json"))]


def _paths(planned: plan.PlannedAudit) -> dict[str, list[str]]:
    """The files of an audit by stage."""
    attacks, folder = list(planned.audit.attacks), f"results/audits/{planned.id}"
    return {
        "data": [planned.data_path()],
        "models": planned.models(),
        "signals": planned.signals() if planned.query is None else sorted({planned.answers(*asked) for asked in planned.all_asked()}),
        "scores": [f"{folder}/scores/{attack}.parquet" for attack in attacks],
        "thresholds": [f"{folder}/thresholds/{attack}.json" for attack in attacks],
        "metrics": [f"results/metrics/{planned.id}.json"],
        "report": [f"{folder}/report.html"],
    }


def _audit(directory: Path, planned: plan.PlannedAudit, paths: dict[str, list[str]]) -> Found:
    """An audit of params.yaml: how far it is, and whether its metrics speak of what is asked for now."""
    stages = tuple(_counted(directory, name, paths[name]) for name in STAGES if paths[name])
    found = _read(directory, planned.id)
    problem = found.problem or (found.metrics and _outdated(found.metrics, planned))
    return Found(planned.id, found.metrics, stages, problem or None, found.page)


def _counted(directory: Path, name: str, paths: Iterable[str]) -> Stage:
    there = [(directory / path).is_file() for path in paths]
    return Stage(name, sum(there), len(there))


def _outdated(metrics: dict[str, Any], planned: plan.PlannedAudit) -> str | None:
    """In what the metrics differ from what params.yaml asks for."""
    asked = {"recipe": planned.subject, "seed": planned.seed, "headline": planned.audit.headline_attack}
    differs = [name for name, value in asked.items() if metrics.get(name) != value]
    differs += [] if sorted(metrics.get("attacks", ())) == sorted(planned.audit.attacks) else ["attacks"]
    differs += ["design"] if _differs(metrics.get("design"), planned.audit.design.model_dump(mode="json")) else []
    return f"its metrics are of an earlier params.yaml (another {', '.join(differs)}); run snakemake" if differs else None


def _differs(old: Any, new: Any) -> bool:
    """Whether two declarations differ in what both of them know: a later version may declare more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_differs(old[key], new[key]) for key in old.keys() & new.keys())
    return bool(old != new)


def _read(directory: Path, name: str) -> Found:
    """The metrics of an audit and its page, as far as they are there."""
    path, page = directory / f"results/metrics/{name}.json", directory / f"results/audits/{name}/report.html"
    known = page if page.is_file() else None
    if not path.is_file():
        return Found(name, None, page=known)
    try:
        return Found(name, metrics_of(path), page=known)
    except artefacts.ArtefactError as error:
        return Found(name, None, problem=str(error), page=known)


def _sweep(directory: Path, name: str, audits: list[str]) -> Found:
    """A sweep: how many of its audits are measured, and what they were compared to."""
    folder = directory / f"results/audits/{name}"
    page = folder / "frontier.html"
    counted = (
        _counted(directory, "audits", [f"results/metrics/{audit}.json" for audit in sorted(set(audits))]),
        _counted(directory, "metrics", [f"results/audits/{name}/frontier.json"]),
        _counted(directory, "report", [f"results/audits/{name}/frontier.html"]),
    )
    known, stages = page if page.is_file() else None, counted if audits else ()
    if not (folder / "frontier.json").is_file():
        return Found(name, None, stages, page=known)
    try:
        return Found(name, metrics_of(folder / "frontier.json", "sweep"), stages, page=known)
    except artefacts.ArtefactError as error:
        return Found(name, None, stages, problem=str(error), page=known)


def failures_of(directory: Path) -> list[Failure]:
    """The jobs that ended with an error when they last ran, the latest first; of what params.yaml asks for now, where it can be read."""
    known = None
    with contextlib.suppress(ValueError):
        known = _names(plan_of(directory))
    found, logs = [], directory / "logs"
    for path in sorted(logs.rglob("*.log")):
        parts = path.relative_to(logs).with_suffix("").parts
        says = _last_sentence(path) if known is None or len(parts) < 2 or parts[1] in known else None
        if says:
            found.append(Failure("/".join(parts), says, path.relative_to(directory), path.stat().st_mtime))
    return sorted(found, key=lambda failure: (-failure.seconds, failure.job))


def _names(planned: plan.Plan | None) -> set[str] | None:
    """What the folders of logs are called, below the name of the rule."""
    return None if planned is None else {*planned.audits, *planned.sweeps, *planned.recipes, *planned.given, *planned.datasets}


def _last_sentence(path: Path) -> str | None:
    """What a job said when it gave up: a sentence of ours, or the last line of a traceback; None where it ended well."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        text = file.read().decode("utf-8", "replace").replace("\r", "\n").strip()
    ours = SENTENCE.search(text)
    if ours is not None:
        return ours.group().replace("\n", " ")
    lines = text.splitlines()
    is_broken = any(line.startswith("Traceback (most recent call last)") for line in lines) and not lines[-1].startswith(" ")
    return lines[-1] if is_broken else None
