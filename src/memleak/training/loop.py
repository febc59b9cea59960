"""Train one model: a plain loop over the batches that its task names."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
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
from memleak.training.augment import Features, Images


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the text names model and epoch."""


@dataclass
class Trained:
    """A trained model: its weights, and what became of it."""

    weights: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_torch(wish: str) -> torch.device:
    """The device that `wish` (auto, cpu or cuda) stands for, set up to give the same bits every time.

    One thread a job on a CPU: jobs run side by side, and results do not depend on the number of cores.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda is asked for, but torch sees no GPU here; use `device: auto` or `cpu`")
    device = torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # gradients of a fitted model are tiny, and denormals are slow
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), without importing the compiler
    # or every new tensor would be written twice; no operation of ours reads what it did not write
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _keep_freed_memory()
    return device


def _keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next step, not return it and fetch cleared pages again."""
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h of glibc; other C libraries have no such setting
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(trim_threshold, 1 << 30)
        set_option(mmap_threshold, 1 << 30) or set_option(mmap_threshold, 1 << 25)  # before glibc 2.35: 32 MiB at most


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def learning_rate_at(recipe: Recipe, step: int, n_steps: int) -> float:
    """The learning rate of a step: a linear rise over the warm-up, then constant or a cosine down to 0."""
    warmup = recipe.warmup or (0.3 if recipe.schedule == "one_cycle" else 0.0)
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return recipe.learning_rate * (step + 1) / n_warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def _optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip


def look_up(dataset: Dataset, sample_ids: np.ndarray, own: Roster | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the data set that samples have their content from, and their labels, [n] each: those of `own` have their own."""
    if own is None:
        return sample_ids, np.array(dataset.labels[sample_ids])
    position = np.searchsorted(own.sample_id, sample_ids).clip(max=len(own) - 1)
    is_own = own.sample_id[position] == sample_ids
    rows = np.where(is_own, own.source_id[position], sample_ids)
    return rows, np.where(is_own, own.label[position], dataset.labels[rows])


class Pick:
    """Some samples of a data set on the device, taken out by their ids: rows of the data set, or a canary."""

    def __init__(
        self, dataset: Dataset, sample_ids: np.ndarray, own: Roster | None, recipe: Recipe, device: torch.device, *, augmented: bool,
        view: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        rows, labels = look_up(dataset, sample_ids, own)
        self._sorted = np.sort(sample_ids)
        self._position = np.argsort(sample_ids)
        self.labels = torch.from_numpy(labels).to(device)
        found = dataset.inputs[rows] if view is None else view(dataset.inputs[rows])
        inputs = torch.from_numpy(np.ascontiguousarray(found)).to(device)
        mean, std = (torch.tensor(dataset.facts[key], dtype=torch.float64, device=device) for key in ("mean", "std"))
        dtype = getattr(torch, recipe.precision)
        if inputs.dim() == 4:
            flip, shift = augmented and recipe.flip, recipe.shift if augmented else 0
            self.inputs: Images | Features = Images(inputs, mean, std, flip=flip, shift=shift, dtype=dtype)
        else:
            self.inputs = Features(inputs, mean, std, dtype)
        self.device = device

    def batches(self, batches: Sequence[np.ndarray], key: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Inputs [B, ...], labels [B] and ids [B] of each batch. All that `key` decides is drawn at once: many small draws cost more."""
        sample_ids = np.concatenate(batches)
        positions = torch.from_numpy(self._position[np.searchsorted(self._sorted, sample_ids)]).to(self.device)
        ids = torch.from_numpy(sample_ids).to(self.device)
        drawn = (self.labels[positions], ids, *self.inputs.draw(positions, ids, key))
        for labels, batch_ids, *places in zip(*(tensor.split([len(batch) for batch in batches]) for tensor in drawn), strict=True):
            yield self.inputs.take(*places), labels, batch_ids


def fit(model: torch.nn.Module, task: Task, dataset: Dataset, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Take all steps of a task. Returns the mean loss (nats) and the accuracy of each epoch."""
    optimizer = _optimizer(recipe, model)
    data = Pick(dataset, task.sample_ids, task.own, recipe, device, augmented=True)
    n_steps, step = recipe.epochs * -(-len(task.members) // recipe.batch_size), 0
    losses, accuracies = [], []
    model.train()
    for epoch in tqdm(range(recipe.epochs), desc=task.model_id, unit="epoch", leave=False, disable=None):
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        n_correct = torch.zeros((), dtype=torch.int64, device=device)
        augment, drop = (randomness.derive(task.key, stream, epoch) for stream in ("augment", "dropout"))
        batches = list(task.batches(epoch, recipe.batch_size))
        for inputs, labels, ids in tqdm(data.batches(batches, augment), total=len(batches), desc="batches", unit="batch", leave=False, disable=None):
            if recipe.dropout:
                set_rows(model, randomness.counter_bits(drop, ids))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(recipe, step, n_steps)
            optimizer.zero_grad(set_to_none=True)
            logits = model(inputs)
            loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            loss.backward()
            if recipe.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimizer.step()
            loss_sum += loss.detach() * len(labels)
            n_correct += (logits.detach().argmax(1) == labels).sum()
            step += 1
        losses.append(float(loss_sum) / len(task.sample_ids))
        accuracies.append(float(n_correct) / len(task.sample_ids))
        if not math.isfinite(losses[-1]):
            raise TrainingDiverged(
                f"{task.model_id}: the loss is {losses[-1]} in epoch {epoch + 1} of {recipe.epochs}; lower learning_rate ({recipe.learning_rate}), or set gradient_clip or warmup"
            )
    return {"loss_curve": losses, "accuracy_curve": accuracies}


def train(task: Task, dataset: Dataset, recipe: Recipe, device: torch.device) -> Trained:
    """Train the model of a task from its own seed. Raises TrainingDiverged when the loss is not a number."""
    started = time.perf_counter()
    model = models.build(recipe, dataset.shape, dataset.n_classes, randomness.derive(task.key, "weights"), device)
    curves = fit(model, task, dataset, recipe, device)
    train_loss, train_accuracy = evaluate(model, dataset, task.sample_ids, task.own, recipe, device)
    if not math.isfinite(train_loss):
        raise TrainingDiverged(
            f"{task.model_id}: the loss on its training data is {train_loss} after the last epoch; lower learning_rate ({recipe.learning_rate}), or set gradient_clip or warmup"
        )
    test_loss, test_accuracy = evaluate(model, dataset, task.test_ids, None, recipe, device)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    facts = {
        "train_loss": train_loss, "train_accuracy": train_accuracy, "test_loss": test_loss, "test_accuracy": test_accuracy,
        "n_train": len(task.sample_ids), "n_test": len(task.test_ids), **curves,
        "device": device_name(device), "torch": torch.__version__, "engine": "sequential", "seconds": time.perf_counter() - started,
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
