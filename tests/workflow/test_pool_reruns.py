"""An audit in which every model is the target in turn: what it plans, and what a change makes run again."""

import json

import pytest

pytestmark = pytest.mark.workflow

DESIGN = {"kind": "halves", "models": 8, "pool": 120, "population": 40}
ATTACKS = {"loss": {"name": "threshold"}, "lira": {"name": "lira"}}


def heavy(jobs):
    """The jobs that need torch."""
    return {rule: n for rule, n in jobs.items() if rule in ("train", "query")}


@pytest.fixture
def pool(fresh):
    """A project with a small pool audit, not yet run."""
    fresh.set("audits", {"pool": {"dataset": "digits", "recipe": "tiny", "design": dict(DESIGN), "attacks": dict(ATTACKS), "headline": "lira"}})
    return fresh


def test_a_pool_audit_from_nothing_to_its_page_and_what_then_runs_again(pool):
    assert heavy(pool.planned()) == {"train": 2, "query": 2}
    assert pool.run() == 8
    page = (pool / "results/audits/pool/report.html").read_text()
    metrics = json.loads((pool / "results/metrics/pool.json").read_text())

    assert "lira" in page and not metrics["controls"]["null"]["alarm"]
    assert pool.planned() == {}

    pool.set("audits.pool.attacks.rmia", {"name": "rmia", "a": 0.3})  # the first attack that asks for a population
    assert heavy(pool.planned()) == {"query": 2}
    assert pool.run() == 0

    pool.set("audits.pool.attacks.rmia", {"name": "rmia", "a": 0.5})
    jobs = pool.planned()
    assert heavy(jobs) == {} and (jobs["score"], jobs["threshold"]) == (1, 1)

    pool.set("audits.pool.views", ["identity", "flip"])
    assert heavy(pool.planned()) == {"query": 4}

    pool.set("audits.pool.views", ["identity"])
    pool.set("audits.pool.design.models", 12)
    assert heavy(pool.planned()) == {"train": 1, "query": 2}
    assert pool.run() == 4


def test_more_references_than_there_are_models_is_said_before_anything_runs(pool):
    pool.set("audits.pool.attacks.lira", {"name": "lira", "references": 254})

    done = pool.snakemake("-n")

    assert done.returncode != 0
    assert "references: 254 asked for, each target has 6 of the design's 8 models; add models" in done.stdout


def test_two_audits_of_one_recipe_share_their_models(pool):
    pool.set("audits.other", {"dataset": "digits", "recipe": "tiny", "design": {**DESIGN, "targets": 2}, "attacks": {"loss": {"name": "threshold"}}})

    assert heavy(pool.planned()) == {"train": 2, "query": 2}
