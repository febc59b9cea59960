"""Trainings in phases, in which the released model learns from others: distillation, SELENA, stacking.

What a phase leaves is kept beside the checkpoint, so that a training that goes on after a kill trains no phase twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from memleak import models, randomness
from memleak.data import Dataset
from memleak.designs import Task
from memleak.models.stacking import Stacked
from memleak.params import ParamsError, Recipe
from memleak.training import engines, ensemble, loop
from memleak.training.batches import Lesson
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import Trained
from memleak.training.steps import Single

N_PARTS = 3  # of stacking: one for each network, one for the top
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class School:
    """Where models are trained: on which data and device, and what is kept of them meanwhile."""

    dataset: Dataset
    device: torch.device
    checkpoint: Checkpoint | None

    def answers(self, weights: Tensors, recipe: Recipe, task: Task, sample_ids: np.ndarray) -> torch.Tensor:
        """Logits [n, C] of a trained model, in evaluation mode and about samples as they are, on the CPU."""
        network = models.build(recipe, self.dataset.shape, self.dataset.n_classes, 0, self.device)
        network.load_state_dict(weights)
        return loop.predict(network, self.dataset, sample_ids, task.own, recipe, self.device)

    def phase(
        self, name: str, tasks: Sequence[Task], recipe: Recipe, keep: Callable[[Task, Trained], Tensors]
    ) -> list[tuple[Tensors, dict[str, Any]]]:  # fmt: skip
        """What `keep` makes of each model of a phase, and the model's facts; of a phase that was finished before, what was kept."""
        working, done = (self.checkpoint.phase(f"{name}{end}") if self.checkpoint else None for end in ("", "-done"))
        found = done.load(torch.device("cpu")) if done else None
        if found is None:
            trained = ensemble.train(tasks, self.dataset, recipe, self.device, working)
            tensors = {f"{i}/{key}": value for i, task in enumerate(tasks) for key, value in keep(task, trained[i]).items()}
            facts = [model.facts for model in trained]
            if done is not None and working is not None:
                done.save(tensors, {"facts": facts})
                working.remove()
        else:
            tensors, facts = found[0], found[1]["facts"]
        accuracy = np.mean([model["test_accuracy"] for model in facts])
        what = f"{tasks[0].model_id}{f' and {len(tasks) - 1} more' if len(tasks) > 1 else ''}: {name}"
        print(f"{what}, {'kept from before' if found else 'done'}: test accuracy {accuracy:.3f}", flush=True)
        own: list[Tensors] = [{} for _ in tasks]
        for key, value in tensors.items():
            i, _, of = key.partition("/")
            own[int(i)][of] = value
        return list(zip(own, facts, strict=True))


def train(
    tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None
) -> list[Trained]:  # fmt: skip
    """Train the models of tasks that have equally many steps, in as many phases as their recipe has."""
    school = School(dataset, device, checkpoint)
    if recipe.distillation is not None:
        return _distilled(tasks, recipe, school)
    if recipe.selena is not None:
        return _selena(tasks, recipe, school)
    if recipe.stacking is not None:
        return [_stacked(task, recipe, school) for task in tasks]
    return ensemble.train(tasks, dataset, recipe, device, checkpoint)


def check(recipe: Recipe, n_members: int) -> None:
    """Refuse phases that would train on less than a batch of the `n_members` records."""
    if recipe.selena is not None:
        share, who = 1 - recipe.selena.left_out / recipe.selena.models, "selena: a sub-model"
    elif recipe.stacking is not None:
        share, who = 1 / N_PARTS, "stacking: each part"
    else:
        return
    if recipe.batch_size > share * n_members:
        raise ParamsError(f"{who} trains on about {share * n_members:.0f} of {n_members} records, batch_size is {recipe.batch_size}; lower it")


def pupils_recipe(recipe: Recipe) -> Recipe:
    """How a student trains: as the recipe says but for what is done to labels, of which it sees none. With `dp` its network is as the teacher's."""
    epochs = recipe.distillation.epochs if recipe.distillation else None
    taught = {"distillation": None, "selena": None, "label_smoothing": 0.0, "flooding": 0.0, "relaxed_loss": 0.0}
    return recipe.model_copy(update=taught | {"epochs": epochs or recipe.epochs})


def public_of(task: Task, recipe: Recipe) -> np.ndarray:
    """The public records of a task, sorted, [n]: those in reserve after the ones by which it stops early."""
    assert recipe.distillation is not None
    first, n = (recipe.early_stopping.records if recipe.early_stopping else 0), recipe.distillation.records
    found = task.reserve[first : first + n]
    if len(found) < n:
        raise ParamsError(f"distillation: {n} public records are needed, {task.model_id} has {len(found)} in reserve")
    return np.sort(found)


def _distilled(tasks: Sequence[Task], recipe: Recipe, school: School) -> list[Trained]:
    """Students of teachers that trained on the private records (Hinton et al. 2015; Shejwalkar and Houmansadr 2021).

    A student is a fresh network that sees public records, and what its teacher says of each as it is; a student's records
    are augmented as the recipe says. It is the same function of the teacher's answers in both arms of a round: a private
    record speaks through these alone, so the promise of a teacher that trained with `dp` is the student's too, which takes
    plain steps. Its curves are about what it learns: the loss to the teacher's answers, and how often it gives the same class.
    """
    assert recipe.distillation is not None
    temperature = recipe.distillation.temperature
    public, teaching = [public_of(task, recipe) for task in tasks], recipe.model_copy(update={"distillation": None})
    about = {task.model_id: ids for task, ids in zip(tasks, public, strict=True)}

    def keep(task: Task, teacher: Trained) -> Tensors:
        return {"logits": school.answers(teacher.weights, teaching, replace(task, target=None, canaries=None), about[task.model_id])}

    taught = school.phase("teacher", tasks, teaching, keep)
    pupils = [
        replace(task, members=ids, key=_students_key(task), target=None, replaced=None, canaries=None, arm="out")
        for task, ids in zip(tasks, public, strict=True)
    ]
    targets = [(kept["logits"] / temperature).softmax(1) for kept, _ in taught]
    trained = _learn(tasks, Lesson(pupils, public, targets, temperature, is_public=True), recipe, school)
    for student, ids, (_, facts) in zip(trained, public, taught, strict=True):
        student.facts["teacher"] = {name: facts[name] for name in ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "seconds")}
        student.facts["n_public"], student.facts["seconds"] = len(ids), student.facts["seconds"] + facts["seconds"]
        student.facts |= {name: facts[name] for name in ("dp", "alignment") if name in facts}  # of the private training
    return trained


def _selena(tasks: Sequence[Task], recipe: Recipe, school: School) -> list[Trained]:
    """Students that learn of each member what sub-models say which were trained without it (Tang et al. 2022).

    Each record is left to chance by itself, also where another one equals it: the sub-models that leave out the one may
    have seen the other. The student sees no label; its curves are about what it learns.
    """
    assert recipe.selena is not None
    n_models, n_left_out = recipe.selena.models, recipe.selena.left_out
    teaching, ids = recipe.model_copy(update={"selena": None}), [np.sort(task.sample_ids) for task in tasks]
    is_left_out = [left_out_of(task.key, lots_of(task, own), n_models, n_left_out) for task, own in zip(tasks, ids, strict=True)]  # [n, K] each
    place = {f"{task.model_id} (sub-model {k + 1})": (m, k) for m, task in enumerate(tasks) for k in range(n_models)}
    parts = [
        part_of(tasks[m], ids[m][~is_left_out[m][:, k]], name, randomness.derive(tasks[m].key, "sub-model", k)) for name, (m, k) in place.items()
    ]

    def keep(part: Task, trained: Trained) -> Tensors:
        m, k = place[part.model_id]
        without = ids[m][is_left_out[m][:, k]]
        return {"probabilities": school.answers(trained.weights, teaching, part, without).softmax(1)} if len(without) else {}

    said: dict[tuple[int, int], tuple[Tensors, dict[str, Any]]] = {}
    for number, group in enumerate(engines.groups(parts, len(tasks), recipe.batch_size), start=1):
        done = school.phase(f"sub-models-{number}", group, teaching, keep)
        said |= {place[part.model_id]: kept for part, kept in zip(group, done, strict=True)}
    targets = []
    for m, own in enumerate(ids):
        total = torch.zeros(len(own), school.dataset.n_classes, dtype=torch.float64)
        for k in range(n_models):
            if "probabilities" in said[m, k][0]:
                total[torch.from_numpy(is_left_out[m][:, k])] += said[m, k][0]["probabilities"]
        targets.append(total / n_left_out)
    pupils = [replace(task, key=_students_key(task)) for task in tasks]
    trained = _learn(tasks, Lesson(pupils, ids, targets), recipe, school)
    for m, student in enumerate(trained):
        facts = [said[m, k][1] for k in range(n_models)]
        student.facts["sub_models"] = {name: [sub[name] for sub in facts] for name in ("n_train", "train_accuracy", "test_accuracy")}
        student.facts["seconds"] += sum(sub["seconds"] for sub in facts)
    return trained


def _learn(tasks: Sequence[Task], lesson: Lesson, recipe: Recipe, school: School) -> list[Trained]:
    """The students of a lesson, judged by the members and test records of their tasks."""
    return ensemble.train(tasks, school.dataset, pupils_recipe(recipe), school.device, school.checkpoint, lesson)


def _students_key(task: Task) -> int:
    return randomness.derive(task.key, "student")


def left_out_of(key: int, sample_ids: np.ndarray, n_models: int, n_left_out: int) -> np.ndarray:
    """Which of K sub-models do not train on each sample, bool [n, K]: so many, drawn for each sample by itself."""
    bits = randomness.counter_bits(randomness.derive(key, "selena"), sample_ids[:, None], np.arange(n_models))
    rank = np.argsort(np.argsort(bits, axis=1, kind="stable"), axis=1)
    return rank < n_left_out


def lots_of(task: Task, sample_ids: np.ndarray) -> np.ndarray:
    """The ids by which lots are drawn for samples of a task, [n]: their own, but for a target that takes a member's place, and its lot too."""
    if not task.is_in or task.replaced is None:
        return sample_ids
    return np.where(sample_ids == task.sample_ids[-1], task.replaced, sample_ids)


def part_of(task: Task, sample_ids: np.ndarray, model_id: str, key: int) -> Task:
    """A training on some of a task's samples, with the target where it is one of them."""
    has_target = task.is_in and bool(np.isin(task.sample_ids[-1], sample_ids))
    is_inside = np.isin(task.members, sample_ids)
    if has_target and task.replaced is not None:
        is_inside |= task.members == task.replaced
    arm = "out" if task.is_in and not has_target else task.arm
    return replace(task, model_id=model_id, key=key, members=task.members[is_inside], arm=arm)


def thirds_of(key: int, sample_ids: np.ndarray) -> np.ndarray:
    """The part of stacking that each sample is of, 0, 1 or 2, [n], drawn for each by itself."""
    return (N_PARTS * randomness.counter_uniform(randomness.derive(key, "stacking"), sample_ids)).astype(np.int64)


def _stacked(task: Task, recipe: Recipe, school: School) -> Trained:
    """Two networks of the recipe, on a third of the members each, and a top that learns on the last third what to make of their answers (Salem et al. 2019)."""
    started, plain = time.perf_counter(), recipe.model_copy(update={"stacking": None})
    third = thirds_of(task.key, lots_of(task, task.sample_ids))
    parts = [
        part_of(task, task.sample_ids[third == i], f"{task.model_id} ({name})", randomness.derive(task.key, "stacking", i))
        for i, name in enumerate(("first", "second", "top"))
    ]  # fmt: skip
    below = [
        school.phase(f"{name}-{task.model_id}", [part], plain, lambda _, trained: trained.weights)[0]
        for name, part in zip(("first", "second"), parts[:2], strict=True)
    ]
    network = loop.initial(parts[2], school.dataset, recipe, school.device)
    assert isinstance(network, Stacked)
    for inner, (weights, _) in zip((network.first, network.second), below, strict=True):
        inner.load_state_dict(weights)
    network.freeze()
    program = Single(network)
    working = school.checkpoint.phase(f"top-{task.model_id}") if school.checkpoint else None
    (curves,) = loop.fit(program, parts[2:], school.dataset, recipe, school.device, working)
    facts = curves | {
        "engine": program.engine,
        "parts": {name: [facts[name] for _, facts in below] for name in ("n_train", "train_accuracy", "test_accuracy")},
    }
    (weights,) = program.weights()
    return loop.judged(network, task, weights, school.dataset, recipe, school.device, facts, time.perf_counter() - started)
