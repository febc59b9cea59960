"""What the workflow costs beside training: wall time of a whole run less training itself, on a number of models.

    python benchmarks/workflow_overhead.py --models 100 --seconds 10
    python benchmarks/workflow_overhead.py --models 40 --cifar path/of/cifar10

makes a project in a temporary folder whose models take about so long each (the epochs are chosen from one
training measured first), runs `snakemake` on all cores, and sets the wall time beside the training time that the
shards recorded, divided by the number of jobs at once. The share depends on the models' seconds: report them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from memleak import artefacts, data, params, pipeline
from memleak.designs import Rounds
from memleak.training import devices, loop

RECIPE = {"architecture": "small_cnn", "channels": [16, 32], "hidden": [64], "batch_size": 64, "learning_rate": 0.01}


def seconds_an_epoch(folder: Path) -> float:
    """Training time of one epoch of the recipe on digits, after a warm-up."""
    data.prepare(params.Dataset(name="digits"), folder / "dataset.json")
    dataset = data.read(folder / "dataset.json")
    task = Rounds(None, 500, 0, "fit", 0, 1).tasks(dataset)[0]
    device = devices.prepare_torch("cpu")
    short, long = (params.Recipe(epochs=epochs, **RECIPE) for epochs in (2, 22))  # type: ignore[arg-type]
    loop.train(task, dataset, short, device)
    times = [loop.train(task, dataset, recipe, device).facts["seconds"] for recipe in (short, long)]
    return (times[1] - times[0]) / 20


def on_digits(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Pairs of models, whose epochs take about the wished-for seconds one after another."""
    epochs = max(1, round(asked.seconds / seconds_an_epoch(folder)))
    rounds = max(3, round(asked.models / 2.28))  # a round is a base model, an IN arm, and with probability n/N an OUT arm
    design = {"kind": "pairs", "targets": {"random": 1}, "rounds": rounds - 2, "holdout_rounds": 2, "subset_size": 500}
    return {
        "datasets": {"digits": {"name": "digits"}},
        "recipes": {"slow": {"epochs": epochs, **RECIPE}},
        "audits": {"overhead": {"dataset": "digits", "recipe": "slow", "design": design, "attacks": {"np": {"name": "single_point"}}}},
        "models_per_shard": asked.per_shard,
    }


def on_cifar(asked: argparse.Namespace) -> dict[str, Any]:
    """Models on halves of 4,000 images, attacked by LiRA."""
    design = {"kind": "halves", "models": 2 * -(-asked.models // 2), "pool": 4000}
    return {
        "datasets": {"cifar10": {"name": "cifar10", "source": str(asked.cifar.resolve())}},
        "recipes": {"cnn": {"preset": "cifar-cnn"}},
        "audits": {"overhead": {"dataset": "cifar10", "recipe": "cnn", "design": design, "attacks": {"lira": {"name": "lira"}}}},
        "models_per_shard": asked.per_shard,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", type=int, default=100, help="about so many (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=10, help="of training a model (default: %(default)s)")
    options.add_argument("--per-shard", type=int, default=8, help="models_per_shard (default: %(default)s)")
    options.add_argument("--cifar", type=Path, help="a folder of CIFAR-10 as Parquet: so many small networks on halves of 4,000 images instead")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = on_cifar(asked) if asked.cifar else on_digits(asked, folder)
        load = os.getloadavg()[0]
        started = time.perf_counter()
        pipeline.audit(config, directory=folder)
        wall = time.perf_counter() - started
        models = [model for path in folder.glob("results/models/*/*.safetensors") for model in artefacts.read_shard_facts(path)["models"]]
    training, cores = sum(model["seconds"] for model in models), os.cpu_count() or 1
    print(f"{len(models)} models, {training / len(models):.1f} s each, {asked.per_shard} a shard, {cores} cores, load before {load:.1f}")
    print(
        f"wall {wall:.0f} s, training {training:.0f} s = {training / cores:.0f} s on {cores} cores; overhead {wall / (training / cores) - 1:.1%} of training"
    )


if __name__ == "__main__":
    main()
