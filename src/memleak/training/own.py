"""Train one model with the user's own trainer: `train(data, indices, seed, device) -> state_dict`.

A recipe with `trainer: my_train.py:train` has every model trained by that function. It gets the arguments by position:

- `data`: `TrainingData`, the records of the data set;
- `indices` [n] int64: the rows of `data` to train on, in an order that both arms of a round share, an added record last;
- `seed`: below 2**32, the same in both arms of a round; torch, numpy and random are seeded with it before the call;
- `device`: the torch.device to train on;
- what `trainer_options` of the recipe says, by name;

and returns the state_dict of the recipe's `architecture`, which is what later stages ask.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import mmap
import random
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memleak import models, plugins, randomness
from memleak.data import Dataset
from memleak.designs import Task
from memleak.params import Recipe
from memleak.training import loop
from memleak.training.batches import inputs_on, look_up
from memleak.training.loop import Trained, TrainingDiverged


class TrainerError(RuntimeError):
    """A trainer of the user's that stopped, or returned what cannot be used; the text says what is expected."""


@dataclass(frozen=True)
class TrainingData:
    """What a trainer is given: all rows of the data set, of which only those it is to train on are filled.

    A row's number is its sample id, so `indices` fit a copy of the data set that the user holds as well. Records with
    a label of their own (mislabelled canaries) are rows beyond the data set. All other rows are empty, zeros with label
    -1: what a model was trained on is known for certain, whatever the trainer reads. The arrays are read-only.
    """

    inputs: np.ndarray  # [R, H, W, C] uint8 or [R, F] float32, as stored
    labels: np.ndarray  # [R] int64, the canaries' own among them
    n_classes: int
    class_names: tuple[str, ...]  # () where the data set names none
    mean: np.ndarray  # [C] or [F], over the whole data set: by these the network's inputs are normalised
    std: np.ndarray  # [C] or [F]
    recipe: Recipe

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record: (H, W, C) or (F,)."""
        return self.inputs.shape[1:]

    def batch(self, indices: np.ndarray | torch.Tensor | Sequence[int], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Records as the network is asked about them later: normalised inputs [B, C, H, W] or [B, F], and labels [B]."""
        rows = indices.cpu().numpy() if isinstance(indices, torch.Tensor) else np.asarray(indices)
        found = inputs_on(self.inputs[rows], self.mean, self.std, self.recipe, device)
        return found.take(torch.arange(len(rows), device=device)), torch.from_numpy(self.labels[rows]).to(device)

    def network(self, seed: int, device: torch.device | str = "cpu") -> torch.nn.Module:
        """A network of the recipe's architecture, its weights drawn from the seed.

        With the recipe's `dropout` ours want `memleak.models.layers.set_rows(network, keys)` before each step.
        """
        return models.build(self.recipe, self.shape, self.n_classes, seed, torch.device(device))


def training_data(dataset: Dataset, task: Task, recipe: Recipe) -> TrainingData:
    """The records of one training, each in the row of its sample id."""
    own_ids = np.array([], dtype=np.int64) if task.own is None else task.own.sample_id
    n_rows = max(len(dataset.labels), int(max(own_ids, default=-1)) + 1)  # equal in both arms of a round
    rows, known = look_up(dataset, task.sample_ids, task.own)
    inputs, labels = _empty((n_rows, *dataset.shape), dataset.inputs.dtype), np.full(n_rows, -1, dtype=np.int64)
    inputs[task.sample_ids], labels[task.sample_ids] = dataset.inputs[rows], known
    for array in (inputs, labels):
        array.flags.writeable = False
    mean, std = (np.asarray(dataset.facts[key], dtype=np.float64) for key in ("mean", "std"))
    return TrainingData(inputs, labels, dataset.n_classes, tuple(dataset.facts["class_names"]), mean, std, recipe)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that take memory only where something is written: in small pages, of which np.zeros would ask for large ones."""
    size = math.prod(shape)
    memory = mmap.mmap(-1, size * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # where there are no large pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, count=size).reshape(shape)


def seed_of(task: Task) -> int:
    """The seed that a trainer is given: 32 bits, as many as numpy.random.seed takes."""
    return randomness.derive(task.key, "own trainer") % 2**32


def train(task: Task, dataset: Dataset, recipe: Recipe, device: torch.device) -> Trained:
    """Have the recipe's own trainer train the model of a task, and measure it as our models are measured."""
    started = time.perf_counter()
    given = training_data(dataset, task, recipe)
    weights = weights_of(given, task.sample_ids, seed_of(task), device, task.model_id)
    model = given.network(0, device)
    model.load_state_dict(weights)
    try:
        return loop.judged(model, task, weights, dataset, recipe, device, {"engine": "own trainer"}, time.perf_counter() - started)
    except TrainingDiverged:
        raise TrainingDiverged(
            f"{task.model_id}: the loss on its training data is not finite after {recipe.trainer}; have it take smaller steps"
        ) from None


def weights_of(given: TrainingData, indices: np.ndarray, seed: int, device: torch.device, model_id: str) -> dict[str, torch.Tensor]:
    """What the trainer returns for these records, checked, on the CPU. Raises TrainerError, after the traceback of the user's code."""
    name, options = str(given.recipe.trainer), given.recipe.trainer_options
    arguments = (given, np.array(indices, dtype=np.int64), seed, device)
    function = _callable_as(plugins.function_of("trainers", name), name, arguments, options)
    who = f"{model_id}: {name}"
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what a careless trainer draws from
    torch.manual_seed(seed)
    try:
        returned = function(*arguments, **options)
    except (Exception, SystemExit) as error:
        said = f"{who} stopped with {type(error).__name__}{f': {first}' if (first := str(error).partition(chr(10))[0]) else ''}"
        print(f"{said}; this is where:", file=sys.stderr)
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))  # without our own frame
        raise TrainerError(said) from error
    return checked(returned, given.network(0).state_dict(), who)


def _callable_as(function: Callable, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Callable:
    """The function, if it takes what it will be given."""
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        call = ", ".join(["data, indices, seed, device", *(f"{key}={value!r}" for key, value in options.items())])
        raise TrainerError(
            f"{name} cannot be called as {name.rpartition(':')[2]}({call}): {error}; change the function or the recipe's trainer_options"
        ) from None
    except ValueError:  # some functions that are not written in Python do not tell what they take
        pass
    return function


def checked(returned: Any, expected: Mapping[str, torch.Tensor], who: str) -> dict[str, torch.Tensor]:
    """A copy of the weights on the CPU, if they are those of a network; TrainerError says in one sentence what is wrong."""
    if not isinstance(returned, Mapping):
        raise TrainerError(
            f"{who} returned {type(returned).__name__}, expected a dict of the network's weights by name; end it with `return model.state_dict()`"
        )
    lacking, unknown = ([name for name in one if name not in other] for one, other in ((expected, returned), (returned, expected)))
    if lacking or unknown:
        found = " and ".join(f"{what} '{names[0]}' ({len(names)} such)" for what, names in (("lack", lacking), ("have an unknown", unknown)) if names)
        raise TrainerError(
            f"{who}: the weights {found}, the recipe's architecture has {len(expected)}: train that one (data.network gives it), "
            "and return the state_dict of the network itself, not of a wrapper"
        )
    for name, wanted in expected.items():
        tensor = returned[name]
        if not isinstance(tensor, torch.Tensor):
            raise TrainerError(f"{who}: weight '{name}' is of type {type(tensor).__name__}, expected torch.Tensor; return model.state_dict()")
        if tensor.shape != wanted.shape:
            raise TrainerError(
                f"{who}: weight '{name}' has shape {tuple(tensor.shape)}, the recipe's architecture expects {tuple(wanted.shape)}; "
                "train that architecture, or set the recipe's fields to those of yours"
            )
        if tensor.dtype != wanted.dtype:
            raise TrainerError(
                f"{who}: weight '{name}' is {str(tensor.dtype).removeprefix('torch.')}, expected {str(wanted.dtype).removeprefix('torch.')}; "
                "convert the network before its state_dict is taken, or set `precision`"
            )
        n_bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if n_bad:
            raise TrainerError(
                f"{who}: {n_bad} of {tensor.numel()} values of weight '{name}' are NaN or infinite: training diverged; take smaller steps"
            )
    return {name: returned[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in expected}
