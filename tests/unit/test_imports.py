"""The order of the rooms: a room imports itself and rooms already walked through."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

ORDER = [
    {"randomness", "provenance", "plugins"}, {"params"}, {"artefacts"}, {"designs"}, {"plan"}, {"data"}, {"models"}, {"training"},
    {"signals", "attacks"}, {"metrics"}, {"report"}, {"budget", "contracts"}, {"tester"}, {"app", "pipeline", "cli"},
]  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
NO_TORCH = {"attacks", "metrics", "report"}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


@pytest.mark.parametrize("module", ["memleak.cli", "memleak.plan", "memleak.attacks.single_point", "memleak.params", "memleak.budget"])
def test_what_the_workflow_reads_while_it_plans_does_not_import_torch(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
