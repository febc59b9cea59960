"""An earlier run from `memleak import` to its page, by the workflow: nothing is trained, and what is imported anew is measured anew."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from memleak import artefacts

pytestmark = pytest.mark.workflow

M, N = 8, 80


def write_run(folder, seed=0):
    """The layout of LiRA's public code, scores alone; every sample is in half of the models."""
    draw = np.random.default_rng(seed)
    keep = draw.random((M, N)).argsort(axis=0).argsort(axis=0) < M // 2
    for row in range(M):
        artefacts.write_array(folder / f"experiment-{row}_{M}/keep.npy", keep[row])
        artefacts.write_array(folder / f"experiment-{row}_{M}/scores/0000000100.npy", (draw.normal(size=N) + 2 * keep[row])[:, None])


@pytest.fixture
def project(fresh):
    """A run imported into a folder without params of its own, two of its attacks kept."""
    (fresh / "params.yaml").unlink()
    write_run(fresh / "run")
    done = fresh.memleak("import", "run", "--output", ".")
    assert done.returncode == 0, done.stdout
    entry = yaml.safe_load((fresh / "params.yaml").read_text())["audits"]["imported"]
    fresh.set("audits.imported.attacks", {name: entry["attacks"][name] for name in ("loss", "lira")})
    return fresh


def test_an_imported_run_is_audited_exported_and_audited_again(project):
    assert project.planned() == {"plan": 1, "score": 2, "threshold": 2, "decide": 1, "measure": 1, "figure": 4, "timings": 1, "report_page": 1, "report_pdf": 1, "summary": 1, "index": 1}  # fmt: skip
    assert project.run() == 0
    assert project.planned() == {}
    found = artefacts.read_json(project / "results/metrics/imported.json")
    page = (project / "results/audits/imported/report.html").read_text()

    assert found["is_balanced"] and found["attacks"]["lira"]["auc"]["low"] > 0.5
    assert f"{M} imported models, asked about {N} records; nothing was trained here" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert f"{M} models (imported)" in (project / "results/audits/imported/report.txt").read_text()

    done = project.memleak("export", "imported", "--kind", "lira", "--output", "again")
    assert done.returncode == 0, done.stdout
    assert project.memleak("import", "again", "--output", ".").returncode == 0
    assert project.run() == 0
    assert artefacts.read_json(project / "results/metrics/imported.json")["attacks"] == found["attacks"]

    write_run(project / "other", seed=1)
    assert project.memleak("import", "other", "--output", ".").returncode == 0
    jobs = project.planned()
    assert jobs["plan"] == 1 and jobs["score"] == 2 and jobs["measure"] == 1


def test_what_an_imported_run_cannot_give_stops_the_workflow_in_one_sentence(project):
    project.set("audits.imported.attacks.lira.references", 99)

    done = project.snakemake("-n")

    assert done.returncode != 0
    assert "attacks.lira.references: 99 asked for, each target has 7 of the 8 imported models; lower references" in done.stdout
