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
from memleak.training import devices
from memleak.training.batches import Pick, look_up
from memleak.training.checkpoints import Checkpoint
from memleak.training.steps import Program, Single, Steps, build


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the text names model and epoch."""


@dataclass
class Trained:
    """A trained model: its weights, and what became of it."""

    weights: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def fit(
    program: Program, tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None
) -> list[dict[str, Any]]:
    """Take all steps of M tasks that have equally many. Returns the mean loss (nats) and the accuracy of each epoch, for each task."""
    sample_ids = np.unique(np.concatenate([task.sample_ids for task in tasks]))
    data = Pick(dataset, sample_ids, tasks[0].own, recipe, device, augmented=True)
    n_samples = np.array([len(task.sample_ids) for task in tasks])
    steps = build(program, tasks, recipe, device)
    n_steps = steps.per_epoch(tasks)
    place = _resume(steps, checkpoint)
    first_epoch, first_step, losses, accuracies = place["epoch"], place["step"], place["losses"], place["accuracies"]
    if first_epoch or first_step:
        print(f"{tasks[0].model_id}: goes on after step {first_step} of {n_steps} in epoch {first_epoch + 1} of {recipe.epochs}", flush=True)
    name = tasks[0].model_id if len(tasks) == 1 else f"{tasks[0].model_id} and {len(tasks) - 1} more"
    for epoch in tqdm(range(first_epoch, recipe.epochs), desc=name, unit="epoch", leave=False, disable=None):
        augment, drop = ([randomness.derive(task.key, stream, epoch) for task in tasks] for stream in ("augment", "dropout"))
        planned = steps.planned(tasks, epoch)[first_step:]
        drawn = data.batches([ids.ravel() for ids, _ in planned], augment[0] if len(tasks) == 1 else augment)
        batches = drawn if planned else iter(())  # none: a checkpoint was written after the last step of an epoch
        progress = tqdm(zip(planned, batches, strict=True), total=len(planned), desc="batches", unit="batch", leave=False, disable=None)
        drop_keys = torch.tensor(drop, device=device)
        for i, ((_, counts), (inputs, labels, ids)) in enumerate(progress, start=first_step):
            rows = randomness.counter_bits(drop_keys.repeat(len(ids) // len(tasks)), ids) if recipe.dropout else ids
            steps.take(inputs, labels, rows, counts, epoch * n_steps + i, recipe.epochs * n_steps)
            if checkpoint is not None and checkpoint.is_due:
                scaler = None if steps.scaler is None else steps.scaler.state_dict()
                place = {"epoch": epoch, "step": i + 1, "losses": losses, "accuracies": accuracies, "scaler": scaler}
                checkpoint.save(steps.state(), place)
        first_step = 0
        losses.append((steps.loss_sum.cpu().numpy() / n_samples).tolist())
        accuracies.append((steps.n_correct.cpu().numpy() / n_samples).tolist())
        steps.loss_sum.zero_()
        steps.n_correct.zero_()
        for task, loss in zip(tasks, losses[-1], strict=True):
            check_finite(loss, task, f"the loss is {loss} in epoch {epoch + 1} of {recipe.epochs}", recipe)
    if steps.average is not None:
        steps.average.put_in_place()
    return [
        {"loss_curve": list(loss), "accuracy_curve": list(accuracy)} | more
        for loss, accuracy, more in zip(zip(*losses, strict=True), zip(*accuracies, strict=True), steps.facts(), strict=True)
    ]


def _resume(steps: Steps, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Where a training begins: where a checkpoint was written, whose state the steps then have, or at its first step."""
    found = checkpoint.load(steps.device) if checkpoint else None
    if found is None:
        return {"epoch": 0, "step": 0, "losses": [], "accuracies": []}
    state, place = found
    steps.restore(state)
    if steps.scaler is not None:
        steps.scaler.load_state_dict(place["scaler"])
    return place


def check_finite(loss: float, task: Task, said: str, recipe: Recipe) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"{task.model_id}: {said}; lower learning_rate ({recipe.learning_rate}), or set gradient_clip or warmup")


def initial(task: Task, dataset: Dataset, recipe: Recipe, device: torch.device) -> torch.nn.Module:
    """The untrained network of a task, drawn from its own seed."""
    return models.build(recipe, dataset.shape, dataset.n_classes, randomness.derive(task.key, "weights"), device)


def train(task: Task, dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None) -> Trained:
    """Train the model of a task from its own seed. Raises TrainingDiverged when the loss is not a number."""
    started = time.perf_counter()
    network = initial(task, dataset, recipe, device)
    program = Single(network)
    (curves,) = fit(program, [task], dataset, recipe, device, checkpoint)
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
    facts = {
        "train_loss": train_loss, "train_accuracy": train_accuracy, "test_loss": test_loss, "test_accuracy": test_accuracy,
        "n_train": len(task.sample_ids), "n_test": len(task.test_ids), **facts,
        "device": devices.device_name(device), "torch": torch.__version__, "seconds": seconds + time.perf_counter() - started,
    }  # fmt: skip
    return Trained(weights, facts)


def predict(
    model: torch.nn.Module, dataset: Dataset, sample_ids: np.ndarray, own: Roster | None, recipe: Recipe, device: torch.device, rows: int = 256
) -> torch.Tensor:
    """Logits [n, C] in evaluation mode, on the CPU."""
    return answer(model, Pick(dataset, sample_ids, own, recipe, device, augmented=False), sample_ids, rows)


def answer(model: torch.nn.Module, data: Pick, sample_ids: np.ndarray, rows: int) -> torch.Tensor:
    """Logits [n, C] of samples of a pick.

    Every forward pass has the same number of rows (the last is padded): the kernels that a library chooses
    depend on it, and with them a logit's last bits.
    """
    model.eval()
    batches = [sample_ids[start : start + rows] for start in range(0, len(sample_ids), rows)]
    with torch.no_grad():
        logits = [model(inputs).cpu() for inputs, _, _ in data.batches([np.resize(batch, rows) for batch in batches])]
    return torch.cat(logits)[: len(sample_ids)]


def evaluate(
    model: torch.nn.Module, dataset: Dataset, sample_ids: np.ndarray, own: Roster | None, recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """Mean loss (nats) and accuracy on some samples."""
    logits = predict(model, dataset, sample_ids, own, recipe, device)
    truth = torch.from_numpy(look_up(dataset, sample_ids, own)[1])
    return float(functional.cross_entropy(logits, truth)), float((logits.argmax(1) == truth).double().mean())
