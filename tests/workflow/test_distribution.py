"""The workflow as it is written, and as it is installed."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).parents[2]


def test_the_workflow_is_formatted(fresh):
    """As snakefmt would."""
    done = fresh.python("snakefmt", "--check", "Snakefile", "workflow")

    assert done.returncode == 0, done.stdout


def test_lint_says_only_what_is_known(fresh):
    """Counts of Snakemake's remarks, against workflow/lint-allowed.txt (line: count, remark)."""
    remarks = Counter(re.findall(r"^    \* (.*)$", fresh.snakemake("--lint").stdout, re.MULTILINE))
    found = [f"{n} {remark}" for remark, n in sorted(remarks.items())]

    assert found == (ROOT / "workflow/lint-allowed.txt").read_text().splitlines()


def test_a_users_three_lines_plan_from_the_wheel(fresh, tmp_path):
    """`memleak init` outside the repository, with the package from a wheel: the default target is the whole audit."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, fresh / name)
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", fresh.path], capture_output=True, text=True
    )
    if built.returncode and re.search("No matching distribution|Connection|connection|resolve|ProxyError", built.stderr):
        pytest.skip("no network: the build backend cannot be fetched")
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")

    user = type(fresh)(tmp_path / "user")
    user.path.mkdir()
    done = user.python("memleak", "init", ".", PYTHONPATH=str(tmp_path / "installed"))
    assert done.returncode == 0, done.stdout
    shutil.copy2(fresh / "params.yaml", user / "params.yaml")
    jobs = user.planned(PYTHONPATH=str(tmp_path / "installed"))

    assert len((user / "Snakefile").read_text().splitlines()) == 3
    assert (user / "profiles/default/profile.yaml").is_file()
    assert (jobs["train"], jobs["query"], jobs["index"]) == (4, 4, 1)
