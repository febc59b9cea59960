"""The stage `train`: one shard of models, adopted from the store where they are there, trained where not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memleak import data, provenance
from memleak.designs import Shard
from memleak.params import ParamsError, Recipe
from memleak.training import loop
from memleak.training.store import Store, link


def check_recipe(recipe: Recipe, dataset: data.Dataset, n_members: int) -> None:
    """Refuse a recipe that the data cannot serve."""
    if recipe.batch_size > n_members:
        raise ParamsError(f"batch_size: {recipe.batch_size} is larger than a training set of {n_members} records; lower it")
    if len(dataset.shape) != 3 and (recipe.flip or recipe.shift):
        raise ParamsError(f"flip and shift move images; the data has shape {dataset.shape}; leave them out")


def train(data_path: Path, recipe_name: str, recipe: Recipe, planned: Shard, output: Path, device: str) -> dict[str, Any]:
    """Train the models of a shard and write them as `output`. Returns how many were trained and adopted."""
    dataset = data.read(data_path)
    tasks = planned.tasks(dataset)
    check_recipe(recipe, dataset, min(len(task.members) for task in tasks))
    data_sha256 = provenance.digest(dataset.facts["sha256"], 64)
    shard = {"version": 1, "recipe": recipe_name, "shard": planned.name, "data_sha256": data_sha256}
    store = Store(recipe_name, data_sha256, output.parent)
    started = time.perf_counter()
    with store.lock(planned.name):
        models = store.find([task.model_id for task in tasks])
        missing = [task for task in tasks if task.model_id not in models]
        print(f"{planned.name}: {len(models)} of {len(tasks)} models adopted, {len(missing)} to train", flush=True)
        torch_device = loop.prepare_torch(device)
        for n_done, task in enumerate(tqdm(missing, desc=planned.name, unit="model", disable=None), start=1):
            trained = loop.train(task, dataset, recipe, torch_device)
            trained.facts |= {
                "model_id": task.model_id, "round": task.round, "role": task.role, "arm": task.arm,
                "target": task.target.name if task.target else None, "key": task.key,
            }  # fmt: skip
            models[task.model_id] = trained
            facts = trained.facts
            if n_done < len(missing):
                store.keep_single(shard, trained)
            print(
                f"trained {task.model_id} ({n_done} of {len(missing)}): train accuracy {facts['train_accuracy']:.3f}, test accuracy {facts['test_accuracy']:.3f}, {facts['seconds']:.1f} s",
                flush=True,
            )
        kept = store.keep(shard, [models[task.model_id] for task in tasks])
        link(kept, output)
    return {"trained": len(missing), "adopted": len(tasks) - len(missing), "seconds": time.perf_counter() - started}
