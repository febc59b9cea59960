"""Runs that fail, are killed, and go on: what the index and `memleak status` say meanwhile."""

from __future__ import annotations

import json

import pytest
import yaml

pytestmark = pytest.mark.workflow


def second_audit(folder, attack: str) -> None:
    """Another audit beside the first, by an attack of the user's own."""
    config = yaml.safe_load((folder / "params.yaml").read_text())
    config["audits"]["second"] = config["audits"]["first"] | {"attacks": {"mine": {"name": attack}}, "alpha": 0.2}
    (folder / "params.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


BROKEN = """
from memleak.params import Frozen
class Options(Frozen):
    pass
def score(evidence, options):
    {}
"""


def test_a_failed_run_says_why_and_lists_what_is_finished_and_a_good_one_writes_the_index_again(finished):
    whole = (finished / "results/index.html").read_text()
    (finished / "mine.py").write_text(BROKEN.format("raise ValueError('the moon is in the wrong place')"))
    second_audit(finished, "mine.py:score")

    failed = finished.snakemake("--keep-going")

    page = (finished / "results/index.html").read_text()
    assert failed.returncode != 0
    assert "the moon is in the wrong place" in failed.stdout.split("Failed jobs:")[-1], failed.stdout[-3000:]
    assert "1 of 2 audits are finished; results/index.html lists them" in failed.stdout
    assert "audits/first/report.html" in page and "second" in page and "0 of 1" in page and page != whole

    told = finished.memleak("status").stdout
    assert "the moon is in the wrong place" in told and "finished" in told and "scores 0/1" in told

    gated = finished.memleak("gate", "--max-risk", "100", "--json")
    assert gated.returncode == 3
    assert {one["audit"]: one["state"] for one in json.loads(gated.stdout)["limits"]}["second"] == "UNDECIDED"

    (finished / "mine.py").write_text(BROKEN.format("return -evidence.target['loss'][:, 0]"))
    done = finished.snakemake()
    page = (finished / "results/index.html").read_text()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "audits/first/report.html" in page and "audits/second/report.html" in page and "0 of 1" not in page
    assert "Failed jobs" not in finished.memleak("status").stdout
    assert finished.planned() == {}


def test_a_killed_run_is_told_and_unlocked(finished):
    """What a Snakemake that was killed leaves: its lock, and no word."""
    (finished / ".snakemake/locks").mkdir(exist_ok=True)
    (finished / ".snakemake/locks/0.output.lock").write_text("results/index.html\n")

    assert "a run was killed here and left its lock: run `memleak unlock`" in finished.memleak("status").stdout
    assert finished.memleak("unlock").returncode == 0
    assert "killed" not in finished.memleak("status").stdout


def test_a_run_where_nothing_was_finished_has_an_index_that_says_so(fresh):
    (fresh / "mine.py").write_text(BROKEN.format("return 'high'"))
    second_audit(fresh, "mine.py:score")
    config = yaml.safe_load((fresh / "params.yaml").read_text())
    del config["audits"]["first"]
    (fresh / "params.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    failed = fresh.snakemake("--keep-going")

    assert failed.returncode != 0 and "0 of 1 audits are finished" in failed.stdout, failed.stdout[-3000:]
    assert "second" in (fresh / "results/index.html").read_text()
