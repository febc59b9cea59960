"""One model after another, or several as one program: which is faster here, as a committed table says.

The table (`engines.json`) was measured with `memleak tune`; it is never measured at run time, since a choice that
depends on the load of a machine would change bits from run to run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from memleak import models
from memleak.designs import Task
from memleak.params import Recipe, Training

_UNTABLED = 8  # models at once where params want an ensemble and the table has none: little memory, and most of what can be gained
TABLE = Path(__file__).with_name("engines.json")


@functools.cache
def table() -> list[dict[str, Any]]:
    """Entries of the committed table: on a class of devices (cpu, cuda), for an architecture, up to a size, so many models at once."""
    return json.loads(TABLE.read_text())["entries"]


def size_of(recipe: Recipe, shape: tuple[int, ...], n_classes: int) -> float:
    """Million multiplications of one model's forward pass in one step; computes nothing."""
    if recipe.reads_texts:
        return 0.0  # the table has no sizes of models of texts
    network = models.build(recipe, shape, n_classes, seed=0, device=torch.device("meta")).eval()
    total = 0.0

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()  # type: ignore[index, operator]

    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    one = (1, *shape) if len(shape) == 1 else (1, shape[2], *shape[:2])
    with torch.no_grad():
        network(torch.empty(one, device="meta", dtype=getattr(torch, recipe.weight_dtype)))
    return total * recipe.batch_size / 1e6


def stack_of(training: Training, recipe: Recipe, shape: tuple[int, ...], n_classes: int, device: torch.device, n_models: int) -> int:
    """How many models of a shard of `n_models` train as one program; 1 is one after another.

    What params say counts, else the table.
    """
    if training.engine == "sequential" or n_models < 2 or why_alone(recipe):
        return 1
    if training.stack is not None:
        return training.stack
    tabled = _tabled(recipe, shape, n_classes, device)
    if (recipe.dp is not None or recipe.reads_texts) and tabled == 1:
        return _UNTABLED  # the table knows no private training, in which a stack does with less than gradients of samples; nor additions to one base
    return _UNTABLED if training.engine == "ensemble" and tabled == 1 else tabled


def why_alone(recipe: Recipe) -> str:
    """Why models of a recipe can only train one after another; empty where they need not."""
    if recipe.trainer is not None:
        return "a trainer of one's own trains one model after another"
    if recipe.reads_texts and recipe.text.lora is None:
        return "models of texts have a base in common, and train together, with text.lora alone"
    if recipe.reads_texts and recipe.dp is not None:
        return "gradients of single texts are taken one model after another"
    if recipe.stacking is not None:
        return "stacked networks train part after part"
    if recipe.precision == "float16":
        return "with float16 every model scales its loss by its own history, one after another"
    return ""


def _tabled(recipe: Recipe, shape: tuple[int, ...], n_classes: int, device: torch.device) -> int:
    known = [entry for entry in table() if (entry["device"], entry["architecture"]) == (device.type, recipe.architecture)]
    size = size_of(recipe, shape, n_classes) if known else 0.0
    return next((entry["stack"] for entry in sorted(known, key=lambda entry: entry["up_to"]) if size <= entry["up_to"]), 1)


def groups(tasks: Sequence[Task], n_stacked: int, batch_size: int, is_private: bool = False) -> list[list[Task]]:
    """Tasks that train together: at most `n_stacked`, with equally many steps, in order; private ones with one promise."""
    by_steps: dict[int, list[Task]] = {}
    for task in tasks:
        by_steps.setdefault(task.n_members if is_private else -(-len(task.members) // batch_size), []).append(task)
    return [same[first : first + n_stacked] for same in by_steps.values() for first in range(0, len(same), n_stacked)]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or this machine, had no memory left."""
    said = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    seen: BaseException | None = error
    while seen is not None:  # what breaks off the recording of a step hides behind the recording's own error
        if isinstance(seen, torch.OutOfMemoryError) or any(words in str(seen) for words in said):
            return True
        seen = seen.__context__
    return False
