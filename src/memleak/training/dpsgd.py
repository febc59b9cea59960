"""DP-SGD: batches by Poisson sampling, every sample's gradient clipped, noise on their sum.

Abadi et al. 2016, "Deep Learning with Differential Privacy". What each part does stands in a function of its own
(`sampling_rate`, `clip_factors`, `noise`). The noise comes from ordinary generators that follow from the seed, so that a
training can be repeated: who knows the seed can take the noise off again, which is fine for an audit; a model that is
to be released is trained with a seed that nobody else knows, and its weights are given away without the head of the file
that they are kept in, where the training's key stands.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memleak import models, plugins, provenance, randomness
from memleak.data import Dataset
from memleak.designs import Task
from memleak.models.private import check_alone
from memleak.params import ParamsError, Recipe
from memleak.training import optimizers
from memleak.training.accountant import promise_of, rate_of, warning_of
from memleak.training.gradients import ByOpacus, OfStack, SampleGradients
from memleak.training.poisson import is_drawn, poisson_batches, together
from memleak.training.steps import Program, Steps

LARGE = 100.0  # norm of a canary's gradient before clipping, in units of clip: clipping alone bounds it


def sampling_rate(recipe: Recipe, task: Task) -> float:
    """The probability with which each record of a task takes part in a step."""
    return rate_of(recipe.batch_size, task.n_members)


def key_of(recipe: Recipe, task: Task) -> int:
    """The key of a training's coins and noise: of its whole recipe too.

    Trainings of a sweep share their seed. If they shared their noise, two of different size would give away the gradient
    without any; as it is, the promises of several add up.
    """
    return randomness.derive(task.key, "dp", provenance.digest(recipe.model_dump(mode="json", exclude_defaults=True), 64))


def clip_factors(norms: torch.Tensor, clip: float) -> torch.Tensor:
    """By what gradients of these norms are multiplied, so that none is longer than `clip`."""
    return (clip / (norms + 1e-6)).clamp(max=1.0)


def noise(n_weights: int, deviation: float, key: int, step: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The noise of a step on the sum of a model's gradients, [n_weights], of standard deviation `deviation`."""
    if device.type == "cpu":  # torch's own generator for a CPU has 32 bits of a seed, of which two of many steps may share theirs
        drawn = randomness.generator(key, "dp noise", step).standard_normal(n_weights, dtype=np.float64 if dtype == torch.float64 else np.float32)
        return torch.from_numpy(drawn).mul_(deviation)
    generator = torch.Generator(device).manual_seed(randomness.derive(key, "dp noise", step))
    return torch.randn(n_weights, generator=generator, device=device, dtype=dtype).mul_(deviation)


def check(recipe: Recipe, dataset: Dataset, n_members: int) -> None:
    """Refuse a private training that cannot be, and say what is to be known of its promise."""
    promise_of(recipe, n_members)
    if warning := warning_of(recipe, n_members):
        _say_once(warning)
    network = models.build_for(dataset, recipe, seed=0, device=torch.device("cpu"))
    if recipe.architecture == "checkpoint":
        check_alone(network, dataset.shape, recipe.text.checkpoint or "", torch.tensor([[1, 2, 3, 4], [5, 4, 3, 2], [2, 6, 7, -1]]))
    elif not plugins.is_built_in("architectures", recipe.architecture):
        check_alone(network, dataset.shape, recipe.architecture)


@functools.cache
def _say_once(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


class PrivateSteps(Steps):
    """A program that trains privately: its promise is `accountant.promise_of`, and stands in each model's facts."""

    def __init__(self, program: Program, tasks: Sequence[Task], recipe: Recipe, device: torch.device) -> None:
        super().__init__(program, recipe, device)
        self.recorded = None
        self.tasks = tasks
        self.keys = [key_of(recipe, task) for task in tasks]
        self.promise = promise_of(recipe, tasks[0].n_members)
        self.weights = self.optimizer.param_groups[0]["params"]
        self.n_weights = sum(weight.numel() for weight in self.weights) // program.n_models  # of one model
        self.gradients = self._gradients()
        self.canaries = Canaries(tasks, self.n_weights, recipe, device) if len(tasks[0].all_directions) else None

    def _gradients(self) -> SampleGradients:
        if self.program.n_models > 1:
            return OfStack(self.program.network, self.program.n_models, self.weights)
        return ByOpacus(self.program.network, self.weights)

    def planned(self, tasks: Sequence[Task], epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        n_steps = self.per_epoch(tasks)
        rates = [sampling_rate(self.recipe, task) for task in tasks]
        return together(
            [poisson_batches(key_of(self.recipe, task), epoch, n_steps, task.sample_ids, rate) for task, rate in zip(tasks, rates, strict=True)]
        )

    def per_epoch(self, tasks: Sequence[Task]) -> int:
        return -(-tasks[0].n_members // self.recipe.batch_size)

    def facts(self) -> list[dict[str, Any]]:
        said = {"dp": self.promise | {"batch_norm_replaced": getattr(self.program.network, "batch_norm_replaced", 0)}}
        if self.canaries is None:
            return [dict(said) for _ in self.tasks]
        return [said | {"alignment": row} for row in self.canaries.alignment.tolist()]

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, counts: np.ndarray, step: int, n_steps: int) -> None:
        optimizers.set_learning_rate(self.optimizer, optimizers.learning_rate_at(self.recipe, step, n_steps))
        released = self._sums(inputs, labels, rows, counts)  # [M, P]
        if self.canaries is not None:
            self.canaries.join(released, *divmod(step, self.per_epoch(self.tasks)))
        deviation = self.promise["noise_multiplier"] * self.promise["clip"]
        for own, key in zip(released, self.keys, strict=True):
            own += noise(self.n_weights, deviation, key, step, self.device, own.dtype)
        if self.canaries is not None:
            self.canaries.look(released)
        self._descend(released / self.recipe.batch_size)  # the expected number: the drawn one would tell who took part
        if self.average is not None:
            self.average.update(step)

    def _sums(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, counts: np.ndarray) -> torch.Tensor:
        """The sum of clipped gradients of each model, [M, P], weights in the order of the optimiser's."""
        n_models = self.program.n_models
        if not len(labels):
            return torch.zeros(n_models, self.n_weights, device=self.device, dtype=self.weights[0].dtype)
        in_turn = labels.view(-1, n_models, *labels.shape[1:]).transpose(0, 1)  # [M, B], of texts [1, B, K]
        kind = _Texts if self.recipe.reads_texts else _Batch
        batch = kind(self, in_turn, rows.view(-1, n_models), torch.from_numpy(counts).to(self.device))
        found = self.gradients.sums(self.program.arrange(inputs), batch)
        return torch.cat([total.reshape(n_models, -1) for total in found], dim=1)

    @torch.no_grad()
    def _descend(self, gradients: torch.Tensor) -> None:
        """Take the optimiser's step along gradients [M, P]."""
        sizes = [weight.numel() // self.program.n_models for weight in self.weights]
        for weight, part in zip(self.weights, gradients.split(sizes, dim=1), strict=True):
            weight.grad = torch.empty_like(weight).copy_(part.reshape(weight.shape))  # in the memory order of the weight, as fused steps want it
        self.optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        return super().state() | ({} if self.canaries is None else {"canaries/alignment": self.canaries.alignment})


class _Batch:
    """The samples of a step: labels [M, B], dropout's keys [B, M], and how many of each model count, [M]."""

    def __init__(self, steps: PrivateSteps, labels: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor) -> None:
        self.steps, self.labels, self.rows = steps, labels, rows
        self.is_counted = torch.arange(labels.shape[1], device=labels.device) < counts[:, None]  # [M, B]

    def enter(self, part: slice) -> None:
        if self.steps.recipe.dropout:
            self.steps.program.set_rows(self.rows[part].reshape(-1))

    def losses(self, logits: torch.Tensor, part: slice) -> torch.Tensor:
        truth, is_counted, steps = self.labels[:, part], self.is_counted[:, part], self.steps
        logits = logits.reshape(*truth.shape, -1)  # [M, B, C]
        found = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none", label_smoothing=steps.recipe.label_smoothing)
        found = found.view(truth.shape)
        steps.loss_sum += (found.detach() * is_counted).sum(1)
        steps.n_correct += ((logits.detach().argmax(2) == truth) & is_counted).sum(1)
        return found

    def factors(self, norms: torch.Tensor, part: slice) -> torch.Tensor:
        return clip_factors(norms, self.steps.promise["clip"]) * self.is_counted[:, part]


class _Texts(_Batch):
    """The texts of a step of one model: their labels are classes [1, B], or tokens [1, B, K]."""

    def losses(self, logits: torch.Tensor, part: slice) -> torch.Tensor:
        steps, is_counted = self.steps, self.is_counted[:, part]
        found, is_right = steps.program.each(logits, self.labels[0, part], steps.recipe.label_smoothing)  # type: ignore[attr-defined]
        steps.loss_sum += (found.detach() * is_counted).sum(1)
        steps.n_correct += (is_right * is_counted).sum(1)
        return found


class Canaries:
    """Gradients that are inserted beside those of the samples, one coordinate of the weights each, to audit the training by.

    Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning"; Steinke, Nasr and Jagielski 2023,
    "Privacy Auditing with One (1) Training Run" (the Dirac canary). One that is in takes part as a record does: by the
    same coins, clipped and under the same noise. What is seen is `alignment`, [M, n] in units of clip: over all steps,
    the noisy sum of gradients at its coordinate, less what the records put there. Epsilon covers that: it holds against an
    adversary who knows all other records, and reads the weights of every step.
    """

    def __init__(self, tasks: Sequence[Task], n_weights: int, recipe: Recipe, device: torch.device) -> None:
        self.ids = tasks[0].all_directions
        if len(self.ids) > n_weights:
            raise ParamsError(
                f"canaries: {len(self.ids)} gradients need a weight each, {recipe.architecture} has {n_weights}; ask for fewer canaries, or a larger network"
            )
        self.tasks, self.recipe, self.device = tasks, recipe, device
        self.keys = [key_of(recipe, task) for task in tasks]
        self.is_in = np.stack([np.isin(self.ids, task.directions) for task in tasks])  # [M, n]
        places = randomness.generator(0, "gradient canaries").permutation(n_weights)[: len(self.ids)]  # the same in all models
        self.places = torch.from_numpy(places).to(device)
        self.alignment = torch.zeros(len(tasks), len(self.ids), dtype=torch.float64, device=device)
        self._known = torch.zeros_like(self.alignment)  # what the records of a step have put at the coordinates

    def join(self, sums: torch.Tensor, epoch: int, step: int) -> None:
        """Add the clipped gradients of those that take part in a step to the sums of gradients, [M, P]."""
        clip = self.recipe.dp.clip  # type: ignore[union-attr]
        self._known = sums[:, self.places].double()
        norm = torch.tensor(LARGE * clip, device=self.device, dtype=sums.dtype)
        drawn = [
            is_drawn(key, epoch, np.array([step]), self.ids, sampling_rate(self.recipe, task))[0]
            for key, task in zip(self.keys, self.tasks, strict=True)
        ]
        takes_part = torch.from_numpy(np.stack(drawn) & self.is_in).to(self.device)
        sums[:, self.places] += takes_part * norm * clip_factors(norm, clip)

    def look(self, released: torch.Tensor) -> None:
        """Note what a step releases at each canary's coordinate."""
        self.alignment += (released[:, self.places].double() - self._known) / self.recipe.dp.clip  # type: ignore[union-attr]
