"""Samples on the device, and the batches that tasks draw from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from memleak.data import Dataset
from memleak.designs import Roster, Task
from memleak.params import Recipe
from memleak.training.augment import Features, Images

if TYPE_CHECKING:
    from memleak.training.language import Texts

_DRAWN_AT_ONCE = 65_536  # samples whose augmentation is drawn in one go: many small draws cost more, a whole epoch's can fill the memory


def look_up(dataset: Dataset, sample_ids: np.ndarray, own: Roster | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the data set that samples have their content from, and their labels, [n] each: those of `own` have their own."""
    if own is None:
        return sample_ids, np.array(dataset.labels[sample_ids])
    position = np.searchsorted(own.sample_id, sample_ids).clip(max=len(own) - 1)
    is_own = own.sample_id[position] == sample_ids
    rows = np.where(is_own, own.source_id[position], sample_ids)
    return rows, np.where(is_own, own.label[position], dataset.labels[rows])


def inputs_on(
    found: np.ndarray, mean: ArrayLike, std: ArrayLike, recipe: Recipe, device: torch.device | str, *, augmented: bool = False
) -> Images | Features:  # fmt: skip
    """Records as a network of the recipe is given them: images, augmented or not, or the rows of a table."""
    inputs = torch.from_numpy(np.ascontiguousarray(found)).to(device)
    centre, scale = (torch.as_tensor(values, dtype=torch.float64, device=device) for values in (mean, std))
    dtype = getattr(torch, recipe.weight_dtype)
    if inputs.dim() != 4:
        return Features(inputs, centre, scale, dtype)
    flip, shift, cutout = (recipe.flip, recipe.shift, recipe.cutout) if augmented else (False, 0, 0)
    return Images(inputs, centre, scale, flip=flip, shift=shift, cutout=cutout, dtype=dtype)


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
        self.inputs: Images | Features | Texts
        self.is_its_own_label = False  # a text whose next token is what is learnt
        if recipe.reads_texts:
            from memleak.training import language  # which needs what stands here

            self.inputs = language.Texts(language.encoded_of(dataset, rows, recipe, view), device)
            self.is_its_own_label = language.is_causal(recipe)
        else:
            found = dataset.inputs[rows] if view is None else view(dataset.inputs[rows])
            self.inputs = inputs_on(found, dataset.facts["mean"], dataset.facts["std"], recipe, device, augmented=augmented)
        self.device = device

    def batches(self, batches: Sequence[np.ndarray], key: int | Sequence[int] = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Inputs [B, ...], labels [B] and ids [B] of each batch; where a text's next token is learnt, its tokens are its label.

        `key` decides how samples are augmented. Where there are several they take turns: those of M models whose
        samples alternate in a batch.
        """
        sizes = np.cumsum([len(batch) for batch in batches])
        for part in np.split(np.arange(len(batches)), np.flatnonzero(np.diff(sizes // _DRAWN_AT_ONCE)) + 1):
            yield from self._draw([batches[i] for i in part], key)

    def _draw(self, batches: Sequence[np.ndarray], key: int | Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        sample_ids = np.concatenate(batches)
        positions = torch.from_numpy(self._position[np.searchsorted(self._sorted, sample_ids)]).to(self.device)
        ids = torch.from_numpy(sample_ids).to(self.device)
        keys = key if isinstance(key, int) else torch.tensor(key, device=self.device).repeat(len(ids) // len(key))
        drawn = (self.labels[positions], ids, *self.inputs.draw(positions, ids, keys))
        for labels, batch_ids, *places in zip(*(tensor.split([len(batch) for batch in batches]) for tensor in drawn), strict=True):
            inputs = self.inputs.take(*places)
            yield inputs, inputs if self.is_its_own_label else labels, batch_ids


def steps_of(tasks: Sequence[Task], epoch: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The steps of an epoch of M tasks that have equally many: sample ids [B, M], and how many of each task's count, [M].

    A task with fewer than B samples in a step has its first ones once more below.
    """
    found = []
    for parts in zip(*(task.batches(epoch, batch_size) for task in tasks), strict=True):
        counts = np.array([len(part) for part in parts])
        full = parts if counts.min() == counts.max() else [np.resize(part, counts.max()) for part in parts]
        found.append((np.stack(full, axis=1), counts))
    return found


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


@dataclass(frozen=True)
class Lesson:
    """What M models learn in place of their members' labels: which samples in which order, and the probabilities to be said of each."""

    tasks: Sequence[Task]  # whose members are the samples
    sample_ids: Sequence[np.ndarray]  # of each model, rising, [n]
    targets: Sequence[torch.Tensor]  # of each model's samples, [n, C]
    temperature: float = 1.0  # of the targets, and by which the logits are divided
    is_public: bool = False  # whether no sample is private, so that it is learnt without noise also where the recipe trains privately

    @cached_property
    def _first(self) -> np.ndarray:
        """The row of each model's first target among all of them, [M]."""
        return np.cumsum([0, *(len(ids) for ids in self.sample_ids[:-1])])

    def on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """All targets on a device, model after model."""
        return torch.cat(list(self.targets)).to(device, dtype)

    def rows(self, sample_ids: np.ndarray) -> np.ndarray:
        """Where among all targets those of a batch [B, M] stand, [B * M]."""
        found = [first + np.searchsorted(known, ids) for first, known, ids in zip(self._first, self.sample_ids, sample_ids.T, strict=True)]
        return np.stack(found, axis=1).ravel()
