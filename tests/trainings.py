"""What tests of defences in training share: tasks that do not fit together evenly, comparisons of trainings, kills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from memleak.designs import Complements, Rounds, Task
from memleak.params import Recipe
from memleak.training import stage, taught
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import Trained

CPU = torch.device("cpu")
CNN = {"architecture": "small_cnn", "channels": (4, 8), "hidden": (16,), "epochs": 3, "batch_size": 17, "learning_rate": 0.05}
MLP = {"architecture": "mlp", "hidden": (24,), "epochs": 4, "batch_size": 17, "learning_rate": 0.1}
AUGMENTED = {"dropout": 0.2, "shift": 1, "flip": True}
FACTS = {"recipe": "r-1", "data_sha256": "d", "models": ["m0"], "engine": "sequential", "device": "cpu", "torch": "2.9.0"}


def recipe_of(fields: dict, **changed) -> Recipe:
    """In float64, where two ways to the same numbers show in no digit."""
    return Recipe(**{"precision": "float64"} | fields | changed)


def tasks_of(design: str, digits, recipe: Recipe) -> list[Task]:
    """Three tasks with what the recipe takes in reserve, whose batches differ in size: an IN arm has a sample more, halves are uneven."""
    if design == "halves":
        shard = Complements(0, 0, 6, pool=71)
        tasks = [task for task in shard.tasks(digits) if len(task.members) > 34][:3]
    else:
        shard = Rounds("atypical00", 40, 0, "fit", 0, 2, pool=200, neighbour="replace" if design == "replaced" else "add")
        inside = [task for task in shard.tasks(digits) if task.is_in]
        tasks = [*inside, replace(inside[0], model_id="out", arm="out")]
    return stage.with_reserve(shard, tasks, digits, recipe)


def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two models' weights and statistics."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(tasks: Sequence[Task], digits, recipe: Recipe, checkpoint: Checkpoint | None = None) -> list[Trained]:
    return taught.train(tasks, digits, recipe, CPU, checkpoint)


def check_alike(tasks: Sequence[Task], digits, recipe: Recipe, tolerance: float = 1e-9) -> list[Trained]:
    """Together each model becomes what it does alone: weights, curves, and what is told of it. Returns those together."""
    together = train(tasks, digits, recipe)
    for task, found in zip(tasks, together, strict=True):
        (alone,) = train([task], digits, recipe)
        assert largest(alone.weights, found.weights) <= tolerance
        assert found.facts["accuracy_curve"] == alone.facts["accuracy_curve"]
        assert found.facts["loss_curve"] == pytest.approx(alone.facts["loss_curve"], rel=tolerance, abs=tolerance)
        for name in ("stopped_epoch", "best_epoch", "train_accuracy", "test_accuracy", "n_train"):
            assert found.facts.get(name) == alone.facts.get(name)
    assert not equal(together[0].weights, together[1].weights)
    return together


class Killed(BaseException):
    """The process ends, and nothing is tidied up."""


class KilledAfter(Checkpoint):
    """Writes the state after so many steps, of all phases together, and ends the process then."""

    left: list[int]

    @classmethod
    def steps(cls, path, step: int, facts=FACTS) -> KilledAfter:
        made = cls(path, facts, 10)
        made.left = [step]
        return made

    @property
    def is_due(self) -> bool:
        self.left[0] -= 1
        return self.left[0] == 0

    def save(self, tensors, place) -> None:
        super().save(tensors, place)
        if self.left[0] == 0:
            raise Killed

    def phase(self, name: str) -> KilledAfter:
        made = super().phase(name)
        found = KilledAfter(made.path, {key: value for key, value in made.facts.items() if key != "version"}, 10)
        found.left = self.left
        return found


def check_resumes(tasks: Sequence[Task], digits, recipe: Recipe, path, steps: Sequence[int]) -> None:
    """A kill after any of these steps costs no bit."""
    whole = train(tasks, digits, recipe)
    for step in steps:
        with pytest.raises(Killed):
            train(tasks, digits, recipe, KilledAfter.steps(path, step))
        again = train(tasks, digits, recipe, Checkpoint(path, FACTS, 10))
        for one, other in zip(whole, again, strict=True):
            assert equal(one.weights, other.weights), f"after step {step}"
            assert {k: v for k, v in one.facts.items() if k in CURVES} == {k: v for k, v in other.facts.items() if k in CURVES}
        Checkpoint(path, FACTS, 10).remove()
        assert not list(path.parent.iterdir())


CURVES = ("loss_curve", "accuracy_curve", "validation_loss", "best_epoch", "stopped_epoch", "train_loss")


def with_labels(digits, labels: np.ndarray):
    """The same records with other labels."""
    return replace(digits, labels=labels)
