"""A small project in a folder of its own, run as on a machine whose environment is not activated."""

from __future__ import annotations

import copy
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TRACKED = ("Snakefile", "workflow", "profiles", "src", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore")
PARAMS = {
    "seed": 0,
    "datasets": {"digits": {"name": "digits"}},
    "recipes": {"tiny": {"architecture": "mlp", "hidden": [16], "epochs": 2, "batch_size": 20, "learning_rate": 0.05}},
    "audits": {
        "first": {
            "dataset": "digits",
            "recipe": "tiny",
            "design": {"kind": "pairs", "targets": {"random": 1}, "rounds": 4, "holdout_rounds": 2, "subset_size": 60},
            "attacks": {"np": {"name": "single_point", "fit": "normal", "alpha": 0.2}, "kde": {"name": "single_point", "fit": "kde", "alpha": 0.2}},
        }
    },
    "device": "cpu",
    "training": {"engine": "sequential"},  # gives the same bits however the models are cut into shards
    "models_per_shard": 4,
    "figures": False,
}
N_SHARDS, N_MODELS = 4, 12  # base and random00, each with 4 rounds to fit and 2 to measure


class Folder:
    """A project folder: what Snakemake plans and does in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.path.glob(pattern))

    def set(self, key: str, value: Any) -> None:
        """Change one value of params.yaml: `set("audits.first.design.rounds", 6)`."""
        path = self / "params.yaml"
        params = part = yaml.safe_load(path.read_text())
        *parents, last = key.split(".")
        for parent in parents:
            part = part[parent]
        part[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def edit(self, name: str, old: str, new: str) -> None:
        """Change the text of a file, which must hold `old`."""
        text = (self / name).read_text()
        assert old in text, f"{name} does not hold {old!r}"
        (self / name).write_text(text.replace(old, new, 1))

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python -m ...` with nothing in the environment that a login shell would not have."""
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, cwd=self.path, env=bare_environment(**environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )

    def memleak(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("memleak", *arguments, PYTHONPATH=str(self / "src"))

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python("snakemake", "--cores", "2", *arguments, **environment)

    def planned(self, *arguments: str, **environment: str) -> dict[str, int]:
        """How many jobs of each rule `snakemake -n` announces; empty where nothing is to be done."""
        done = self.snakemake("-n", *arguments, **environment)
        assert done.returncode == 0, done.stdout
        table = done.stdout.partition("Job stats:")[2].partition("total")[0]
        jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        assert jobs or "Nothing to be done" in done.stdout, done.stdout
        return {rule: n for rule, n in jobs.items() if rule not in ("all", "data", "models")}

    def run(self, *arguments: str) -> int:
        """Run the workflow; returns how many models were trained."""
        shutil.rmtree(self / "logs/train", ignore_errors=True)
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout
        return self.n_trained()

    def n_trained(self) -> int:
        """Models that the train jobs of the last run trained, by their logs."""
        return sum(line.startswith("trained ") for log in self.files("logs/train/*/*.log") for line in log.read_text().splitlines())

    def copy(self, path: Path) -> Folder:
        shutil.copytree(self.path, path, symlinks=True)
        return Folder(path)


def bare_environment(**more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **more}


def new_project(path: Path) -> Folder:
    """A fresh folder with the project's files and a params.yaml whose audit takes seconds."""
    path.mkdir(parents=True)
    for name in TRACKED:
        source, copied = ROOT / name, path / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copied)
    (path / "params.yaml").write_text(yaml.safe_dump(copy.deepcopy(PARAMS), sort_keys=False))
    return Folder(path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Folder], None]], Folder]:
    """A folder that the first test process makes and all of them read."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Folder], None]) -> Folder:
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / f"{name}.done").exists():
                made = new_project(base / name)
                make(made)
                (base / f"{name}.done").touch()
        return Folder(base / name)

    return make_once


@pytest.fixture
def fresh(tmp_path: Path) -> Folder:
    """A project in which nothing was run."""
    return new_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished_run(shared: Callable[..., Folder]) -> Folder:
    """A project whose audit is done. To be read, not changed."""
    return shared("finished", lambda folder: folder.run())


@pytest.fixture
def finished(finished_run: Folder, tmp_path: Path) -> Folder:
    """A copy of a project whose audit is done."""
    return finished_run.copy(tmp_path / "project")


@pytest.fixture
def n_shards() -> int:
    """Shards of models that the tiny audit has."""
    return N_SHARDS


@pytest.fixture
def n_models() -> int:
    """Models that the tiny audit trains."""
    return N_MODELS


@pytest.fixture
def bare() -> Callable[..., dict[str, str]]:
    """The environment of a machine that nobody prepared."""
    return bare_environment
