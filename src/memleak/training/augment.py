"""Batches of images: gathered from uint8 memory, moved and mirrored by draws that belong to each sample."""

from __future__ import annotations

import torch

from memleak import randomness


class Images:
    """The images of one training on the device, [n, H + 2s, W + 2s, C] uint8, with a margin of zeros for the shift.

    `draw` says for a whole epoch at once how each image moves; `take` then gathers a batch, moved and mirrored,
    in channels-last order, and normalises it.
    """

    def __init__(self, images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, flip: bool, shift: int, dtype: torch.dtype) -> None:
        self.height, self.width = images.shape[1:3]
        self.flip, self.shift, self.dtype = flip, shift, dtype
        self.images = torch.nn.functional.pad(images, (0, 0, shift, shift, shift, shift))
        self.mean, self.scale = mean.to(dtype), (1 / std).to(dtype)
        self.rows = torch.arange(self.height, device=images.device)[None, :]
        self.columns = torch.arange(self.width, device=images.device)[None, :]

    def draw(self, positions: torch.Tensor, sample_ids: torch.Tensor, key: int) -> tuple[torch.Tensor, ...]:
        """What `take` needs of each sample: its position [n], and where pixels move its rows [n, H] and columns [n, W]."""
        if not self.flip and not self.shift:
            return (positions,)
        rows, columns = self.rows + self.shift, self.columns + self.shift  # [1, H], [1, W]
        if self.flip:
            is_mirrored = randomness.counter_uniform(key, sample_ids, 0 * sample_ids)[:, None] < 0.5
            columns = torch.where(is_mirrored, self.shift + self.width - 1 - self.columns, columns)  # [n, W]
        if self.shift:
            rows = rows + self._move(key, sample_ids, 1)  # [n, H]
            columns = columns + self._move(key, sample_ids, 2)
        return positions, rows.expand(len(positions), -1), columns.expand(len(positions), -1)

    def take(self, positions: torch.Tensor, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> torch.Tensor:
        """The images that were drawn, as [B, C, H, W] in channels-last memory."""
        if rows is None or columns is None:
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

    def draw(self, positions: torch.Tensor, sample_ids: torch.Tensor, key: int) -> tuple[torch.Tensor, ...]:
        return (positions,)

    def take(self, positions: torch.Tensor) -> torch.Tensor:
        return self.features[positions]
