"""Batches of images: gathered from uint8 memory, moved and mirrored by draws that belong to each sample."""

from __future__ import annotations

import torch

from memleak import randomness


class Images:
    """The images of one training on the device, [n, H + 2s, W + 2s, C] uint8, with a margin of zeros for the shift.

    One gather takes a batch's images out, moved and mirrored, in channels-last order; then they are normalised.
    """

    def __init__(self, images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, flip: bool, shift: int, dtype: torch.dtype) -> None:
        self.height, self.width = images.shape[1:3]
        self.flip, self.shift, self.dtype = flip, shift, dtype
        self.images = torch.nn.functional.pad(images, (0, 0, shift, shift, shift, shift))
        self.mean, self.scale = mean.to(dtype), (1 / std).to(dtype)
        self.rows = torch.arange(self.height, device=images.device)[None, :]
        self.columns = torch.arange(self.width, device=images.device)[None, :]

    def batch(self, positions: torch.Tensor, key: int | None, sample_ids: torch.Tensor) -> torch.Tensor:
        """Images at `positions` as [B, C, H, W] in channels-last memory; `key` is None where nothing is drawn."""
        rows, columns = self.rows + self.shift, self.columns + self.shift  # [1, H], [1, W]
        if key is not None and self.flip:
            is_mirrored = randomness.counter_uniform(key, sample_ids, 0 * sample_ids)[:, None] < 0.5
            columns = torch.where(is_mirrored, self.shift + self.width - 1 - self.columns, columns)  # [B, W]
        if key is not None and self.shift:
            rows = rows + self._move(key, sample_ids, 1)  # [B, H]
            columns = columns + self._move(key, sample_ids, 2)
        if len(rows) == 1 and len(columns) == 1 and not self.shift:
            taken = self.images[positions]
        else:
            taken = self.images[positions[:, None, None], rows[:, :, None], columns[:, None, :]]
        return taken.to(self.dtype).sub_(self.mean).mul_(self.scale).permute(0, 3, 1, 2)

    def _move(self, key: int, sample_ids: torch.Tensor, axis: int) -> torch.Tensor:
        """Whole pixels from -shift to shift, [B, 1]."""
        uniform = randomness.counter_uniform(key, sample_ids, 0 * sample_ids + axis)
        return (uniform * (2 * self.shift + 1)).long()[:, None] - self.shift


class Features:
    """The rows of a table, [n, F], normalised once."""

    def __init__(self, features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> None:
        self.features = ((features.to(dtype) - mean.to(dtype)) / std.to(dtype)).contiguous()

    def batch(self, positions: torch.Tensor, key: int | None, sample_ids: torch.Tensor) -> torch.Tensor:
        return self.features[positions]
