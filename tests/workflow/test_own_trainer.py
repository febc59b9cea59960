"""An audit whose models the user's own trainer trains: from nothing to its page, and what is trained again."""

import json

import pytest

from memleak.artefacts import read_shard_facts

pytestmark = pytest.mark.workflow

TRAINER = """import torch

import steps


def train(data, indices, seed, device, epochs=2):
    network = data.network(seed, device)
    inputs, labels = data.batch(indices, device)
    steps.take(network, inputs, labels, epochs)
    return network.state_dict()
"""
STEPS = """import torch


def take(network, inputs, labels, epochs):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
"""


@pytest.fixture
def own(fresh):
    """A project whose recipe names a trainer in a file beside params.yaml, not yet run."""
    (fresh / "my_train.py").write_text(TRAINER)
    (fresh / "steps.py").write_text(STEPS)
    fresh.set("recipes.tiny", {"architecture": "mlp", "hidden": [16], "trainer": "my_train.py:train", "trainer_options": {"epochs": 3}})
    fresh.set("audits.first.design.targets", {"mislabelled": 1})
    fresh.set("figures", True)
    return fresh


def heavy(jobs):
    """The jobs that need torch."""
    return {rule: n for rule, n in jobs.items() if rule in ("train", "query")}


def test_an_audit_of_the_users_own_training_and_what_is_trained_again(own, n_shards, n_models):
    n_trained = own.run()
    shards = own.files("results/models/*/*.safetensors")
    models = [model for path in shards for model in read_shard_facts(path)["models"]]
    metrics = json.loads((own / "results/metrics/first.json").read_text())
    page = (own / "results/audits/first/report.html").read_text()

    assert n_trained == len(models) >= n_models and len(shards) == n_shards  # more where a subset holds the canary's source
    assert {model["engine"] for model in models} == {"own trainer"}
    assert metrics["models"]["n_train"] in (60, 61) and metrics["models"]["loss_curve"] is None
    assert "my_train.py:train" in page and "learning_rate" not in page
    assert own.planned() == {}

    own.edit("steps.py", "import torch", "import torch  # as I train everywhere")
    assert own.planned() == {}
    own.set("audits.first.design.rounds", 8)
    assert heavy(own.planned()) == {"train": 2, "query": 2}
    own.set("audits.first.design.rounds", 4)

    own.edit("steps.py", "momentum=0.9", "momentum=0.8")
    assert heavy(own.planned()) == {"train": n_shards, "query": n_shards}
    own.edit("steps.py", "momentum=0.8", "momentum=0.9")
    own.set("recipes.tiny.trainer_options.epochs", 4)
    assert heavy(own.planned()) == {"train": n_shards, "query": n_shards}
    own.set("recipes.tiny.trainer_options.epochs", 3)
    assert heavy(own.planned()) == {}


def test_a_mistake_in_the_trainer_is_told_with_its_traceback(own):
    own.edit("steps.py", "optimizer.step()", "optimizer.stop()")

    done = own.snakemake("models")
    log = own.files("logs/train/*/*.log")[0].read_text()

    assert done.returncode != 0
    assert "my_train.py:train stopped with AttributeError: 'SGD' object has no attribute 'stop'; this is where:" in log
    assert "steps.take(network, inputs, labels, epochs)" in log and "optimizer.stop()" in log
    assert log.strip().splitlines()[-1].startswith("memleak train: ")
