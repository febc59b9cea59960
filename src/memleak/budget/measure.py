"""Seconds and bytes of one model, timed on a few steps of the training that the workflow would do. Imports torch."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memleak import data
from memleak.designs import Rounds, Shard, Task
from memleak.models.stacked import NotStackable
from memleak.params import Recipe, Training
from memleak.training import accountant, devices, engines, taught
from memleak.training.loop import Trained
from memleak.training.stage import check_recipe, with_reserve

LONG_ENOUGH = 3.0  # seconds that epochs over some records take, so that their time can be believed
_FEW = 16  # records that a part of a training is given in the shortest of its runs: by chance one of fewer could be empty


def time_model(data_path: Path, recipe: Recipe, shard: Shard, training: Training, device: str) -> dict[str, Any]:
    """Seconds a training record, and bytes, of a model of a recipe: from ever more records and epochs until they take 3 s.

    All that its training does is timed, a teacher, a student and sub-models too. Where it may stop early, these are the
    seconds of one that does not: at most so many.
    """
    dataset = data.read(data_path)
    is_private = recipe.dp is not None
    tasks = with_reserve(shard, shard.tasks(dataset), dataset, recipe)
    check_recipe(recipe, dataset, min(task.n_members if is_private else len(task.members) for task in tasks))
    torch_device = devices.prepare_torch(device)
    n_stacked = engines.stack_of(training, recipe, dataset.shape, dataset.n_classes, torch_device, len(tasks))
    together = engines.groups(tasks, n_stacked, recipe.batch_size, is_private)[0]
    n_all = min(len(task.members) for task in together)

    def run(n_records: int, parts: int) -> tuple[float, Trained]:
        short = Short(recipe, n_records / n_all, parts)
        tasks = [short.task(task, n_records) for task in together]
        if is_private:
            accountant.promise_of(short.recipe, n_records)  # which is kept, so that the clock runs for steps alone
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # what is said of each phase
            trained = taught.train(tasks, dataset, short.recipe, torch_device)[0]
        return (time.perf_counter() - started) / len(tasks), trained

    n, n_parts, parts = min(n_all, fewest(recipe)), parts_of(recipe), 1
    try:
        run(n, 1)  # the first steps of a process are slow
    except NotStackable:  # one after another then, as `train` does it
        together = together[:1]
    while True:
        (once, trained), (longer, _) = run(n, 1), run(n, 1 + parts)
        part = max(longer - once, 0.0) / parts
        if part * parts * len(together) >= LONG_ENOUGH or (n >= n_all and parts >= n_parts):
            break
        n, parts = min(2 * n, n_all), parts if n < n_all else min(2 * parts, n_parts)
    n_judged = len(together[0].test_ids)
    seconds = part * n_parts / n + max(once - part, 0.0) * (n_all + n_judged) / (n + n_judged) / n_all
    engine = str(trained.facts["engine"])
    return {
        "seconds": {
            "n": 0, "timed_records": n, "low": seconds, "median": seconds, "high": seconds, "engines": [engine],
            "is_most": recipe.early_stopping is not None,
        },
        "bytes": float(sum(tensor.numel() * tensor.element_size() for tensor in trained.weights.values())),
    }  # fmt: skip


@dataclass(frozen=True)
class Short:
    """A training like that of a recipe, on a share of the records and for some of the parts into which its epochs are cut."""

    whole: Recipe
    share: float  # of the members, and so of the records in reserve
    parts: int

    @property
    def n_stopping(self) -> int:
        return self._some(self.whole.early_stopping.records) if self.whole.early_stopping else 0

    @property
    def n_public(self) -> int:
        return self._some(self.whole.distillation.records) if self.whole.distillation else 0

    def _some(self, n: int) -> int:
        return min(n, max(2, round(self.share * n)))  # batch norm takes two

    @property
    def recipe(self) -> Recipe:
        """Never stops early, and has a noise that nobody has to search for: neither changes what a step costs."""
        whole, stopping, taught_by, private = self.whole, self.whole.early_stopping, self.whole.distillation, self.whole.dp
        epochs = self._epochs(whole.epochs)
        students = self._epochs(taught_by.epochs or whole.epochs) if taught_by else 0
        changes = {
            "epochs": epochs,
            "early_stopping": stopping and stopping.model_copy(update={"records": self.n_stopping, "patience": max(epochs, students)}),
            "distillation": taught_by and taught_by.model_copy(update={"records": self.n_public, "epochs": students}),
            "dp": private and private.model_copy(update={"noise_multiplier": 1.0, "epsilon": None, "accountant": "rdp"}),
        }
        return whole.model_copy(update=changes)

    def _epochs(self, n: int) -> int:
        return n // parts_of(self.whole) * self.parts

    def task(self, task: Task, n_records: int) -> Task:
        """A task with the first of its members and of each kind of its records in reserve."""
        second = self.whole.early_stopping.records if self.whole.early_stopping else 0
        reserve = np.concatenate([task.reserve[: self.n_stopping], task.reserve[second : second + self.n_public]])
        return replace(task, members=task.members[:n_records], n_expected=None, reserve=reserve)


def parts_of(recipe: Recipe) -> int:
    """Into how many equal parts the epochs of all phases can be cut: their greatest common divisor."""
    student = recipe.distillation.epochs if recipe.distillation else None
    return math.gcd(recipe.epochs, student or recipe.epochs)


def fewest(recipe: Recipe) -> int:
    """The records that a shortest run takes: a batch, in each of the parts of a training that is cut up."""
    cut, batch_size = 1.0, recipe.batch_size
    if recipe.selena is not None:
        cut = 1 - recipe.selena.left_out / recipe.selena.models
    elif recipe.stacking is not None:
        cut = 1 / taught.N_PARTS
    return batch_size if cut == 1 else math.ceil(max(batch_size, _FEW) / cut)


def first_shard(shards: Sequence[Shard]) -> Shard:
    """A shard whose models are all sure to be there: of base models, where the design has some."""
    return next((shard for shard in shards if not (isinstance(shard, Rounds) and shard.target)), shards[0])
