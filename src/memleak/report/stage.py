"""The stages `figure`, `timings`, `report` and `index`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memleak import artefacts
from memleak.report import page
from memleak.report.timings import timings as timings  # a stage of its own, so that a change of the page leaves it


def figure(
    name: str,
    plan_path: Path,
    signal_paths: Sequence[Path],
    threshold_paths: Sequence[Path],
    metrics_path: Path,
    roc_path: Path,
    svg: Path,
    png: Path,
) -> None:
    """Draw one figure: `overview`, `training`, or the sheet of the target `name`."""
    from memleak.attacks import pairs
    from memleak.report import figures

    metrics = artefacts.read_json(metrics_path)
    if name in ("overview", "training"):
        figures.save(getattr(figures, name)(metrics), svg, png)
        return
    thresholds = {path.stem: artefacts.read_json(path) for path in threshold_paths}
    arms = next(arm for arm in pairs.read(plan_path, signal_paths, ["margin", "loss"]) if arm.target == name).of_role("fit")
    values = arms.statistic(thresholds[metrics["headline"]]["attack"]["options"]["signal"])
    roc = artefacts.read_table(roc_path, ["subject", "fpr", "tpr", "precision", "low", "high", "certified"])
    figures.save(figures.target(name, metrics, thresholds, roc, *values), svg, png)


def report(
    metrics_path: Path, plan_path: Path, decisions_path: Path, timings_path: Path, figure_paths: Sequence[Path], params: dict[str, Any], output: Path
) -> str:
    """Write the page of an audit; returns its verdict in one line."""
    import pandas as pd

    html, line = page.audit_page(
        artefacts.read_json(metrics_path),
        artefacts.read_facts(plan_path),
        artefacts.read_table(decisions_path, ["attack", "target", "round", "value", "says_member", "is_member"]),
        pd.read_csv(timings_path),
        {path.stem: path.read_text(encoding="utf-8") for path in figure_paths},
        params,
    )
    with artefacts.atomic(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return line


def index(metrics_paths: Sequence[Path], output: Path) -> int:
    """Write the page over all audits; returns their number."""
    html = page.index_page([artefacts.read_json(path) for path in metrics_paths])
    with artefacts.atomic(output) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return len(metrics_paths)
