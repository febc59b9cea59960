"""Results do not depend on how the work was cut up."""

import json
import shutil

import pandas as pd
import pytest

from memleak.artefacts import read_shard_facts
from memleak.training.store import read_model, weights_sha256

pytestmark = pytest.mark.workflow


def weights(folder):
    """Digest of each model's weights, by its id, computed from the tensors."""
    found = {}
    for path in folder.files("results/models/*/*.safetensors"):
        facts = read_shard_facts(path)
        found |= {model["model_id"]: weights_sha256(read_model(path, i, facts)) for i, model in enumerate(facts["models"])}
    return found


def signals(folder):
    """All signals as one table."""
    tables = [pd.read_parquet(path) for path in folder.files("results/signals/*/*/*.parquet")]
    return pd.concat(tables).sort_values(["model_id", "sample_id"], ignore_index=True)


def without_seconds(metrics):
    """Metrics but for what a clock measured."""
    if isinstance(metrics, dict):
        return {key: without_seconds(value) for key, value in metrics.items() if "seconds" not in key}
    return [without_seconds(value) for value in metrics] if isinstance(metrics, list) else metrics


def test_results_are_the_same_bits_for_other_cores_and_shards(fresh, finished_run, n_models):
    """Weights, signals, scores and metrics of one core and shards of three, against two cores and shards of four."""
    fresh.set("models_per_shard", 3)
    assert fresh.run("--cores", "1") == n_models

    assert weights(fresh) == weights(finished_run) and len(weights(fresh)) == n_models
    pd.testing.assert_frame_equal(signals(fresh), signals(finished_run), check_exact=True)
    for path in fresh.files("results/audits/first/scores/*.parquet"):
        other = finished_run / path.relative_to(fresh.path).as_posix()
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other), check_exact=True)
    found, other = (json.loads((folder / "results/metrics/first.json").read_text()) for folder in (fresh, finished_run))
    assert without_seconds(found) == without_seconds(other)


def test_models_that_train_together_have_the_same_bits_for_other_cores(fresh, n_models):
    """And for another time: the same shards train the same models together."""
    fresh.set("training", {"engine": "ensemble", "stack": 3})
    assert fresh.run("--cores", "1", "models") == n_models
    once = weights(fresh)
    engines = {model["engine"] for path in fresh.files("results/models/*/*.safetensors") for model in read_shard_facts(path)["models"]}
    for folder in ("results", ".memleak", ".snakemake"):
        shutil.rmtree(fresh / folder)

    assert fresh.run("--cores", "2", "models") == n_models
    assert weights(fresh) == once and "ensemble" in engines
