"""A whole small audit, stage by stage, in one process: what the tests of the later rooms read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memleak import artefacts, params, plan
from memleak.attacks import stage as attacks
from memleak.data import read
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
MY_DATA = """
import numpy as np
from sklearn.datasets import load_digits

def _rows(first, last):
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[first:last]
    return digits.images[order].astype(np.uint8)[..., None], digits.target[order]

def get_train():
    return _rows(0, 150)

def get_test():
    return _rows(150, 320)

def get_shadow():
    return _rows(320, 720)

def get_population():
    return _rows(720, 800)
"""
MY_MODEL = """
from torch import nn

def get_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
"""
MY_PARTS = {
    "parts": {
        part: {"name": f"my_data.py:get_{name}"}
        for part, name in (("members", "train"), ("non-members", "test"), ("shadow", "shadow"), ("public", "population"))
    }
}
GIVEN_MODEL = {"name": "my_model.py:get_model", "weights": "mine.safetensors", "inputs": "stored"}
GIVEN: dict[str, Any] = {
    "design": {"kind": "given", "model": GIVEN_MODEL, "references": {"kind": "shadow", "models": 4}},
    "attacks": {
        "loss": {"name": "threshold"},
        "correctness": {"name": "threshold", "signal": "correctness"},
        "shadow": {"name": "shadow", "label": "none"},
        "top-k": {"name": "top_k", "k": 3, "classifier": "logistic"},
        "moved": {"name": "label_only", "views": ["identity", "shift-1"]},
        "noise": {"name": "label_only", "method": "noise", "queries": 20},
    },
    "headline": "shadow",
    "alpha": 0.05,
}
ALONE: dict[str, Any] = {
    "design": {"kind": "given", "model": GIVEN_MODEL, "population": "public"},
    "attacks": {
        "loss": {"name": "threshold"},
        "correctness": {"name": "threshold", "signal": "correctness"},
        "gradient": {"name": "threshold", "signal": "gradient_norm"},
        "population": {"name": "population"},
    },
    "alpha": 0.05,
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

    def asked_by(self, attack: str) -> list[Path]:
        """The signals that an attack reads."""
        return [self.folder / path for path in self.planned.signals(attack)]

    @property
    def metrics(self) -> dict[str, Any]:
        return artefacts.read_json(self / "metrics/small.json")


def walked(folder: Path, data_path: Path, audit: dict[str, Any], dataset: dict[str, Any] | None = None) -> Walk:
    """params -> plan -> models -> signals -> scores -> thresholds -> decisions -> metrics. The data set is digits unless another is declared."""
    recipe = None if audit["design"]["kind"] == "given" and "references" not in audit["design"] else "tiny"
    config = {
        "datasets": {"digits": dataset or {"name": "digits"}},
        "recipes": {"tiny": RECIPE},
        "audits": {"small": {"dataset": "digits", **({"recipe": recipe} if recipe else {}), **audit}},
        "models_per_shard": 9,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planned = plan.build(params.validate(config)).audits["small"]
        models = dict(zip([shard for shard, _ in planned.shards], planned.models(), strict=True))
        for shard, path in models.items():
            training.train(data_path, planned.recipe.name, params.Recipe(**RECIPE), shard, Path(path), "cpu")
        for shard, query in planned.all_asked():
            answers = Path(planned.answers(shard, query))
            if shard is None:
                signals.query_given(planned.given.name, planned.given.model, data_path, query.facts, answers, "cpu")
            else:
                signals.query(Path(models[shard]), data_path, planned.recipe.name, params.Recipe(**RECIPE), shard, query.facts, answers, "cpu")
        done = Walk(folder, planned, [folder / path for path in planned.signals()], [folder / path for path in planned.population_signals()])
        data.plan(data_path, json.loads(planned.canonical_json()), done.plan, done.samples)
    if planned.given:
        data.features(data_path, done.samples, done.audit("features.parquet"))
    for attack, thresholds, scores in zip(planned.audit.attacks, done.thresholds, done.scores, strict=True):
        options, wanted = json.loads(planned.attack_json(attack)), planned.population_signals(attack) if planned.wants_population(attack) else []
        population = [folder / path for path in wanted]
        attacks.score(done.plan, done.samples, done.asked_by(attack), population, options, scores)
        metrics.threshold(done.plan, done.signals, scores, options, thresholds)
    metrics.decide(done.plan, done.signals, done.thresholds, done.scores, done.audit("decisions.parquet"))
    metrics.measure(
        done.plan, done.samples, done.signals, done.thresholds, done.scores, done.audit("decisions.parquet"),
        json.loads(planned.headline_json(False)), done / "metrics/small.json", done.audit("exposure.parquet"), done.audit("roc.parquet"),
        done / "plots/small.csv", done.audit("exposed.csv"), done.audit("features.parquet") if planned.given else None,
    )  # fmt: skip
    return done


def given_walked(folder: Path, audit: dict[str, Any] = ALONE, files: dict[str, str] | None = None) -> Walk:
    """The same of a model that is there: a small network that knows its 150 members by heart. `files`: of the user's, instead of ours."""
    for name, text in {"my_data.py": MY_DATA, "my_model.py": MY_MODEL, **(files or {})}.items():
        (folder / name).write_text(text)
        sys.modules.pop(Path(name).stem, None)  # of another test's folder
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        declared = params.Dataset(**MY_PARTS)
        data.fetch(declared, folder / "dataset.json")
        if not (folder / "mine.safetensors").exists():
            train_by_heart(folder)
    return walked(folder, folder / "dataset.json", audit, MY_PARTS)


def train_by_heart(folder: Path, seed: int = 0) -> None:
    """Write weights of a network that was trained on the members alone, on records as they are stored."""
    import torch
    from safetensors.torch import save_file

    prepared = read(folder / "dataset.json")
    rows = slice(*prepared.parts["members"])
    inputs, labels = torch.from_numpy(np.array(prepared.inputs[rows], dtype=np.float32)), torch.from_numpy(np.array(prepared.labels[rows]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(300):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            optimiser.step()
    save_file(network.state_dict(), folder / "mine.safetensors")


def reported(done: Walk) -> Walk:
    """A measured `pairs` audit, and its figures and page."""
    for name in done.planned.figures():
        svg = done.audit(f"figures/{name}.svg")
        report.figure(
            name, done.plan, done.signals, done.thresholds, done / "metrics/small.json", done.audit("roc.parquet"), svg, svg.with_suffix(".png")
        )
    report.timings(done.folder / "logs/benchmarks", done.planned.names_of_models(), "small", done.audit("timings.csv"))
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


@pytest.fixture(scope="session")
def given_walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """A `given` audit with shadow models, measured."""
    return given_walked(tmp_path_factory.mktemp("given"), GIVEN)


@pytest.fixture(scope="session")
def given_alone(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """A `given` audit without reference models, measured."""
    return given_walked(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def walk_given() -> Callable[..., Walk]:
    """Walks another `given` audit in a folder, with other files of the user's."""
    return given_walked
