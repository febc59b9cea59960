"""The stage `train`: one shard of models, adopted from the store where they are there, trained where not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from memleak import data, designs, provenance
from memleak.designs import Shard, Task
from memleak.models import language as models_of_texts
from memleak.models.stacked import NotStackable
from memleak.params import ParamsError, Recipe, Training
from memleak.training import checkpoints, devices, dpsgd, engines, ensemble, language, loop, own, taught
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import Trained
from memleak.training.steps import Single
from memleak.training.store import Store, link

AS_TABLED = Training()  # the engine that the table says, a checkpoint every ten minutes


def check_recipe(recipe: Recipe, dataset: data.Dataset, n_members: int) -> None:
    """Refuse a recipe that the data cannot serve."""
    if recipe.reads_texts or dataset.is_text:
        language.check(recipe, dataset)
    if recipe.batch_size > n_members:
        raise ParamsError(f"batch_size: {recipe.batch_size} is larger than a training set of {n_members} records; lower it")
    taught.check(recipe, n_members)
    if len(dataset.shape) != 3 and (recipe.flip or recipe.shift or recipe.cutout):
        raise ParamsError(f"flip, shift and cutout are for images; the data has shape {dataset.shape}; leave them out")
    if len(dataset.shape) == 3 and recipe.cutout > min(dataset.shape[:2]):
        raise ParamsError(f"cutout: a square of {recipe.cutout} pixels is larger than images of {dataset.shape[0]} x {dataset.shape[1]}; lower it")
    if recipe.dp is not None:
        dpsgd.check(recipe, dataset, n_members)


def with_reserve(planned: Shard, tasks: list[Task], dataset: data.Dataset, recipe: Recipe) -> list[Task]:
    """The trainings of a shard with the records that the recipe takes beside the members: none that is trained on, audited or tested on, nor equals one that is."""
    if not recipe.reserve:
        return tasks
    if isinstance(planned, designs.Splits) or (isinstance(planned, designs.Complements) and planned.parts):
        raise ParamsError(f"{planned.name}: the recipe takes {recipe.reserve} records outside the pool, and parts of a data set have no outside")
    reserve = designs.reserve_of(dataset, planned.pool, recipe.reserve, planned.seed)
    like = np.flatnonzero(designs.is_among(np.asarray(dataset.group_id), dataset.group_id[reserve]))
    held = [task.holding(reserve, like) for task in tasks]
    targets = [task.target.source_id for task in tasks if task.target]
    if np.isin(dataset.group_id[targets], dataset.group_id[reserve]).any():
        raise ParamsError(f"{planned.name}: an audited record lies in the recipe's reserve; audit records of the pool")
    if not all(len(task.test_ids) for task in held):
        raise ParamsError(f"{planned.name}: the {recipe.reserve} records in reserve leave none to test on; lower records, or the design's pool")
    return held


def train(
    data_path: Path, recipe_name: str, recipe: Recipe, planned: Shard, output: Path, device: str, training: Training = AS_TABLED
) -> dict[str, Any]:  # fmt: skip
    """Train the models of a shard and write them as `output`. Returns how many were trained and adopted."""
    dataset = data.read(data_path)
    tasks = with_reserve(planned, planned.tasks(dataset), dataset, recipe)
    check_recipe(recipe, dataset, min(task.n_members if recipe.dp else len(task.members) for task in tasks))
    data_sha256 = provenance.digest(dataset.facts["sha256"], 64)
    if content := models_of_texts.content_of(recipe):  # of the checkpoint that is trained further
        data_sha256 = provenance.digest([data_sha256, content], 64)
    shard = {"version": 1, "recipe": recipe_name, "shard": planned.name, "data_sha256": data_sha256}
    store = Store(recipe_name, data_sha256, output.parent)
    started = time.perf_counter()
    with store.lock(planned.name):
        found = store.find([task.model_id for task in tasks])
        missing = [task for task in tasks if task.model_id not in found]
        print(f"{planned.name}: {len(found)} of {len(tasks)} models adopted, {len(missing)} to train", flush=True)
        torch_device = devices.prepare_torch(device if missing else "cpu")  # what is adopted needs no GPU
        n_stacked = engines.stack_of(training, recipe, dataset.shape, dataset.n_classes, torch_device, len(tasks))

        def checkpoint_of(group: list[Task]) -> Checkpoint:
            facts = {
                "recipe": recipe_name, "data_sha256": data_sha256, "models": [task.model_id for task in group],
                "engine": Single.engine if len(group) == 1 else ensemble.Stack.engine, "device": devices.device_name(torch_device), "torch": torch.__version__,
            }  # fmt: skip
            return Checkpoint(store.checkpoint(group[0].model_id), facts, training.checkpoint_minutes)

        n_done = 0
        with tqdm(total=len(missing), desc=planned.name, unit="model", disable=None) as progress:
            for group in train_all(missing, n_stacked, dataset, recipe, torch_device, checkpoint_of):
                for task, trained in group:
                    trained.facts |= {
                        "model_id": task.model_id, "round": task.round, "role": task.role, "arm": task.arm,
                        "target": task.target.name if task.target else None, "key": task.key,
                    }  # fmt: skip
                    found[task.model_id] = trained
                    n_done, facts = n_done + 1, trained.facts
                    print(
                        f"trained {task.model_id} ({n_done} of {len(missing)}, {facts['engine']}): {fit_of(facts, recipe)}, {facts['seconds']:.1f} s",
                        flush=True,
                    )
                if n_done < len(missing):  # the last group is kept with the shard
                    store.keep_part(shard, [trained for _, trained in group])
                    checkpoints.remove(store.checkpoint(group[0][0].model_id))
                progress.update(len(group))
        kept = store.keep(shard, [found[task.model_id] for task in tasks])
        for task in tasks:  # another cut of the models may have left one of any
            checkpoints.remove(store.checkpoint(task.model_id))
        link(kept, output)
    return {"trained": len(missing), "adopted": len(tasks) - len(missing), "seconds": time.perf_counter() - started}


def fit_of(facts: dict[str, Any], recipe: Recipe) -> str:
    """How well a model fits its training data and others, in words."""
    if language.is_causal(recipe):
        return f"train loss {facts['train_loss']:.3f}, test loss {facts['test_loss']:.3f} nats a token"
    return f"train accuracy {facts['train_accuracy']:.3f}, test accuracy {facts['test_accuracy']:.3f}"


def train_all(
    tasks: list[Task],
    n_stacked: int,
    dataset: data.Dataset,
    recipe: Recipe,
    device: torch.device,
    checkpoint_of: Callable[[list[Task]], Checkpoint],
) -> Iterator[list[tuple[Task, Trained]]]:
    """Train tasks, group by group of those that train together; each group is given out when it is done.

    Where a stack does not fit into the memory, half as many models train at once from there on. Where the networks
    cannot be stacked they train one after another. Both are said.
    """
    if recipe.trainer is not None:
        for task in tasks:
            yield [(task, own.train(task, dataset, recipe, device))]
        return
    waiting = list(tasks)
    while waiting:
        group = engines.groups(waiting, n_stacked, recipe.batch_size, recipe.dp is not None)[0]
        trained: list[Trained] | None = None
        try:
            trained = taught.train(group, dataset, recipe, device, checkpoint_of(group))
        except NotStackable as error:
            print(f"trained one after another: {recipe.architecture} cannot be stacked: {error}", flush=True)
            n_stacked = 1
            continue
        except loop.TrainingDiverged:
            checkpoint_of(group).remove()  # or a rerun would go on from there, and diverge at once, for ever
            raise
        except RuntimeError as error:
            if len(group) == 1 or not engines.is_out_of_memory(error):
                raise
        if trained is None:  # out here, where no exception holds the memory any more
            n_stacked = -(-len(group) // 2)
            print(f"out of memory: {n_stacked} models at once from here on", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        done = {task.model_id for task in group}
        waiting = [task for task in waiting if task.model_id not in done]
        yield list(zip(group, trained, strict=True))
