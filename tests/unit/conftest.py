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

RECIPE = {"architecture": "mlp", "hidden": [32], "epochs": 25, "batch_size": 16, "learning_rate": 0.1}
PAIRS: dict[str, Any] = {
    "design": {"kind": "pairs", "targets": {"random": 1, "mislabelled": 1}, "rounds": 9, "holdout_rounds": 4, "subset_size": 64},
    "attacks": {
        "normal": {"name": "single_point", "alpha": 0.1},
        "kde": {"name": "single_point", "fit": "kde", "alpha": 0.1, "signal": "loss"},
        "empirical": {"name": "single_point", "fit": "empirical", "alpha": 0.1},
        "ratio": {"name": "single_point", "test": "likelihood_ratio", "alpha": 0.1},
    },
}
REFERENCED: dict[str, Any] = PAIRS | {  # reference-model attacks on pairs: hold-out models are the targets
    "design": PAIRS["design"] | {"pool": 1200, "population": 40},
    "attacks": {
        "lira": {"name": "lira", "variance": "per_sample"},
        "rmia": {"name": "rmia", "mode": "online", "a": 0.3},
        "normal": {"name": "single_point"},
    },
    "alpha": 0.1,
}
POOL: dict[str, Any] = {
    "design": {"kind": "halves", "models": 12, "pool": 150, "population": 60},
    "views": ["identity", "flip"],
    "attacks": {
        "loss": {"name": "threshold"},
        "lira": {"name": "lira"},
        "rmia": {"name": "rmia", "a": "tune", "references": 6},
        "population": {"name": "population"},
    },
    "headline": "lira",
    "alpha": 0.05,
    "include_records": True,
}
COINS: dict[str, Any] = {
    "design": {"kind": "canaries", "canaries": 60, "subset_size": 40, "models": 4, "mislabelled": True},
    "attacks": {"loss": {"name": "threshold"}},
}


@dataclass(frozen=True)
class Walk:
    """Where the artefacts of a small audit lie."""

    folder: Path
    planned: plan.PlannedAudit
    signals: list[Path]
    population: list[Path]

    def __truediv__(self, name: str) -> Path:
        return self.folder / "results" / name

    def audit(self, name: str) -> Path:
        """An artefact of the audit."""
        return self / f"audits/small/{name}"

    @property
    def plan(self) -> Path:
        return self.audit("plan.parquet")

    @property
    def samples(self) -> Path:
        return self.audit("samples.parquet")

    @property
    def thresholds(self) -> list[Path]:
        return [self.audit(f"thresholds/{attack}.json") for attack in self.planned.audit.attacks]

    @property
    def scores(self) -> list[Path]:
        return [self.audit(f"scores/{attack}.parquet") for attack in self.planned.audit.attacks]

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self / "metrics/small.json")


def walked(folder: Path, digits_path: Path, audit: dict[str, Any]) -> Walk:
    """params -> plan -> models -> signals -> scores -> thresholds -> decisions -> metrics."""
    config = {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"tiny": RECIPE},
        "audits": {"small": {"dataset": "digits", "recipe": "tiny", **audit}},
        "models_per_shard": 9,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planned = plan.build(params.validate(config)).audits["small"]
        recipe = params.Recipe(**RECIPE)
        models = dict(zip([shard for shard, _ in planned.shards], planned.models(), strict=True))
        for shard, path in models.items():
            training.train(digits_path, planned.recipe.name, recipe, shard, Path(path), "cpu")
        for shard, query in planned.all_asked():
            answers = Path(planned.answers(shard, query))
            signals.query(Path(models[shard]), digits_path, planned.recipe.name, recipe, shard, query.facts, answers, "cpu")
    done = Walk(folder, planned, [folder / path for path in planned.signals()], [folder / path for path in planned.population_signals()])
    data.plan(digits_path, json.loads(planned.canonical_json()), done.plan, done.samples)
    for attack, thresholds, scores in zip(planned.audit.attacks, done.thresholds, done.scores, strict=True):
        options, population = json.loads(planned.attack_json(attack)), done.population if planned.wants_population(attack) else []
        attacks.score(done.plan, done.samples, done.signals, population, options, scores)
        metrics.threshold(done.plan, done.signals, scores, options, thresholds)
    metrics.decide(done.plan, done.signals, done.thresholds, done.scores, done.audit("decisions.parquet"))
    metrics.measure(
        done.plan, done.samples, done.signals, done.thresholds, done.scores, done.audit("decisions.parquet"),
        json.loads(planned.headline_json(False)), done / "metrics/small.json", done.audit("exposure.parquet"), done.audit("roc.parquet"),
        done / "plots/small.csv", done.audit("exposed.csv"),
    )  # fmt: skip
    return done


def reported(done: Walk) -> Walk:
    """A measured `pairs` audit, and its figures and page."""
    for name in done.planned.figures():
        svg = done.audit(f"figures/{name}.svg")
        report.figure(
            name, done.plan, done.signals, done.thresholds, done / "metrics/small.json", done.audit("roc.parquet"), svg, svg.with_suffix(".png")
        )
    report.timings(done.folder / "logs/benchmarks", done.planned.recipe.name, "small", done.audit("timings.csv"))
    figures = [done.audit(f"figures/{name}.svg") for name in done.planned.figures()]
    report.report(
        done / "metrics/small.json", done.plan, done.audit("decisions.parquet"), done.audit("timings.csv"), figures,
        json.loads(done.planned.page_json()), done.audit("report.html"),
    )  # fmt: skip
    return done


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Walk:
    """A `pairs` audit from params to its page."""
    return reported(walked(tmp_path_factory.mktemp("walk"), digits_path, PAIRS))


@pytest.fixture(scope="session")
def referenced(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Walk:
    """A `pairs` audit by LiRA and RMIA, from params to its page."""
    return reported(walked(tmp_path_factory.mktemp("referenced"), digits_path, REFERENCED))


@pytest.fixture(scope="session")
def pool_walk(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Walk:
    """A `halves` audit, measured."""
    return walked(tmp_path_factory.mktemp("pool"), digits_path, POOL)


@pytest.fixture(scope="session")
def coins(tmp_path_factory: pytest.TempPathFactory, digits_path: Path) -> Walk:
    """A `canaries` audit, measured."""
    return walked(tmp_path_factory.mktemp("coins"), digits_path, COINS)
