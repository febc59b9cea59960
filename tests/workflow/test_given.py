"""An audit of the user's own model: what it plans, and what another model, other weights or another attack make run again."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = pytest.mark.workflow

MY_DATA = """
import numpy as np
from sklearn.datasets import load_digits

def rows(first, last):
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[first:last]
    return digits.images[order].astype(np.uint8)[..., None], digits.target[order]

def get_train():
    return rows(0, 100)

def get_test():
    return rows(100, 200)

def get_shadow():
    return rows(200, 400)
"""
MY_MODEL = """
from torch import nn

def get_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
PARTS = {part: {"name": f"my_data.py:get_{name}"} for part, name in (("members", "train"), ("non-members", "test"), ("shadow", "shadow"))}
MODEL = {"name": "my_model.py:get_model", "weights": "mine.safetensors", "inputs": "stored"}
AUDIT = {
    "dataset": "mine",
    "recipe": "tiny",
    "design": {"kind": "given", "model": MODEL, "references": {"kind": "shadow", "models": 2}},
    "attacks": {"loss": {"name": "threshold"}},
    "alpha": 0.1,
}


def heavy(jobs):
    """The jobs that need torch."""
    return {rule: n for rule, n in jobs.items() if rule in ("train", "query", "query_given")}


def fit_by_heart(folder):
    """Weights of the nearest of ten prototypes that a least-squares fit to the members gives: nearly all of them are right."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:100]
    inputs, label = digits.data[order], digits.target[order]
    weight = np.linalg.lstsq(np.c_[inputs, np.ones(100)], 10.0 * np.eye(10)[label], rcond=None)[0].T.astype(np.float32)
    save_file({"1.weight": np.ascontiguousarray(weight[:, :-1]), "1.bias": np.ascontiguousarray(weight[:, -1])}, folder / "mine.safetensors")


@pytest.fixture
def mine(fresh):
    """A project with one given audit, not yet run."""
    (fresh / "my_data.py").write_text(MY_DATA)
    (fresh / "my_model.py").write_text(MY_MODEL)
    fit_by_heart(fresh)
    fresh.set("datasets", {"mine": {"parts": PARTS}})
    fresh.set("audits", {"mine": json.loads(json.dumps(AUDIT))})
    return fresh


def metrics_of(folder):
    return json.loads((folder / "results/metrics/mine.json").read_text())


def test_a_given_audit_from_nothing_to_its_page_and_what_then_runs_again(mine, tmp_path):
    assert heavy(mine.planned()) == {"train": 1, "query": 1, "query_given": 1}
    assert mine.run() == 2
    page, plain = (mine / "results/audits/mine/report.html").read_text(), (mine / "results/audits/mine/report.txt").read_text()
    found = metrics_of(mine)

    assert "my_model.py:get_model" in page and "is_member_dataset: true, length: 100" in plain
    assert found["models"]["train_accuracy"]["value"] > 0.95 > found["models"]["test_accuracy"]["value"] > 0.5
    assert found["attacks"]["loss"]["auc"]["low"] > 0.5
    assert mine.planned() == {}

    # an attack that reads more asks again, references only if it compares with them, and trains nothing; what is planned is planned without torch
    (tmp_path / "stub/torch").mkdir(parents=True)
    (tmp_path / "stub/torch/__init__.py").write_text("raise ImportError('torch was imported')")
    mine.set("audits.mine.attacks.gradient", {"name": "threshold", "signal": "gradient_norm"})
    assert heavy(mine.planned(PYTHONPATH=str(tmp_path / "stub"))) == {"query_given": 1}
    mine.set("audits.mine.attacks", AUDIT["attacks"])

    # more references are trained and asked, the given model is not
    mine.set("audits.mine.design.references", {"kind": "shadow", "models": 6})
    assert heavy(mine.planned()) == {"train": 2, "query": 2}
    mine.set("audits.mine.design", AUDIT["design"])

    # other code of the model is asked; its references are neither trained nor asked
    mine.edit("my_model.py", "nn.Flatten()", "nn.Flatten(), nn.Identity()")
    jobs = mine.planned()
    assert heavy(jobs) == {"query_given": 1} and {"plan", "score", "threshold", "decide", "measure", "report_page", "summary", "index"} <= set(jobs)
    mine.edit("my_model.py", "nn.Flatten(), nn.Identity()", "nn.Flatten()")

    # other weights in the same file: the same names, and everything that follows from the answers
    save_file({"1.weight": np.zeros((10, 64), np.float32), "1.bias": np.arange(10, dtype=np.float32)}, mine / "mine.safetensors")
    jobs = mine.planned()
    assert heavy(jobs) == {"query_given": 1} and not {"fetch", "plan", "features"} & set(jobs)
    assert mine.run("results/metrics/mine.json") == 0
    assert metrics_of(mine)["models"]["train_accuracy"]["value"] < 0.3


def test_what_does_not_go_together_is_said_before_anything_runs(mine):
    mine.set("audits.mine.design.members", "membres")

    done = mine.snakemake("-n")

    assert done.returncode != 0
    assert "audits.mine.design: 'mine' has no part 'membres' (did you mean 'members'?)" in done.stdout


def test_sets_that_overlap_stop_the_audit_with_their_count(mine):
    """Known when the data is there, and before anything is trained or asked."""
    mine.edit("my_data.py", "return rows(100, 200)", "return rows(97, 197)")
    done = mine.snakemake("results/audits/mine/plan.parquet")

    assert done.returncode != 0
    assert "3 of the 100 records of 'non-members' equal one of 'members'" in done.stdout
    assert not mine.files("results/models/*/*.safetensors") and not mine.files("results/audits/*/plan.parquet")
