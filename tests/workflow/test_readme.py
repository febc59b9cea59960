"""The README's commands do what it says: those tagged `run` are run, in order, in a fresh project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TAGGED = re.compile(r"<!-- (run|long|needs-gpu|needs-cluster) -->\n```(bash|python)\n(.*?)```", re.DOTALL)


def test_every_command_of_the_readme_has_a_tag():
    text = (ROOT / "README.md").read_text()

    assert text.count("```bash") == sum(language == "bash" for _, language, _ in TAGGED.findall(text))


def test_the_commands_tagged_run_are_run(fresh):
    shutil.copy2(ROOT / "params.yaml", fresh / "params.yaml")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for tag, language, block in TAGGED.findall((ROOT / "README.md").read_text()):
        if tag != "run":
            continue
        command = [sys.executable, "-c", block] if language == "python" else ["bash", "-euc", block]
        done = subprocess.run(command, cwd=fresh.path, env=os.environ | {"PATH": path}, text=True, capture_output=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if "memleak.audit" in block:
            assert done.stdout.strip().splitlines()[-1] in ("exposed", "effect found", "no evidence")
        if "single-point" in block and language == "bash" and "-n" not in block:
            assert "target index01553" in done.stdout and "hold-out: power" in done.stdout

    assert (fresh / "single-point/results/audits/single-point/report.html").is_file()
    assert (fresh / "small-audit/results/metrics/digits-single-point.json").is_file()
