"""Batches of images: gathered from uint8 memory, moved, mirrored and cut by draws that belong to each sample; blends of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import special

from memleak import randomness


class Images:
    """The images of one training on the device, [n, H + 2s, W + 2s, C] uint8, with a margin of zeros for the shift.

    `draw` says for a whole epoch at once how each image moves and what of it is erased; `take` then gathers a batch, moved
    and mirrored, in channels-last order, normalises it, and erases: 0 after normalisation is the mean colour.
    """

    def __init__(
        self, images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, flip: bool, shift: int, cutout: int = 0, dtype: torch.dtype
    ) -> None:
        self.height, self.width = images.shape[1:3]
        self.flip, self.shift, self.cutout, self.dtype = flip, shift, cutout, dtype
        self.images = torch.nn.functional.pad(images, (0, 0, shift, shift, shift, shift))
        self.mean, self.scale = mean.to(dtype), (1 / std).to(dtype)
        self.rows = torch.arange(self.height, device=images.device)[None, :]
        self.columns = torch.arange(self.width, device=images.device)[None, :]

    def draw(self, positions: torch.Tensor, sample_ids: torch.Tensor, key: int | torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What `take` needs of each sample, [n, ...] each: its position; where its rows and columns come from, if images move;
        which rows and columns the erased square covers, if there is one.

        `key` is that of all samples, or an int64 tensor of one for each.
        """
        drawn: tuple[torch.Tensor, ...] = (positions,)
        if self.flip or self.shift:
            drawn += tuple(place.expand(len(positions), -1) for place in self._sources(sample_ids, key))
        if self.cutout:
            drawn += (self._covers(self.rows, sample_ids, key, 3), self._covers(self.columns, sample_ids, key, 4))
        return drawn

    def take(self, positions: torch.Tensor, *drawn: torch.Tensor) -> torch.Tensor:
        """The images that were drawn, as [B, C, H, W] in channels-last memory."""
        if self.flip or self.shift:
            rows, columns, *drawn = drawn  # type: ignore[assignment]
            taken = self.images[positions[:, None, None], rows[:, :, None], columns[:, None, :]]
        else:
            taken = self.images[positions]
        batch = taken.to(self.dtype).sub_(self.mean).mul_(self.scale)
        if self.cutout:
            rows, columns = drawn
            batch.masked_fill_((rows[:, :, None] & columns[:, None, :])[..., None], 0)
        return batch.permute(0, 3, 1, 2)

    def _sources(self, sample_ids: torch.Tensor, key: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Where in the padded image each row and column comes from, [n or 1, H] and [n or 1, W]."""
        rows, columns = self.rows + self.shift, self.columns + self.shift
        if self.flip:
            is_mirrored = randomness.counter_uniform(key, sample_ids, 0 * sample_ids)[:, None] < 0.5
            columns = torch.where(is_mirrored, self.shift + self.width - 1 - self.columns, columns)  # [n, W]
        if self.shift:
            rows = rows + self._move(key, sample_ids, 1)  # [n, H]
            columns = columns + self._move(key, sample_ids, 2)
        return rows, columns

    def _move(self, key: Any, sample_ids: torch.Tensor, axis: int) -> torch.Tensor:
        """Whole pixels from -shift to shift, [n, 1]."""
        uniform = randomness.counter_uniform(key, sample_ids, 0 * sample_ids + axis)
        return (uniform * (2 * self.shift + 1)).long()[:, None] - self.shift

    def _covers(self, pixels: torch.Tensor, sample_ids: torch.Tensor, key: Any, axis: int) -> torch.Tensor:
        """Whether the square covers a row (or column), [n, pixels]: its centre is any pixel alike, so it may overhang.

        DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
        """
        n_pixels = pixels.shape[1]
        centre = (randomness.counter_uniform(key, sample_ids, 0 * sample_ids + axis) * n_pixels).long()[:, None]  # [n, 1]
        first = centre - self.cutout // 2
        return (pixels >= first) & (pixels < first + self.cutout)


class Features:
    """The rows of a table, [n, F], normalised once."""

    def __init__(self, features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> None:
        self.features = ((features.to(dtype) - mean.to(dtype)) / std.to(dtype)).contiguous()

    def draw(self, positions: torch.Tensor, sample_ids: torch.Tensor, key: int | torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (positions,)

    def take(self, positions: torch.Tensor) -> torch.Tensor:
        return self.features[positions]


class Mixup:
    """Blends of each sample with another of the same model's batch, inputs and targets alike.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization". The share that a sample keeps belongs to (training,
    epoch, sample); its partner is the next sample in the batch, whose order is drawn anew in each epoch.
    """

    def __init__(self, strength: float, n_classes: int, device: torch.device) -> None:
        self.strength, self.n_classes, self.device = strength, n_classes, device

    def shares(self, keys: np.ndarray, sample_ids: np.ndarray) -> np.ndarray:
        """Draws from Beta(strength, strength), [B, M]; `keys` [M] are those of the models."""
        return special.betaincinv(self.strength, self.strength, randomness.counter_uniform(keys, sample_ids))

    def blend(
        self, inputs: torch.Tensor, labels: torch.Tensor, keys: np.ndarray, sample_ids: np.ndarray, counts: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Inputs [B * M, ...] and probabilities [B * M, C] of a batch of ids [B, M], of which the first `counts` [M] are a model's own."""
        share = torch.from_numpy(self.shares(keys, sample_ids).ravel()).to(self.device, inputs.dtype)
        partner = torch.from_numpy(partners(sample_ids.shape[0], counts)).to(self.device)
        targets = labels if labels.dim() == 2 else torch.nn.functional.one_hot(labels, self.n_classes).to(inputs.dtype)
        of_inputs, of_targets = share.view(-1, *[1] * (inputs.dim() - 1)), share[:, None]
        return inputs * of_inputs + inputs[partner] * (1 - of_inputs), targets * of_targets + targets[partner] * (1 - of_targets)


def partners(n_rows: int, counts: np.ndarray) -> np.ndarray:
    """The place of the next sample of the same model in a batch of models in turn, the first following the last, [B * M]."""
    following = (np.arange(n_rows)[:, None] + 1) % np.maximum(counts, 1)  # [B, M]
    return (following * len(counts) + np.arange(len(counts))).ravel()
