"""A step of training: forward, backward, optimiser, for a program of one model or of several."""

from __future__ import annotations

import contextlib
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memleak.designs import Task
from memleak.models.layers import set_rows
from memleak.params import Recipe
from memleak.training import optimizers
from memleak.training.batches import steps_of


def classes(labels: torch.Tensor) -> torch.Tensor:
    """The class of each label, [n]: of probabilities [n, C] the likeliest."""
    return labels if labels.dim() == 1 else labels.argmax(1)


def flattened(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Targets that leave the probability of the true class as it is, and share the rest alike among the others, [n, C].

    Chen, Yu and Fritz 2022, "RelaxLoss: Defending Membership Inference Attacks without Losing Utility".
    """
    probabilities, truth = logits.detach().softmax(1), classes(labels)[:, None]
    confidence = probabilities.gather(1, truth)  # [n, 1]
    others = (1 - confidence) / (logits.shape[1] - 1)
    is_true = torch.arange(logits.shape[1], device=logits.device) == truth
    return torch.where(is_true, confidence, others)


class Program(ABC):
    """One or several models as one network in training: `Single`, or `ensemble.Stack`."""

    engine: str
    n_models: int
    counts: torch.Tensor | int  # samples of each model in the batch, [M]
    count_dtype = torch.int64  # of how many samples are right

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network.train()
        self.call = network  # what takes a batch: the network, or what it was compiled to

    @abstractmethod
    def arrange(self, inputs: torch.Tensor) -> torch.Tensor:
        """Samples of a batch, [B * M, ...] with models in turn, as the network takes them."""

    @abstractmethod
    def set_rows(self, rows: torch.Tensor) -> None:
        """Give dropout one key for each sample of the batch, [B * M]."""

    @abstractmethod
    def set_counts(self, counts: np.ndarray, n_rows: int) -> None:
        """Say how many of a batch's `n_rows` rows belong to each model, [M]."""

    @abstractmethod
    def in_turn(self, logits: torch.Tensor) -> torch.Tensor:
        """What the network says of a batch, [B * M, C] with models in turn, as its labels are."""

    @abstractmethod
    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss (nats) of each model, and how many of its samples it has right, [M] each.

        `labels` are classes [B * M], or probabilities [B * M, C], of which the largest is what counts as right.
        """

    @abstractmethod
    def weights(self, state: Mapping[str, torch.Tensor] | None = None) -> list[dict[str, torch.Tensor]]:
        """The weights of each model, on the CPU: the network's, or those of another state by its names."""


class Single(Program):
    """The program of one model: its network as it is."""

    engine = "sequential"
    n_models = 1

    def arrange(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def set_rows(self, rows: torch.Tensor) -> None:
        set_rows(self.network, rows)

    def set_counts(self, counts: np.ndarray, n_rows: int) -> None:
        self.counts = n_rows

    def in_turn(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss[None], (logits.detach().argmax(1) == classes(labels)).sum()[None]

    def weights(self, state: Mapping[str, torch.Tensor] | None = None) -> list[dict[str, torch.Tensor]]:
        return [{name: tensor.detach().cpu().contiguous() for name, tensor in (state or self.network.state_dict()).items()}]


class Recorded:
    """Steps on a GPU, recorded for each shape of their input when it has come thrice, and replayed from then on: hundreds of small launches become one. What is recorded must
    read and write the same memory each time.

    The first calls too read from the memory of the record: with another layout other kernels would run, and
    loading one breaks a recording off.
    """

    def __init__(self) -> None:
        self.n_calls: dict[Any, int] = {}
        self.read: dict[Any, list[torch.Tensor]] = {}
        self.graphs: dict[Any, torch.cuda.CUDAGraph] = {}

    def take(self, function: Callable[..., None], *inputs: torch.Tensor) -> None:
        key = inputs[0].shape
        if key not in self.read:
            self.read[key] = [torch.clone(given) for given in inputs]
        fixed = self.read[key]
        for place, given in zip(fixed, inputs, strict=True):
            place.copy_(given)
        self.n_calls[key] = self.n_calls.get(key, 0) + 1
        if self.n_calls[key] <= 3:
            function(*fixed)
            return
        if key not in self.graphs:
            gc.disable()  # what an earlier training left must not be freed while this is recorded: that breaks it off
            try:
                self.graphs[key] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[key]):
                    function(*fixed)
            finally:
                gc.enable()
        self.graphs[key].replay()


class Steps:
    """A program in training: takes steps, and knows all that a checkpoint must hold."""

    def __init__(self, program: Program, recipe: Recipe, device: torch.device) -> None:
        self.program, self.recipe, self.device = program, recipe, device
        self.dtype = getattr(torch, recipe.weight_dtype)
        self.optimizer = optimizers.build(recipe, program.network, device)
        self.average = optimizers.Average(program.network, recipe.ema) if recipe.ema else None
        is_rounded = recipe.precision in ("bfloat16", "float16")
        self.autocast: Any = torch.autocast(device.type, getattr(torch, recipe.precision)) if is_rounded else contextlib.nullcontext()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
        self.scaler = torch.amp.GradScaler(device.type) if recipe.precision == "float16" else None
        if recipe.compile:
            program.call = torch.compile(program.network, dynamic=False)  # type: ignore[assignment]
        self.loss_sum = torch.zeros(program.n_models, dtype=torch.float64, device=device)
        self.n_correct = torch.zeros(program.n_models, dtype=program.count_dtype, device=device)
        can_record = device.type == "cuda" and not recipe.compile and self.scaler is None
        self.recorded = Recorded() if can_record and not recipe.reads_texts else None  # batches of texts differ in length
        self.temperature = 1.0  # of the targets, where a model learns from another's answers
        self.is_odd = torch.zeros((), dtype=torch.bool, device=device)  # the epoch; on the device, where recorded steps read it

    def planned(self, tasks: Sequence[Task], epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The steps of an epoch: sample ids [B, M], and how many of each task's count, [M]."""
        return steps_of(tasks, epoch, self.recipe.batch_size)

    def per_epoch(self, tasks: Sequence[Task]) -> int:
        return -(-len(tasks[0].members) // self.recipe.batch_size)

    def facts(self) -> list[dict[str, Any]]:
        """What is to be told of each model, beside its losses."""
        return [{} for _ in range(self.program.n_models)]

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, counts: np.ndarray, step: int, n_steps: int) -> None:
        """One step: samples in the order of a batch, [B * M] each, and how many of each model count.

        Labels are classes [B * M], or probabilities [B * M, C].
        """
        n_rows = len(labels) // self.program.n_models
        self.program.set_counts(counts, n_rows)
        optimizers.set_learning_rate(self.optimizer, optimizers.learning_rate_at(self.recipe, step, n_steps))
        if self.recipe.relaxed_loss:
            self.is_odd.fill_(step * self.recipe.epochs // n_steps % 2)
        if self.recorded is not None and counts.min() == n_rows:
            self.recorded.take(self._compute, inputs, labels, rows)
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
        logits = logits.to(self.dtype)
        if self.temperature != 1:
            logits = logits / self.temperature
        losses, n_correct = program.losses(logits, labels, recipe.label_smoothing)
        if self.temperature != 1:  # gradients shrink with its square (Hinton et al. 2015)
            losses = losses * self.temperature**2
        total = self._aims(losses, logits, labels).sum()
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

    def _aims(self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What a step descends for each model, [M]: its loss, or what a defence makes of that.

        Flooding (Ishida et al. 2020) turns the gradient round below a loss of b: |loss - b| + b. RelaxLoss (Chen, Yu and
        Fritz 2022) descends a loss of alpha or more; below, it climbs in even epochs (the first is epoch 0), and in odd ones
        descends the cross-entropy to targets that keep the true class's probability and are flat over the others.
        """
        recipe = self.recipe
        if recipe.flooding:
            return (losses - recipe.flooding).abs() + recipe.flooding
        if recipe.relaxed_loss:
            flat, _ = self.program.losses(logits, flattened(self.program.in_turn(logits), labels), 0.0)
            return torch.where(losses >= recipe.relaxed_loss, losses, torch.where(self.is_odd, flat, -losses))
        return losses

    def shown(self) -> dict[str, torch.Tensor]:
        """The weights that would be released now: the network's, or their moving average."""
        return self.program.network.state_dict() | ({} if self.average is None else self.average.average)

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
        optimizers.restore(
            self.optimizer, {name.removeprefix("optimizer/"): tensor for name, tensor in state.items() if name.startswith("optimizer/")}
        )


def build(program: Program, tasks: Sequence[Task], recipe: Recipe, device: torch.device) -> Steps:
    """The steps that a recipe's models take: private ones with `dp`."""
    if recipe.dp is None:
        return Steps(program, recipe, device)
    from memleak.training.dpsgd import PrivateSteps  # Opacus takes its time to load

    return PrivateSteps(program, tasks, recipe, device)
