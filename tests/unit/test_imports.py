"""The order of the rooms: a room imports itself and rooms already walked through."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

ORDER = [
    {"randomness", "provenance", "plugins"}, {"params"}, {"artefacts"}, {"designs"}, {"plan", "tasks"}, {"data"}, {"models"}, {"training"},
    {"signals", "attacks"}, {"imports"}, {"metrics"}, {"report"}, {"budget", "contracts"}, {"tester"}, {"app", "pipeline", "verbs", "cli"},
]  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
NO_TORCH = {"attacks", "imports", "metrics", "report", "tasks"}
PLANNED = {  # what the workflow, `--help` or the reading of params.yaml imports
    "cli", "verbs", "plan", "params", "budget", "imports", "tasks", "designs.given", "attacks.single_point", "attacks.label_only", "attacks.shadow", "attacks.meta",
    "attacks.top_k", "signals.noise", "signals.boundary", "signals.gradient", "signals.outputs", "signals.release", "signals.releases.labels",
    "signals.releases.memguard", "signals.releases.noise", "signals.releases.round", "signals.releases.temperature", "signals.releases.top_k",
    "data.blind", "data.columns", "metrics.blind", "metrics.crossfit", "metrics.frontier", "metrics.slices", "metrics.units", "metrics.utility",
    "metrics.variants", "report.frontier", "report.frontier_figures", "report.text", "report.variants", "training.accountant", "training.poisson",
}  # fmt: skip


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_its_place(project):
    rooms = {path.stem for path in (project / "src/memleak").iterdir() if path.name[0] not in "_."}

    assert rooms - set(RANK) == set()


def test_no_room_imports_a_later_one(project):
    wrong = []
    for path in sorted((project / "src/memleak").rglob("*.py")):
        room = path.relative_to(project / "src/memleak").parts[0].removesuffix(".py")
        for name in _imports(path):
            other = [*name.split("."), ""][1] if name.startswith("memleak.") else None
            if room in RANK and other in RANK and RANK[other] > RANK[room]:
                wrong.append(f"{path.name} imports {name}")
            if room in RANK and other in RANK and other != room and {room, other} == {"signals", "attacks"}:
                wrong.append(f"{path.name} imports {name}")
            if room in NO_TORCH and (name.split(".")[0] == "torch" or other in ("data", "models", "training")):
                wrong.append(f"{path.name} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("module", sorted(PLANNED))
def test_what_the_workflow_reads_while_it_plans_does_not_import_torch(module):
    program = f"import sys, memleak.{module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_plan_of_all_signals_does_not_import_torch(tmp_path):
    """The options of a signal are read while the workflow is planned; what measures it is not."""
    (tmp_path / "mine.py").write_text("def get(): ...\n")
    program = """
import sys
from memleak import params, plan
entry = {"name": "mine.py:get"}
attacks = {"gradient": {"name": "threshold", "signal": "gradient_norm"}}
attacks |= {method: {"name": "label_only", "method": method} for method in ("augmentation", "boundary", "noise")}
audit = {"dataset": "mine", "recipe": "r", "design": {"kind": "given", "model": entry, "references": {"kind": "shadow"}}, "attacks": attacks}
recipe = {"architecture": "mlp", "epochs": 1, "batch_size": 8, "learning_rate": 0.1}
data = {"parts": {"members": entry, "non-members": entry, "shadow": entry}}
plan.build(params.validate({"datasets": {"mine": data}, "recipes": {"r": recipe}, "audits": {"a": audit}}))
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
