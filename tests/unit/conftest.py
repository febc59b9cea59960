"""A whole small audit, stage by stage, in one process: what the tests of the later rooms read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memleak import artefacts, params, plan
from memleak.attacks import stage as attacks
from memleak.data import stage as data
from memleak.metrics import stage as metrics
from memleak.report import stage as report
from memleak.signals import stage as signals
from memleak.training import stage as training

CONFIG: dict[str, Any] = {
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"tiny": {"architecture": "mlp", "hidden": [32], "epochs": 25, "batch_size": 16, "learning_rate": 0.1}},
    "audits": {
        "small": {
            "dataset": "digits",
            "recipe": "tiny",
            "design": {"kind": "pairs", "targets": {"random": 1, "mislabelled": 1}, "rounds": 9, "holdout_rounds": 4, "subset_size": 64},
            "attacks": {
                "normal": {"name": "single_point", "alpha": 0.1},
                "kde": {"name": "single_point", "fit": "kde", "alpha": 0.1, "signal": "loss"},
                "empirical": {"name": "single_point", "fit": "empirical", "alpha": 0.1},
                "ratio": {"name": "single_point", "test": "likelihood_ratio", "alpha": 0.1},
            },
        }
    },
    "models_per_shard": 9,
}


@dataclass(frozen=True)
class Walk:
    """Where the artefacts of the small audit lie."""

    folder: Path
    planned: plan.PlannedAudit
    signals: list[Path]

    def __truediv__(self, name: str) -> Path:
        return self.folder / "results" / name

    @property
    def plan(self) -> Path:
        return self / "audits/small/plan.parquet"

    @property
    def samples(self) -> Path:
        return self / "audits/small/samples.parquet"

    @property
    def thresholds(self) -> list[Path]:
        return [self / f"audits/small/thresholds/{attack}.json" for attack in self.planned.audit.attacks]

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self / "metrics/small.json")


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Walk:
    """params -> plan -> models -> signals -> scores -> thresholds -> decisions -> metrics -> figures -> report."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        built = plan.build(params.validate(CONFIG))
        audit = built.audits["small"]
        recipe = params.Recipe(**CONFIG["recipes"]["tiny"])
        for (rounds, query), models, answers in zip(audit.shards, audit.models(), audit.signals(), strict=True):
            training.train(digits_path, audit.recipe.name, recipe, rounds, Path(models), "cpu")
            signals.query(Path(models), digits_path, audit.recipe.name, recipe, rounds, query.facts, Path(answers), "cpu")
    done = Walk(folder, audit, [folder / path for path in audit.signals()])
    data.plan(digits_path, json.loads(audit.canonical_json()), done.plan, done.samples)
    for attack, path in zip(audit.audit.attacks, done.thresholds, strict=True):
        options = json.loads(audit.attack_json(attack))
        metrics.threshold(done.plan, done.signals, None, options, path)
        attacks.score(done.plan, done.samples, done.signals, [], options, done / f"audits/small/scores/{attack}.parquet")
    decisions = done / "audits/small/decisions.parquet"
    metrics.decide(done.plan, done.signals, done.thresholds, sorted_scores(done), decisions)
    metrics.measure(
        done.plan, done.samples, done.signals, done.thresholds, sorted_scores(done), decisions, json.loads(audit.headline_json(False)),
        done / "metrics/small.json", done / "audits/small/exposure.parquet", done / "audits/small/roc.parquet", done / "plots/small.csv",
    )  # fmt: skip
    for name in audit.figures():
        figure = done / f"audits/small/figures/{name}"
        report.figure(name, done.plan, done.signals, done.thresholds, done / "metrics/small.json", done / "audits/small/roc.parquet", figure.with_suffix(".svg"), figure.with_suffix(".png"))  # fmt: skip
    report.timings(folder / "logs/benchmarks", audit.recipe.name, "small", done / "audits/small/timings.csv")
    figures = [done / f"audits/small/figures/{name}.svg" for name in audit.figures()]
    page = done / "audits/small/report.html"
    report.report(done / "metrics/small.json", done.plan, decisions, done / "audits/small/timings.csv", figures, json.loads(audit.page_json()), page)
    return done


def sorted_scores(done: Walk) -> list[Path]:
    return [done / f"audits/small/scores/{attack}.parquet" for attack in done.planned.audit.attacks]
