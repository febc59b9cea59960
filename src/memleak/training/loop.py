"""The loop over steps: one model alone, or several as one program (`ensemble`)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from memleak import models, randomness
from memleak.data import Dataset
from memleak.designs import Roster, Task
from memleak.params import Recipe
from memleak.training import devices, language
from memleak.training.augment import Mixup
from memleak.training.batches import Lesson, Pick, answer, look_up
from memleak.training.checkpoints import Checkpoint
from memleak.training.steps import Program, Single, Steps, build
from memleak.training.stopping import Stopper


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the text names model and epoch."""


@dataclass
class Trained:
    """A trained model: its weights, and what became of it."""

    weights: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def fit(
    program: Program, tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device,
    checkpoint: Checkpoint | None = None, lesson: Lesson | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Take all steps of M tasks that have equally many, or of a lesson. Returns the mean loss (nats) and the accuracy of each epoch, for each task.

    Where inputs or targets are blended, a sample counts as right when the model gives the likeliest class of its target.
    """
    fitting = Fitting(program, tasks if lesson is None else lesson.tasks, dataset, recipe, device, lesson)
    fitting.resume(checkpoint)
    name = tasks[0].model_id if len(tasks) == 1 else f"{tasks[0].model_id} and {len(tasks) - 1} more"
    for epoch in tqdm(range(fitting.first_epoch, recipe.epochs), desc=name, unit="epoch", leave=False, disable=None):
        fitting.epoch(epoch, checkpoint)
        if fitting.stopper is not None and fitting.stopper.are_all_over:
            break
    return fitting.finish()


class Fitting:
    """Models being trained: their steps, the batches that they draw, and what is noted of each epoch."""

    def __init__(
        self, program: Program, tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device, lesson: Lesson | None
    ) -> None:  # fmt: skip
        if recipe.distillation or recipe.selena:
            raise ValueError("a recipe whose models learn from others trains in phases: call taught.train")
        self.tasks, self.recipe, self.device, self.lesson = tasks, recipe, device, lesson
        sample_ids = np.unique(np.concatenate([task.sample_ids for task in tasks]))
        self.data = Pick(dataset, sample_ids, tasks[0].own, recipe, device, augmented=True)
        self.n_samples = np.array([len(task.sample_ids) for task in tasks])  # that an epoch is about
        is_public = lesson is not None and lesson.is_public
        self.steps = Steps(program, recipe, device) if is_public else build(program, tasks, recipe, device)
        self.n_steps = self.steps.per_epoch(tasks)
        self.mixup = Mixup(recipe.mixup, dataset.n_classes, device) if recipe.mixup else None
        self.stopper = Stopper(self.steps, tasks, dataset, recipe, device) if recipe.early_stopping else None
        if lesson is not None:
            self.targets = lesson.on(device, getattr(torch, recipe.weight_dtype))
            self.steps.temperature = lesson.temperature
        self.first_epoch, self.first_step = 0, 0
        self.losses: list[list[float]] = []  # [epochs][M]
        self.accuracies: list[list[float]] = []

    def epoch(self, epoch: int, checkpoint: Checkpoint | None) -> None:
        """Take the steps of an epoch that are left, and note what came of them."""
        tasks, steps = self.tasks, self.steps
        augment, drop = (self._keys(stream, epoch) for stream in ("augment", "dropout"))
        whole = steps.planned(tasks, epoch)
        self.n_samples = np.sum([counts for _, counts in whole], axis=0).clip(min=1)  # with dp it is drawn who takes part
        planned = whole[self.first_step :]
        drawn = self.data.batches([ids.ravel() for ids, _ in planned], augment[0] if len(tasks) == 1 else augment)
        batches = drawn if planned else iter(())  # none: a checkpoint was written after the last step of an epoch
        progress = tqdm(zip(planned, batches, strict=True), total=len(planned), desc="batches", unit="batch", leave=False, disable=None)
        drop_keys = torch.tensor(drop, device=self.device)
        mixup_keys = np.array(self._keys("mixup", epoch)) if self.mixup else None
        for i, ((sample_ids, counts), (inputs, labels, ids)) in enumerate(progress, start=self.first_step):
            rows = randomness.counter_bits(drop_keys.repeat(len(ids) // len(tasks)), ids) if self.recipe.dropout else ids
            if self.lesson is not None:
                labels = self.targets[torch.from_numpy(self.lesson.rows(sample_ids)).to(self.device)]
            if self.mixup is not None and mixup_keys is not None:
                inputs, labels = self.mixup.blend(inputs, labels, mixup_keys, sample_ids, counts)
            steps.take(inputs, labels, rows, counts, epoch * self.n_steps + i, self.recipe.epochs * self.n_steps)
            if checkpoint is not None and checkpoint.is_due:
                checkpoint.save(self._state(), self._place(epoch, i + 1))
        self.first_step = 0
        self._note(epoch)

    def _keys(self, stream: str, epoch: int) -> list[int]:
        return [randomness.derive(task.key, stream, epoch) for task in self.tasks]

    def _note(self, epoch: int) -> None:
        steps, stopper = self.steps, self.stopper
        self.losses.append((steps.loss_sum.cpu().numpy() / self.n_samples).tolist())
        self.accuracies.append((steps.n_correct.cpu().numpy() / self.n_samples).tolist())
        steps.loss_sum.zero_()
        steps.n_correct.zero_()
        for model, (task, loss) in enumerate(zip(self.tasks, self.losses[-1], strict=True)):
            if stopper is None or not stopper.is_over(model):  # what becomes of it afterwards is not kept
                check_finite(loss, task, f"the loss is {loss} in epoch {epoch + 1} of {self.recipe.epochs}", self.recipe)
        if stopper is not None:
            stopper.look()

    def finish(self) -> list[dict[str, Any]]:
        """Make the network what is released. Returns the curves of each model, and what else is to be told of it."""
        if self.stopper is not None:
            self.stopper.put_in_place()
        elif self.steps.average is not None:
            self.steps.average.put_in_place()
        found = [
            {"loss_curve": list(loss), "accuracy_curve": list(accuracy)} | more
            for loss, accuracy, more in zip(zip(*self.losses, strict=True), zip(*self.accuracies, strict=True), self.steps.facts(), strict=True)
        ]
        if self.stopper is not None:
            for facts, stopped in zip(found, self.stopper.facts(), strict=True):
                facts |= {name: facts[name][: stopped["stopped_epoch"]] for name in ("loss_curve", "accuracy_curve")} | stopped
        return found

    def _state(self) -> dict[str, torch.Tensor]:
        return self.steps.state() | ({} if self.stopper is None else self.stopper.state())

    def _place(self, epoch: int, step: int) -> dict[str, Any]:
        scaler = None if self.steps.scaler is None else self.steps.scaler.state_dict()
        place = {"epoch": epoch, "step": step, "losses": self.losses, "accuracies": self.accuracies, "scaler": scaler}
        return place if self.stopper is None else place | {"validation": self.stopper.curves}

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Begin where a checkpoint was written, in the state that it holds."""
        found = checkpoint.load(self.device) if checkpoint else None
        if found is None:
            return
        state, place = found
        self.steps.restore(state)
        if self.steps.scaler is not None:
            self.steps.scaler.load_state_dict(place["scaler"])
        if self.stopper is not None:
            self.stopper.restore(state, place["validation"])
        self.losses, self.accuracies = place["losses"], place["accuracies"]
        self.first_epoch, self.first_step = place["epoch"], place["step"]
        said = f"goes on after step {self.first_step} of {self.n_steps} in epoch {self.first_epoch + 1} of {self.recipe.epochs}"
        print(f"{self.tasks[0].model_id}: {said}", flush=True)


def check_finite(loss: float, task: Task, said: str, recipe: Recipe) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"{task.model_id}: {said}; lower learning_rate ({recipe.learning_rate}), or set gradient_clip or warmup")


def program_of(networks: Sequence[torch.nn.Module], recipe: Recipe) -> Program:
    """The program of one network, or of several of texts."""
    return language.TextProgram(networks) if recipe.reads_texts else Single(*networks)  # type: ignore[arg-type]


def initial(task: Task, dataset: Dataset, recipe: Recipe, device: torch.device) -> torch.nn.Module:
    """The untrained network of a task, drawn from its own seed."""
    return models.build_for(dataset, recipe, randomness.derive(task.key, "weights"), device)


def train(
    task: Task, dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None, lesson: Lesson | None = None
) -> Trained:  # fmt: skip
    """Train the model of a task, or of the one in its lesson, from its own seed. Raises TrainingDiverged when the loss is not a number."""
    started = time.perf_counter()
    network = initial(task if lesson is None else lesson.tasks[0], dataset, recipe, device)
    program = program_of([network], recipe)
    (curves,) = fit(program, [task], dataset, recipe, device, checkpoint, lesson)
    (weights,) = program.weights()
    return judged(network, task, weights, dataset, recipe, device, curves | {"engine": program.engine}, time.perf_counter() - started)


def judged(
    network: torch.nn.Module, task: Task, weights: dict[str, torch.Tensor], dataset: Dataset, recipe: Recipe, device: torch.device,
    facts: dict[str, Any], seconds: float,
) -> Trained:  # fmt: skip
    """A trained model with its losses and accuracies; `network` holds its weights, `seconds` is what its training took."""
    started = time.perf_counter()
    train_loss, train_accuracy = evaluate(network, dataset, task.sample_ids, task.own, recipe, device)
    check_finite(train_loss, task, f"the loss on its training data is {train_loss} after the last epoch", recipe)
    test_loss, test_accuracy = evaluate(network, dataset, task.test_ids, None, recipe, device)
    rows, _ = look_up(dataset, task.sample_ids, task.own)
    more = language.facts_of(language.encoded_of(dataset, rows, recipe)) if recipe.reads_texts else {}
    facts = {
        "train_loss": train_loss, "train_accuracy": train_accuracy, "test_loss": test_loss, "test_accuracy": test_accuracy,
        "n_train": len(task.sample_ids), "n_test": len(task.test_ids), **more, **facts,
        "device": devices.device_name(device), "torch": torch.__version__, "seconds": seconds + time.perf_counter() - started,
    }  # fmt: skip
    return Trained(weights, facts)


def predict(
    model: torch.nn.Module, dataset: Dataset, sample_ids: np.ndarray, own: Roster | None, recipe: Recipe, device: torch.device, rows: int = 256
) -> torch.Tensor:
    """Logits [n, C] in evaluation mode, on the CPU."""
    return answer(model, Pick(dataset, sample_ids, own, recipe, device, augmented=False), sample_ids, rows)


def evaluate(
    model: torch.nn.Module, dataset: Dataset, sample_ids: np.ndarray, own: Roster | None, recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """Mean loss (nats) and accuracy on some samples; of texts whose next token is learnt each one's mean over its tokens."""
    if language.is_causal(recipe):
        rows, _ = look_up(dataset, sample_ids, own)
        return language.judge(model, language.encoded_of(dataset, rows, recipe), device)
    logits = predict(model, dataset, sample_ids, own, recipe, device)
    truth = torch.from_numpy(look_up(dataset, sample_ids, own)[1])
    return float(functional.cross_entropy(logits, truth)), float((logits.argmax(1) == truth).double().mean())
