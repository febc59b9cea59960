"""What lies in a results folder: finished audits, unfinished ones with the stages that they lack, and those that cannot be read."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memleak import artefacts, params, plan

STAGES = ("data", "models", "signals", "scores", "thresholds", "metrics", "report")
OF = {"audit": "an audit", "sweep": "a sweep", "scores": "anybody's scores", "tester": "MembershipTester"}
AGAIN = "run snakemake again in that folder; nothing is trained again, the statistics alone are"
LARGEST = 200 * 2**20  # bytes of metrics; of a thousand classes and records they have one
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


@dataclass(frozen=True)
class AskedAudit:
    """What params.yaml asks of an audit, as plain data."""

    paths: dict[str, list[str]]  # the files of each stage
    facts: dict[str, Any]  # what its metrics say, where they are of it: recipe, seed, headline, attacks and design
    page: dict[str, Any]  # what its page is told of params.yaml
    shows_records: bool


@dataclass(frozen=True)
class Asked:
    """What params.yaml asks for, as plain data: it can come from another process, and holds nothing of the project's code."""

    audits: dict[str, AskedAudit]
    sweeps: dict[str, list[str]]  # the audits of each
    logs: list[str]  # what the folders of logs are called, below the name of the rule


def metrics_of(path: Path, *kinds: str) -> dict[str, Any]:
    """The metrics of an audit, or of whatever `kinds` allow: sweep, scores, tester.

    Raises ArtefactError for another format, in one sentence that says what to do.
    """
    if path.is_file() and path.stat().st_size > LARGEST:
        raise artefacts.ArtefactError(
            f"{path}: {path.stat().st_size / 2**20:,.0f} MB, metrics have {LARGEST // 2**20} at most; delete it and run again"
        )
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
    for key in ("attacks", "targets", "controls"):
        if not isinstance(found.get(key, {}), dict):
            raise artefacts.ArtefactError(f"{path}: damaged, {key} is no mapping of names; delete it and run again")
    return found


def plan_of(directory: Path) -> plan.Plan | None:
    """What params.yaml says should be there; None without that file. Raises ParamsError where it cannot be read."""
    if not (directory / "params.yaml").is_file():
        return None
    try:
        with _inside(directory):  # paths in params are relative to the folder of the run
            return plan.build(params.load(Path("params.yaml")))
    except RecursionError:
        raise params.ParamsError("params.yaml: it is nested too deep, or its own code calls itself without end") from None


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """As if started there. Where it was, nothing is changed: the current folder is that of all threads."""
    with contextlib.nullcontext() if directory.resolve() == Path.cwd() else contextlib.chdir(directory):
        yield


def asked_of(directory: Path) -> Asked | None:
    """What params.yaml asks for; None without that file. Raises ParamsError where it cannot be read.

    Runs the plug-ins that it names, whose options stand in their files, as every other verb does.
    """
    planned = plan_of(directory)
    if planned is None:
        return None
    with _inside(directory):  # options of the user's own attacks are read there
        audits = {name: _asked(audit) for name, audit in planned.audits.items()}
    sweeps = {sweep.id: sorted({audit.id for audit in sweep.audits.values()}) for sweep in planned.sweeps.values()}
    logs = sorted({*planned.audits, *planned.sweeps, *planned.recipes, *planned.given, *planned.datasets})
    return Asked(audits, sweeps, logs)


Ask = Callable[[Path], Asked | None]


def audits_of(directory: Path, ask: Ask = asked_of) -> list[Found]:
    """The audits of a project's folder (with params.yaml and results/), or of a bare folder of results.

    Where params.yaml cannot be read, or is not there, those of which metrics are there. `ask` reads it.
    """
    with contextlib.suppress(ValueError):  # `memleak status` says what is wrong with params.yaml; what lies there can still be looked at
        asked = ask(directory)
        if asked is not None:
            return [_audit(directory, name, one) for name, one in asked.audits.items()]
    return [_read(directory, path.stem) for path in sorted((directory / "results/metrics").glob("*.json"))]


def sweeps_of(directory: Path, ask: Ask = asked_of) -> list[Found]:
    """The sweeps of a project's folder, or of a bare folder of results; their metrics are those of frontier.json."""
    with contextlib.suppress(ValueError):
        asked = ask(directory)
        if asked is not None:
            return [_sweep(directory, name, audits) for name, audits in asked.sweeps.items()]
    return [_sweep(directory, path.parent.name, []) for path in sorted((directory / "results/audits").glob("*/frontier.json"))]


def _asked(planned: plan.PlannedAudit) -> AskedAudit:
    """One audit of a plan as plain data."""
    audit = planned.audit
    facts = {"recipe": planned.subject, "seed": planned.seed, "headline": audit.headline_attack}
    declared = {"attacks": sorted(audit.attacks), "design": audit.design.model_dump(mode="json")}
    return AskedAudit(_paths(planned), facts | declared, json.loads(planned.page_json()), audit.include_records)


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


def _audit(directory: Path, name: str, asked: AskedAudit) -> Found:
    """An audit of params.yaml: how far it is, and whether its metrics speak of what is asked for now."""
    stages = tuple(_counted(directory, stage, asked.paths[stage]) for stage in STAGES if asked.paths[stage])
    found = _read(directory, name)
    problem = found.problem or (found.metrics and _outdated(found.metrics, asked.facts))
    return Found(name, found.metrics, stages, problem or None, found.page)


def _counted(directory: Path, name: str, paths: Iterable[str]) -> Stage:
    there = [(directory / path).is_file() for path in paths]
    return Stage(name, sum(there), len(there))


def _outdated(metrics: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """In what the metrics differ from what params.yaml asks for."""
    differs = [name for name in ("recipe", "seed", "headline") if metrics.get(name) != asked[name]]
    differs += [] if sorted(metrics.get("attacks", ())) == asked["attacks"] else ["attacks"]
    differs += ["design"] if _differs(metrics.get("design"), asked["design"]) else []
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
        _counted(directory, "audits", [f"results/metrics/{audit}.json" for audit in audits]),
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
        asked = asked_of(directory)
        known = None if asked is None else set(asked.logs)
    found, logs = [], directory / "logs"
    for path in sorted(logs.rglob("*.log")):
        parts = path.relative_to(logs).with_suffix("").parts
        says = _last_sentence(path) if known is None or len(parts) < 2 or parts[1] in known else None
        if says:
            found.append(Failure("/".join(parts), says, path.relative_to(directory), path.stat().st_mtime))
    return sorted(found, key=lambda failure: (-failure.seconds, failure.job))


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
