"""DVC keeps what Snakemake makes: a clone that has pulled has nothing to do, and notices every change."""

import functools
import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow


def git(folder, *arguments):
    """Run git as somebody, without anybody's settings."""
    command = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments]
    return subprocess.run(command, cwd=folder.path, check=True, capture_output=True, text=True).stdout


def dvc(folder, *arguments):
    """What a DVC command says."""
    done = folder.python("dvc", *arguments, MEMLEAK_PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def published(shared):
    """A repository whose audit was run by `dvc repro`, committed, and pushed to a folder beside it."""

    def publish(folder):
        git(folder, "init", "--quiet")
        dvc(folder, "remote", "add", "--default", "store", "../remote")
        dvc(folder, "repro")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "an audit")
        dvc(folder, "push")

    return shared("published", publish)


@pytest.fixture
def clone(published, tmp_path):
    """A fresh clone that has pulled."""
    folder = type(published)(tmp_path / "clone")
    git(published, "clone", "--quiet", ".", str(folder.path))
    dvc(folder, "remote", "modify", "--local", "store", "url", str(published.path.parent / "remote"))
    dvc(folder, "pull")
    return folder


def test_the_three_stages_run_once(published):
    """Everything that they make is DVC's; a second `dvc repro` does nothing."""
    said = dvc(published, "repro")

    assert all(f"Stage '{stage}' didn't change, skipping" in said for stage in ("data", "models", "audits"))
    assert git(published, "status", "--porcelain") == ""
    assert "up to date" in dvc(published, "status")


def test_a_clone_that_has_pulled_has_nothing_to_do_and_notices_a_change(clone):
    """Nothing is planned; then another alpha plans one attack's reading, and another recipe its models."""
    assert clone.planned() == {}

    clone.set("audits.first.attacks.np.alpha", 0.1)
    jobs = clone.planned()
    assert {"score", "threshold", "decide", "measure"} <= set(jobs) and not {"fetch", "plan", "train", "query"} & set(jobs)

    clone.set("recipes.tiny.epochs", 3)
    assert clone.planned("models") == {"train": 4}


def test_results_without_their_history_ask_for_a_pull(clone):
    """Without .snakemake/metadata no change would be noticed; `dvc pull` brings it back."""
    shutil.rmtree(clone / ".snakemake/metadata")
    refused = clone.snakemake("-n")
    assert refused.returncode != 0 and "run 'dvc pull'" in refused.stdout and "Traceback" not in refused.stdout

    dvc(clone, "pull")
    assert clone.planned() == {}


def test_another_alpha_under_dvc_trains_nothing_and_shows_its_numbers(clone):
    """`dvc repro` reruns the reading only; metrics, their differences and plots come from the audit's files."""
    clone.set("audits.first.attacks.np.alpha", 0.4)
    dvc(clone, "repro")

    assert not clone.files("logs/train/*/*.log") and not clone.files("logs/query/*/*/*.log")
    measured = json.loads((clone / "results/metrics/first.json").read_text())
    shown = json.loads(dvc(clone, "metrics", "show", "--json"))
    (shown,) = (revision["data"]["results/metrics/first.json"]["data"] for revision in shown.values())
    path = ("targets", "random00", "attacks", "np", "tpr", "value")
    assert functools.reduce(dict.get, path, shown) == functools.reduce(dict.get, path, measured) is not None
    difference = json.loads(dvc(clone, "metrics", "diff", "--json"))["results/metrics/first.json"]["alpha"]
    assert (difference["old"], difference["new"]) == (0.2, 0.4)

    plots = json.loads(dvc(clone, "plots", "show", "--json"))
    assert "results/plots/first.csv" in json.dumps(plots)
    dvc(clone, "plots", "show")
    assert "results/plots/first.csv" in (clone / "dvc_plots/index.html").read_text()
