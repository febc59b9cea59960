"""The stages `figure`, `timings`, `report`, `frontier` and `index`, and `stats` for anybody's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memleak import artefacts
from memleak.plan.sweeps import FIGURES
from memleak.report import page, pool, results
from memleak.report.timings import timings as timings  # a stage of its own, so that a change of the page leaves it

EXPOSED = ("sample_id", "source_id", "label", "n_holding", "n_detected", "rate", "low", "high", "bh")


def figure(
    name: str, plan_path: Path, signal_paths: Sequence[Path], threshold_paths: Sequence[Path], metrics_path: Path, roc_path: Path, svg: Path, png: Path,
    *, score_paths: Sequence[Path] = (), exposure_path: Path | None = None, data_path: Path | None = None,
) -> None:  # fmt: skip
    """Draw one figure of an audit.

    Of `pairs`: overview, training, or the sheet of the target `name`, for which signals and thresholds are read. Of
    other designs: headline, roc, scores, exposure, training; scores and exposure are read, and `data_path` where records may be shown.
    """
    from memleak.report import figures

    metrics = artefacts.read_json(metrics_path)
    if name == "training" or (name == "overview" and metrics["kind"] == "pairs"):
        drawn = getattr(figures, name)(metrics)
    elif metrics["kind"] == "pairs":
        drawn = _target(name, metrics, plan_path, signal_paths, threshold_paths, roc_path)
    else:
        drawn = _of_pool(name, metrics, plan_path, score_paths, roc_path, exposure_path, data_path)
    figures.save(drawn, svg, png)


def _target(
    name: str, metrics: dict[str, Any], plan_path: Path, signal_paths: Sequence[Path], threshold_paths: Sequence[Path], roc_path: Path
) -> Any:
    from memleak.attacks import pairs
    from memleak.report import figures

    thresholds = {path.stem: artefacts.read_json(path) for path in threshold_paths}
    arms = next(arm for arm in pairs.read(plan_path, signal_paths, ["margin", "loss"]) if arm.target == name).of_role("fit")
    values = arms.statistic(figures.signal_of(thresholds, metrics["headline"]))
    roc = artefacts.read_table(roc_path, ["subject", "fpr", "tpr", "precision", "low", "high", "certified"])
    return figures.target(name, metrics, thresholds, roc, *values)


def _of_pool(
    name: str,
    metrics: dict[str, Any],
    plan_path: Path,
    score_paths: Sequence[Path],
    roc_path: Path,
    exposure_path: Path | None,
    data_path: Path | None,
) -> Any:
    from memleak.report import pool_figures

    if name in ("headline", "roc"):
        curves = artefacts.read_table(roc_path, ["subject", "fpr", "tpr", "low", "high", "certified"])
        if name == "headline":
            return pool_figures.headline(metrics, curves)
        aucs = {attack: found["auc"]["value"] for attack, found in metrics["attacks"].items()}
        return pool_figures.roc(curves, aucs, metrics["headline"], "all targets together" if metrics["n_targets"] > 1 else "the audited model")
    if name == "scores":
        wanted = [attack for attack in (metrics["headline"], pool.baseline(metrics)) if attack]
        return pool_figures.scores({attack: _scores(plan_path, score_paths, attack) for attack in wanted}, metrics["headline"])
    if name == "exposure" and exposure_path is not None:
        exposed = artefacts.read_table(exposure_path, EXPOSED)
        pictures = _pictures(data_path, exposed["source_id"].to_numpy()[: pool_figures.N_PICTURES]) if data_path else None
        return pool_figures.exposure(exposed, pictures, metrics["data"]["class_names"], metrics["alpha"])
    raise ValueError(f"no figure is called {name} in an audit of kind {metrics['kind']}; expected headline, roc, scores, exposure or training")


def _scores(plan_path: Path, score_paths: Sequence[Path], attack: str) -> tuple[np.ndarray, np.ndarray]:
    """An attack's scores of the samples that the targets trained on, and of the others."""
    from memleak.metrics import pool_audit

    path = next(path for path in score_paths if path.stem == attack)
    models, _, found = pool_audit.read(plan_path, path, ["score"])
    own, truth = found["score"][models.targets], models.is_member[models.targets]
    return own[truth & ~np.isnan(own)], own[~truth & ~np.isnan(own)]


def _pictures(data_path: Path, source_id: np.ndarray) -> np.ndarray | None:
    """The images [n, H, W, C] of some records, 0 to 1: the largest value of an unusual range (digits: 16) is white; None for tables."""
    inputs = artefacts.read_array(data_path.parent / "inputs.npy")
    if inputs.ndim != 4 or not len(source_id):
        return None
    some = inputs[: min(len(inputs), 1000)]
    darkest, lightest = (0.0, max(float(some.max()), 1.0)) if inputs.dtype == np.uint8 else (float(some.min()), float(some.max()))
    return ((np.asarray(inputs[source_id], dtype=np.float64) - darkest) / max(lightest - darkest, 1e-12)).clip(0, 1)


def report(
    metrics_path: Path,
    plan_path: Path,
    decisions_path: Path | None,
    timings_path: Path,
    figure_paths: Sequence[Path],
    params: dict[str, Any],
    output: Path,
) -> str:
    """Write the page of an audit; returns its verdict in one line. Decisions are read where the audit is of pairs."""
    import pandas as pd

    metrics, figures = artefacts.read_json(metrics_path), {path.stem: path.read_text(encoding="utf-8") for path in figure_paths}
    timings = pd.read_csv(timings_path)
    if metrics["kind"] == "pairs":
        assert decisions_path is not None
        decisions = artefacts.read_table(decisions_path, ["attack", "target", "round", "value", "says_member", "is_member"])
        html, line = page.audit_page(metrics, artefacts.read_facts(plan_path), decisions, timings, figures, params)
    else:
        html, line = page.pool_page(metrics, timings, figures, params)
    _write(output, html)
    return line


def summary(metrics_path: Path, params: dict[str, Any], output: Path) -> str:
    """Write the one-page text report; returns it."""
    from memleak.report import text

    found = text.text(artefacts.read_json(metrics_path), params)
    _write(output, found)
    return found


def frontier_figure(name: str, frontier_path: Path, svg: Path, png: Path) -> None:
    """Draw one figure of a sweep: frontier or gap."""
    from memleak.report import figures, frontier_figures

    if name not in FIGURES:
        raise ValueError(f"no figure of a sweep is called {name}; expected {' or '.join(FIGURES)}")
    figures.save(getattr(frontier_figures, name)(artefacts.read_json(frontier_path)), svg, png)


def frontier(frontier_path: Path, figure_paths: Sequence[Path], output: Path) -> str:
    """Write the page of a sweep; returns what it found in one line."""
    figures = {path.stem: path.read_text(encoding="utf-8") for path in figure_paths}
    html, line = page.frontier_page(artefacts.read_json(frontier_path), figures)
    _write(output, html)
    return line


def index(metrics_paths: Sequence[Path], output: Path, sweep_paths: Sequence[Path] = ()) -> int:
    """Write the page over all audits and sweeps; returns the number of audits."""
    metrics, sweeps = [results.metrics_of(path) for path in metrics_paths], [results.metrics_of(path, "sweep") for path in sweep_paths]
    write_index(metrics, sweeps, (), output)
    return len(metrics)


def write_index(metrics: Sequence[dict[str, Any]], sweeps: Sequence[dict[str, Any]], unfinished: Sequence[results.Found], output: Path) -> None:
    """Write the page over all audits and sweeps, and what of them is not finished."""
    _write(output, page.index_page(list(metrics), sweeps, unfinished))


def stats(source: Path, output: Path, name: str) -> str:
    """Measure anybody's scores; write metrics.json, roc.csv, roc.svg, roc.png and report.html into a folder; returns the numbers as text."""
    from memleak.metrics import stats as measured
    from memleak.report import figures, pool_figures

    table = measured.read(source)
    metrics, curve = measured.measure(table)
    artefacts.write_json(output / "metrics.json", artefacts.stamped("scores", {"name": name} | metrics))
    artefacts.write_csv(output / "roc.csv", curve)
    drawn = pool_figures.roc(curve.assign(subject=name), {name: metrics["auc"]["value"]}, name, "all scores")
    figures.save(drawn, output / "roc.svg", output / "roc.png")
    _write(output / "report.html", page.stats_page(name, metrics, (output / "roc.svg").read_text(encoding="utf-8")))
    return f"{page.stats_text(name, metrics)}\nreport: {output / 'report.html'}"


def _write(path: Path, text: str) -> None:
    with artefacts.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
