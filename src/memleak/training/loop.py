"""The loop over steps: one model alone, or several as one program (`ensemble`)."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from memleak import models, randomness
from memleak.data import Dataset
from memleak.designs import Roster, Task
from memleak.models.layers import set_rows
from memleak.params import Recipe
from memleak.training import devices, optimizers
from memleak.training.batches import Pick, look_up, steps_of
from memleak.training.checkpoints import Checkpoint


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the text names model and epoch."""


@dataclass
class Trained:
    """A trained model: its weights, and what became of it."""

    weights: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


class Single:
    """The program of one model: its network as it is. `ensemble.Stack` is that of several, with the same methods."""

    engine = "sequential"
    n_models = 1

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network.train()
        self.call = network

    def arrange(self, inputs: torch.Tensor) -> torch.Tensor:
        """Samples of a batch as the network takes them."""
        return inputs

    def set_rows(self, rows: torch.Tensor) -> None:
        set_rows(self.network, rows)

    def set_counts(self, counts: np.ndarray, n_rows: int) -> None:
        """How many rows of the batch belong to each model, [M]: of one model all do."""
        self.counts: torch.Tensor | int = n_rows

    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss (nats) of each model, and how many of its samples it has right, [M] each."""
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss[None], (logits.detach().argmax(1) == labels).sum()[None]

    def weights(self) -> list[dict[str, torch.Tensor]]:
        """The weights of each model, on the CPU."""
        return [{name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}]


class Recorded:
    """A function of tensors on a GPU, recorded for each shape of its input when it was called thrice, and replayed from
    then on: hundreds of small launches become one. It must read and write the same memory each time.

    The first calls too read from the memory of the record: with another layout other kernels would run, and
    loading one breaks a recording off.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.n_calls: dict[Any, int] = {}
        self.read: dict[Any, list[torch.Tensor]] = {}
        self.graphs: dict[Any, torch.cuda.CUDAGraph] = {}

    def __call__(self, *inputs: torch.Tensor) -> None:
        key = inputs[0].shape
        if key not in self.read:
            self.read[key] = [torch.clone(given) for given in inputs]
        fixed = self.read[key]
        for place, given in zip(fixed, inputs, strict=True):
            place.copy_(given)
        self.n_calls[key] = self.n_calls.get(key, 0) + 1
        if self.n_calls[key] <= 3:
            self.function(*fixed)
            return
        if key not in self.graphs:
            gc.collect()  # what an earlier training left must not be freed while this is recorded: that breaks it off
            gc.disable()
            try:
                self.graphs[key] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[key]):
                    self.function(*fixed)
            finally:
                gc.enable()
        self.graphs[key].replay()


class Steps:
    """A program in training: takes steps, and knows all that a checkpoint must hold."""

    def __init__(self, program: Single, recipe: Recipe, device: torch.device) -> None:
        self.program, self.recipe, self.device = program, recipe, device
        self.optimizer = optimizers.build(recipe, program.network, device)
        self.average = optimizers.Average(program.network, recipe.ema) if recipe.ema else None
        is_rounded = recipe.precision in ("bfloat16", "float16")
        self.autocast: Any = torch.autocast(device.type, getattr(torch, recipe.precision)) if is_rounded else contextlib.nullcontext()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
        self.scaler = torch.amp.GradScaler(device.type) if recipe.precision == "float16" else None
        if recipe.compile:
            program.call = torch.compile(program.network, dynamic=False)  # type: ignore[assignment]
        self.loss_sum = torch.zeros(program.n_models, dtype=torch.float64, device=device)
        self.n_correct = torch.zeros(program.n_models, dtype=torch.int64, device=device)
        can_record = device.type == "cuda" and not recipe.compile and self.scaler is None
        self.recorded = Recorded(self._compute) if can_record else None

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, counts: np.ndarray, step: int, n_steps: int) -> None:
        """One step: samples in the order of a batch, [B * M] each, and how many of each model count."""
        n_rows = len(labels) // self.program.n_models
        self.program.set_counts(counts, n_rows)
        optimizers.set_learning_rate(self.optimizer, optimizers.learning_rate_at(self.recipe, step, n_steps))
        if self.recorded is not None and counts.min() == n_rows:
            self.recorded(inputs, labels, rows)
        else:
            self._compute(inputs, labels, rows)
        if self.average is not None:
            self.average.update(step)

    def _compute(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> None:
        program, recipe = self.program, self.recipe
        if recipe.dropout:
            program.set_rows(rows)
        for weight in self.optimizer.param_groups[0]["params"]:
            weight.grad = None  # as zero_grad does, without its bookkeeping: a small model's step is as long
        with self.autocast:
            logits = program.call(program.arrange(inputs))
        losses, n_correct = program.losses(logits.to(inputs.dtype), labels, recipe.label_smoothing)
        total = losses.sum()
        (total if self.scaler is None else self.scaler.scale(total)).backward()
        if recipe.gradient_clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            optimizers.clip(program.network, program.n_models, recipe.gradient_clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.loss_sum += losses.detach() * program.counts
        self.n_correct += n_correct

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that change while training."""
        parts = {
            "network": self.program.network.state_dict(), "optimizer": optimizers.state_of(self.optimizer),
            "average": self.average.average if self.average is not None else {},
            "epoch": {"loss_sum": self.loss_sum, "n_correct": self.n_correct},
        }  # fmt: skip
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.state().items():
            if not name.startswith("optimizer/"):
                tensor.copy_(state[name])
        optimizers.restore(self.optimizer, {name[10:]: tensor for name, tensor in state.items() if name.startswith("optimizer/")})


def fit(
    program: Single, tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None
) -> list[dict[str, Any]]:
    """Take all steps of M tasks that have equally many. Returns the mean loss (nats) and the accuracy of each epoch, for each task."""
    sample_ids = np.unique(np.concatenate([task.sample_ids for task in tasks]))
    data = Pick(dataset, sample_ids, tasks[0].own, recipe, device, augmented=True)
    n_samples = np.array([len(task.sample_ids) for task in tasks])
    n_steps = -(-len(tasks[0].members) // recipe.batch_size)  # of an epoch
    steps = Steps(program, recipe, device)
    losses: list[list[float]] = []
    accuracies: list[list[float]] = []
    first_epoch, first_step = 0, 0
    found = checkpoint.load(device) if checkpoint else None
    if found is not None:
        steps.restore(found[0])
        first_epoch, first_step, losses, accuracies = (found[1][key] for key in ("epoch", "step", "losses", "accuracies"))
        if steps.scaler is not None:
            steps.scaler.load_state_dict(found[1]["scaler"])
        print(f"{tasks[0].model_id}: goes on after step {first_step} of {n_steps} in epoch {first_epoch + 1} of {recipe.epochs}", flush=True)
    del found  # or it would take as much memory as the state, all the time
    name = tasks[0].model_id if len(tasks) == 1 else f"{tasks[0].model_id} and {len(tasks) - 1} more"
    for epoch in tqdm(range(first_epoch, recipe.epochs), desc=name, unit="epoch", leave=False, disable=None):
        augment, drop = ([randomness.derive(task.key, stream, epoch) for task in tasks] for stream in ("augment", "dropout"))
        planned = steps_of(tasks, epoch, recipe.batch_size)[first_step:]
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
        {"loss_curve": list(loss), "accuracy_curve": list(accuracy)}
        for loss, accuracy in zip(zip(*losses, strict=True), zip(*accuracies, strict=True), strict=True)
    ]


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
