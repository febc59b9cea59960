"""All models of a shard as one program: their networks stacked, every model with its own samples, seed and draws."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from memleak import plugins
from memleak.data import Dataset
from memleak.designs import Task
from memleak.models import stacked
from memleak.models.layers import set_rows
from memleak.models.stacked import NotStackable
from memleak.params import Recipe
from memleak.training import engines, loop
from memleak.training.batches import Lesson
from memleak.training.checkpoints import Checkpoint
from memleak.training.loop import Trained
from memleak.training.steps import Program, classes


class Stack(Program):
    """The program of several models. Raises NotStackable where the networks cannot be one."""

    engine = "ensemble"

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__(stacked.stack(networks))
        self.n_models = len(networks)
        self.shapes = {name: tensor.shape for name, tensor in networks[0].state_dict().items()}
        self.share: torch.Tensor | None = None  # [B, M], of a sample in its model's loss
        self._even: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # counts and shares of batches in which all rows count

    def arrange(self, inputs: torch.Tensor) -> torch.Tensor:
        """As [B, M * C, H, W] in channels-last memory, or [M, B, F]."""
        if inputs.dim() == 2:
            return inputs.view(-1, self.n_models, inputs.shape[1]).transpose(0, 1)
        _, channels, height, width = inputs.shape
        each = inputs.permute(0, 2, 3, 1).reshape(-1, self.n_models, height, width, channels)
        return each.permute(0, 2, 3, 1, 4).reshape(len(each), height, width, -1).permute(0, 3, 1, 2)

    def set_rows(self, rows: torch.Tensor) -> None:
        stacked.set_rows(self.network, rows.view(-1, self.n_models).T)

    def set_counts(self, counts: np.ndarray, n_rows: int) -> None:
        fewest, weight = int(counts.min()), next(self.network.parameters())
        known = self._even.get(n_rows) if fewest == n_rows else None
        if known is None:
            on_device = torch.from_numpy(counts).to(weight.device)
            is_counted = torch.arange(n_rows, device=weight.device)[:, None] < on_device  # [B, M]
            known = on_device, is_counted.to(weight.dtype) / on_device
        if fewest == n_rows:
            self._even[n_rows] = known
        self.counts, self.share = known
        stacked.set_counts(self.network, None if fewest == n_rows else self.counts, fewest)

    def in_turn(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.transpose(0, 1).reshape(-1, logits.shape[2])

    def losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.share is not None
        truth = classes(labels).view(-1, self.n_models).T  # [M, B]
        wanted = truth if labels.dim() == 1 else labels.view(-1, self.n_models, labels.shape[1]).transpose(0, 1)  # [M, B, C]
        each = functional.cross_entropy(logits.reshape(-1, logits.shape[2]), wanted.flatten(0, 1), reduction="none", label_smoothing=smoothing)
        is_right = (logits.detach().argmax(2) == truth) & (self.share.T > 0)
        return (each.view(truth.shape) * self.share.T).sum(1), is_right.sum(1)

    def weights(self, state: Mapping[str, torch.Tensor] | None = None) -> list[dict[str, torch.Tensor]]:
        known = self.network.state_dict() if state is None else state
        parts = {name: tensor.detach().cpu().reshape(self.n_models, *self.shapes[name]) for name, tensor in known.items()}
        return [{name: tensor[model].contiguous() for name, tensor in parts.items()} for model in range(self.n_models)]


def program_of(networks: Sequence[torch.nn.Module], recipe: Recipe, shape: tuple[int, ...]) -> Program:
    """The program of networks, which learns as each does alone: those that a user wrote are put to the test."""
    if len(networks) == 1 or recipe.reads_texts:
        return loop.program_of(networks, recipe)
    if not plugins.is_built_in("architectures", recipe.architecture):
        check_alike(networks, shape)
    return Stack(networks)


def check_alike(networks: Sequence[torch.nn.Module], shape: tuple[int, ...]) -> None:
    """Raise NotStackable where the first networks have other losses and gradients in a stack than alone, in one step.

    Layers are known, but what a user's `forward` does between them may count on the axes of one network or on the rows of a
    batch; a weight that two layers share, or a gradient that is changed on its way, shows in the gradients alone. In float64,
    where rounding moves nothing over the kink of a ReLU.
    """
    alone = [copy.deepcopy(network).double().train() for network in networks[:3]]
    n_models, draw = len(alone), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (weight for network in alone for weight in network.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw).to(weight))  # a head that begins at 0 would hide all before it
    counts, one = 8 - np.arange(n_models) % 2, shape if len(shape) == 1 else (shape[2], *shape[:2])
    inputs = torch.randn(8 * n_models, *one, generator=draw).to(next(alone[0].parameters()))
    rows = torch.arange(len(inputs), device=inputs.device)
    labels = rows // n_models % 2
    try:
        program = Stack(alone)
        program.set_counts(counts, 8)
        program.set_rows(rows)
        losses, _ = program.losses(program.network(program.arrange(inputs)), labels, 0.0)  # [M]
        losses.sum().backward()
        found = {name: weight.grad.reshape(n_models, -1) for name, weight in program.network.named_parameters() if weight.grad is not None}
    except NotStackable:
        raise
    except Exception as error:  # whatever the user's code says to tensors that are not what it expects
        if isinstance(error, RuntimeError) and engines.is_out_of_memory(error):
            raise
        raise NotStackable(f"together they stop with {type(error).__name__}: {error}".splitlines()[0]) from None
    for model, (network, n) in enumerate(zip(alone, counts.tolist(), strict=True)):
        own = slice(model, n * n_models, n_models)
        set_rows(network, rows[own])
        loss = functional.cross_entropy(network(inputs[own]), labels[own])
        loss.backward()
        expected = {name: weight.grad.flatten() for name, weight in network.named_parameters() if weight.grad is not None}
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        is_alike = expected.keys() == found.keys() and torch.allclose(losses[model], loss, rtol=1e-6, atol=1e-8)
        if not is_alike or any(float((found[name][model] - expected[name]).abs().max()) > 1e-4 * largest for name in expected):
            raise NotStackable("together they do not learn as they do alone; does `forward` count on the order of axes, or draw random numbers?")


def train(
    tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device, checkpoint: Checkpoint | None = None, lesson: Lesson | None = None
) -> list[Trained]:  # fmt: skip
    """Train the models of tasks that have equally many steps as one program; a task alone as `loop.train` does.

    With a lesson they learn that, and are judged by their tasks all the same.

    The same tasks in the same order give the same bits. Among others a model's last bits differ: the library's kernels
    go by the place in memory, and batch norm by whether any model has a row more.
    """
    if len(tasks) == 1:
        return [loop.train(tasks[0], dataset, recipe, device, checkpoint, lesson)]
    started = time.perf_counter()
    networks = [loop.initial(task, dataset, recipe, device) for task in (tasks if lesson is None else lesson.tasks)]
    program = program_of(networks, recipe, dataset.shape)
    del networks[1:]  # the program has their weights; one is left to judge each model with
    curves = loop.fit(program, tasks, dataset, recipe, device, checkpoint, lesson)
    seconds = (time.perf_counter() - started) / len(tasks)
    found = []
    for task, weights, curve in zip(tasks, program.weights(), curves, strict=True):
        networks[0].load_state_dict(weights)
        facts = curve | {"engine": program.engine, "stack": program.n_models}
        found.append(loop.judged(networks[0], task, weights, dataset, recipe, device, facts, seconds))
    return found
