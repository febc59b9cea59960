"""Measure which stack is fastest here, and propose an entry for the table of engines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from memleak import data, params, plan
from memleak.designs import Complements, Task
from memleak.models.stacked import NotStackable
from memleak.params import Recipe
from memleak.training import devices, engines, ensemble, loop
from memleak.training.stage import check_recipe

_IN_PHASES = ("early_stopping", "distillation", "selena", "stacking")  # fields that say which steps are taken, and change nothing in a step
_CLOSE = 1.05  # a smaller stack that is at most so much slower is preferred: it takes less memory, and wastes less when shards are small


@dataclass(frozen=True)
class Timing:
    """Seconds that one step takes a model where `stack` models train as one program; None where that cannot be."""

    stack: int
    seconds: float | None
    why_not: str = ""


def proposals(path: Path, device: str, stacks: Sequence[int], seconds: float) -> Iterator[str]:
    """What was measured of each recipe of a params.yaml, and what that proposes; their data must be prepared."""
    planned = plan.build(params.load(path))
    for name, recipe in planned.recipes.items():
        if why := engines.why_alone(recipe.recipe):
            yield f"{recipe.id}: {why}"
            continue
        prepared = Path(planned.dataset_path(name))
        if not prepared.exists():
            raise ValueError(f"{prepared}: the data is not prepared yet; run `snakemake data --cores 1` first")
        timings, size = measure(prepared, recipe.recipe, device, stacks, seconds=seconds)
        yield text(recipe.id, recipe.recipe, devices.prepare_torch(device).type, timings, size)


def measure(
    data_path: Path, recipe: Recipe, device: str, stacks: Sequence[int] = (2, 4, 8, 16, 32), repeats: int = 3, seconds: float = 1.0
) -> tuple[list[Timing], float]:
    """Time one model after another and each stack, in turn so that a busy machine disturbs all alike.

    Returns the timings, and the size of a step that the table goes by. Each timing is the median of `repeats`, each of
    which takes about `seconds`.
    """
    recipe = plain(recipe)
    dataset = data.read(data_path)
    torch_device = devices.prepare_torch(device)
    tasks = [replace(task, members=task.members[: 20 * recipe.batch_size]) for task in Complements(0, 0, 2 * -(-max(stacks) // 2)).tasks(dataset)]
    tasks = [replace(task, members=task.members[: min(len(other.members) for other in tasks)]) for task in tasks]  # equally many steps
    check_recipe(recipe, dataset, len(tasks[0].members))
    epochs, why_not = {}, {}
    for stack in (1, *stacks):
        try:
            _run(tasks[:stack], recipe, dataset, torch_device, 1)  # the first steps of a kind are slow
            once = _run(tasks[:stack], recipe, dataset, torch_device, 1)
            epochs[stack] = max(1, round(seconds / once))
        except (NotStackable, RuntimeError) as error:
            if not isinstance(error, NotStackable) and not engines.is_out_of_memory(error):
                raise
            why_not[stack] = str(error).splitlines()[0]
    n_steps = -(-len(tasks[0].members) // recipe.batch_size)
    took: dict[int, list[float]] = {stack: [] for stack in epochs}
    for _ in range(repeats):
        for stack, n in epochs.items():
            took[stack].append(_run(tasks[:stack], recipe, dataset, torch_device, n) / n / n_steps / stack)
    timings = [Timing(stack, float(np.median(took[stack])) if stack in took else None, why_not.get(stack, "")) for stack in (1, *stacks)]
    return timings, engines.size_of(recipe, dataset.shape, dataset.n_classes)


def plain(recipe: Recipe) -> Recipe:
    """A recipe that takes the steps of another in one phase, to its last epoch; with `dp` under a noise that nobody has to search for."""
    dp = recipe.dp and recipe.dp.model_copy(update={"noise_multiplier": 1.0, "epsilon": None, "accountant": "rdp"})
    return recipe.model_copy(update=dict.fromkeys(_IN_PHASES) | {"dp": dp})


def _run(tasks: Sequence[Task], recipe: Recipe, dataset: data.Dataset, device: torch.device, epochs: int) -> float:
    """Seconds that some epochs take, the drawing of batches included."""
    networks = [loop.initial(task, dataset, recipe, device) for task in tasks]
    program = ensemble.program_of(networks, recipe, dataset.shape)
    started = time.perf_counter()
    loop.fit(program, tasks, dataset, recipe.model_copy(update={"epochs": epochs}), device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def best(timings: Sequence[Timing]) -> int:
    """The smallest stack that is about as fast as the fastest."""
    known = {timing.stack: timing.seconds for timing in timings if timing.seconds is not None}
    return min(stack for stack, seconds in known.items() if seconds <= _CLOSE * min(known.values()))


def text(name: str, recipe: Recipe, device: str, timings: Sequence[Timing], size: float) -> str:
    """The timings, and what they propose for params.yaml and for the table."""
    alone = next(timing.seconds for timing in timings if timing.stack == 1)
    assert alone is not None
    lines = [f"{name}: {recipe.architecture} in batches of {recipe.batch_size}, {size:.1f} million multiplications a step"]
    for timing in timings:
        how = "one after another" if timing.stack == 1 else f"ensemble of {timing.stack}"
        said = (
            f"{1e3 * timing.seconds:9.3f} ms a step and model, {alone / timing.seconds:.2f} times"
            if timing.seconds
            else f"cannot be: {timing.why_not}"
        )
        lines.append(f"  {how:18} {said}")
    chosen = best(timings)
    training = {"engine": "sequential"} if chosen == 1 else {"engine": "ensemble", "stack": chosen}
    entry = {"device": device, "architecture": recipe.architecture, "up_to": float(f"{size:.2g}"), "stack": chosen}
    lines.append(f"  params.yaml: training: {json.dumps(training)}")
    if recipe.dp is None:  # the table is about plain steps
        lines.append(f"  engines.json: {json.dumps(entry)}")
    if chosen > 1:
        lines.append(f"  a stack is never larger than a shard: set models_per_shard to {chosen} or a multiple of it")
    return "\n".join(lines)
