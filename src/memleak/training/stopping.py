"""Early stopping: the loss on records in reserve after each epoch, and each model's weights where it was lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memleak import models
from memleak.data import Dataset
from memleak.designs import Task
from memleak.params import ParamsError, Recipe
from memleak.training import language
from memleak.training.batches import Pick, answer
from memleak.training.steps import Steps

_ROWS = 256  # of a forward pass, at most


class Stopper:
    """Watches M models in training. Each is asked as it would be if it were alone, in a network of its own and evaluation mode.

    A model is over when its loss has not fallen for `patience` epochs. It goes on training beside its mates, and what
    becomes of it then is not looked at: its weights are those of its best epoch.
    """

    def __init__(self, steps: Steps, tasks: Sequence[Task], dataset: Dataset, recipe: Recipe, device: torch.device) -> None:
        assert recipe.early_stopping is not None
        self.steps, self.patience, self.device = steps, recipe.early_stopping.patience, device
        self.reserves = [reserve_of(task, recipe) for task in tasks]
        self.data = Pick(dataset, np.unique(np.concatenate(self.reserves)), None, recipe, device, augmented=False)
        self.truth = [torch.from_numpy(np.array(dataset.labels[reserve])) for reserve in self.reserves]
        self.network = models.build_for(dataset, recipe, 0, device)
        self.texts = [language.encoded_of(dataset, reserve, recipe) for reserve in self.reserves] if language.is_causal(recipe) else []
        self.best = {name: tensor.detach().clone() for name, tensor in steps.shown().items()}
        self.curves: list[list[float]] = [[] for _ in tasks]  # mean loss (nats) after each epoch, until a model is over

    def is_over(self, model: int) -> bool:
        curve = self.curves[model]
        return len(curve) - best_of(curve) > self.patience

    @property
    def are_all_over(self) -> bool:
        return all(self.is_over(model) for model in range(len(self.curves)))

    def look(self) -> None:
        """After an epoch: the losses of the models that are not over, and the weights of those that were never better."""
        shown, is_best = self.steps.shown(), []
        for model, weights in enumerate(self.steps.program.weights(shown)):
            is_running = not self.is_over(model)
            if is_running:
                self.network.load_state_dict(weights)
                self.curves[model].append(self._loss(model))
            is_best.append(is_running and best_of(self.curves[model]) == len(self.curves[model]) - 1)
        self._keep(shown, is_best)

    def _loss(self, model: int) -> float:
        if self.texts:
            return language.judge(self.network, self.texts[model], self.device)[0]
        reserve = self.reserves[model]
        logits = answer(self.network, self.data, reserve, min(_ROWS, len(reserve)))
        return float(functional.cross_entropy(logits.double(), self.truth[model]))

    @torch.no_grad()
    def _keep(self, shown: dict[str, torch.Tensor], is_best: list[bool]) -> None:
        if not any(is_best):
            return
        for name, tensor in shown.items():
            best, rows = self.best[name], (len(is_best), -1)
            chosen = torch.tensor(is_best, device=best.device)[:, None]
            best.copy_(torch.where(chosen, tensor.reshape(rows), best.reshape(rows)).reshape(best.shape))

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Make each model what it was after its best epoch."""
        for name, tensor in self.steps.program.network.state_dict().items():
            tensor.copy_(self.best[name])

    def facts(self) -> list[dict[str, Any]]:
        """Of each model: the epochs that it trained, its best one, and the loss on its reserve after each, in nats (None: not a number)."""
        return [
            {
                "stopped_epoch": len(curve), "best_epoch": best_of(curve) + 1,
                "validation_loss": [loss if math.isfinite(loss) else None for loss in curve],
            }
            for curve in self.curves
        ]  # fmt: skip

    def state(self) -> dict[str, torch.Tensor]:
        return {f"best/{name}": tensor for name, tensor in self.best.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor], curves: list[list[float]]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.curves = [list(curve) for curve in curves]


def best_of(curve: list[float]) -> int:
    """The first epoch of the lowest loss; what is no number is never the lowest. 0 before any."""
    known = [loss if math.isfinite(loss) else math.inf for loss in curve]
    return known.index(min(known)) if known else 0


def reserve_of(task: Task, recipe: Recipe) -> np.ndarray:
    """The records by which the model of a task stops: the first of those in reserve."""
    assert recipe.early_stopping is not None
    wanted = recipe.early_stopping.records
    if len(task.reserve) < wanted:
        raise ParamsError(f"early_stopping: {wanted} records are needed, {task.model_id} has {len(task.reserve)} in reserve")
    return task.reserve[:wanted]
