"""A step of training: forward, backward, optimiser, for a program of one model or of several."""

from __future__ import annotations

import contextlib
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memleak.models.layers import set_rows
from memleak.params import Recipe
from memleak.designs import Task
from memleak.training import optimizers
from memleak.training.batches import steps_of


class Program(ABC):
    """One or several models as one network in training: `Single`, or `ensemble.Stack`."""

    engine: str
    n_models: int
    counts: torch.Tensor | int  # samples of each model in the batch, [M]

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
    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss (nats) of each model, and how many of its samples it has right, [M] each."""

    @abstractmethod
    def weights(self) -> list[dict[str, torch.Tensor]]:
        """The weights of each model, on the CPU."""


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

    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss[None], (logits.detach().argmax(1) == labels).sum()[None]

    def weights(self) -> list[dict[str, torch.Tensor]]:
        return [{name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}]


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
        self.recorded = Recorded() if can_record else None

    def planned(self, tasks: Sequence[Task], epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The steps of an epoch: sample ids [B, M], and how many of each task's count, [M]."""
        return steps_of(tasks, epoch, self.recipe.batch_size)

    def per_epoch(self, tasks: Sequence[Task]) -> int:
        return -(-len(tasks[0].members) // self.recipe.batch_size)

    def facts(self) -> list[dict[str, Any]]:
        """What is to be told of each model, beside its losses."""
        return [{} for _ in range(self.program.n_models)]

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, counts: np.ndarray, step: int, n_steps: int) -> None:
        """One step: samples in the order of a batch, [B * M] each, and how many of each model count."""
        n_rows = len(labels) // self.program.n_models
        self.program.set_counts(counts, n_rows)
        optimizers.set_learning_rate(self.optimizer, optimizers.learning_rate_at(self.recipe, step, n_steps))
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
        optimizers.restore(
            self.optimizer, {name.removeprefix("optimizer/"): tensor for name, tensor in state.items() if name.startswith("optimizer/")}
        )


def build(program: Program, tasks: Sequence[Task], recipe: Recipe, device: torch.device) -> Steps:
    """The steps that a recipe's models take: private ones with `dp`."""
    if recipe.dp is None:
        return Steps(program, recipe, device)
    from memleak.training import dpsgd  # Opacus takes its time to load

    return dpsgd.PrivateSteps(program, tasks, recipe, device)
