"""Seconds and bytes of one model, timed on a few steps of the training that the workflow would do. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memleak import data
from memleak.designs import Rounds, Shard
from memleak.models.stacked import NotStackable
from memleak.params import Recipe, Training
from memleak.training import devices, engines, ensemble
from memleak.training.loop import Trained
from memleak.training.stage import check_recipe

LONG_ENOUGH = 3.0  # seconds that epochs over some records take, so that their time can be believed


def time_model(data_path: Path, recipe: Recipe, shard: Shard, training: Training, device: str) -> dict[str, Any]:
    """Seconds a training record, and bytes, of a model of a recipe: from ever more records and epochs until they take 3 s."""
    dataset = data.read(data_path)
    tasks = shard.tasks(dataset)
    check_recipe(recipe, dataset, min(len(task.members) for task in tasks))
    torch_device = devices.prepare_torch(device)
    n_stacked = engines.stack_of(training, recipe, dataset.shape, dataset.n_classes, torch_device, len(tasks))
    together = engines.groups(tasks, n_stacked, recipe.batch_size)[0]

    def run(n_records: int, epochs: int) -> tuple[float, Trained]:
        started = time.perf_counter()
        short = [replace(task, members=task.members[:n_records]) for task in together]
        trained = ensemble.train(short, dataset, recipe.model_copy(update={"epochs": epochs}), torch_device)[0]
        return (time.perf_counter() - started) / len(short), trained

    n, n_all, epochs = recipe.batch_size, min(len(task.members) for task in together), 1
    try:
        run(n, 1)  # the first steps of a process are slow
    except NotStackable:  # one after another then, as `train` does it
        together = together[:1]
    while True:
        (once, trained), (longer, _) = run(n, 1), run(n, 1 + epochs)
        epoch = max(longer - once, 0.0) / epochs
        if epoch * epochs * len(together) >= LONG_ENOUGH or (n >= n_all and epochs >= recipe.epochs):
            break
        n, epochs = min(2 * n, n_all), epochs if n < n_all else min(2 * epochs, recipe.epochs)
    n_judged = len(together[0].test_ids)
    seconds = epoch * recipe.epochs / n + max(once - epoch, 0.0) * (n_all + n_judged) / (n + n_judged) / n_all
    engine = str(trained.facts["engine"])
    return {
        "seconds": {"n": 0, "timed_records": n, "low": seconds, "median": seconds, "high": seconds, "engines": [engine]},
        "bytes": float(sum(tensor.numel() * tensor.element_size() for tensor in trained.weights.values())),
    }


def first_shard(shards: Sequence[Shard]) -> Shard:
    """A shard whose models are all sure to be there: of base models, where the design has some."""
    return next((shard for shard in shards if not (isinstance(shard, Rounds) and shard.target)), shards[0])
