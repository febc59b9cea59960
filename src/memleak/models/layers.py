"""Layers that the networks share."""

from __future__ import annotations

import torch
from torch import nn

from memleak import randomness


class CounterDropout(nn.Module):
    """Dropout whose mask belongs to (training, epoch, sample, feature), whatever else is in the batch.

    `rows` [B] int64 must be set before each training step (`set_rows`): one random key a sample.
    """

    def __init__(self, probability: float, layer: int) -> None:
        super().__init__()
        self.probability, self.layer = probability, layer
        self.rows: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        if self.rows is None or len(self.rows) != len(x):
            raise RuntimeError("CounterDropout: call set_rows(model, rows) with one key a sample before each step")
        feature = torch.arange(x[0].numel(), device=x.device).view(1, *x.shape[1:])
        rows = self.rows.view(-1, *[1] * (x.dim() - 1))
        keep = randomness.counter_uniform(self.layer, rows, feature) >= self.probability
        return x * keep / (1 - self.probability)


def set_rows(model: nn.Module, rows: torch.Tensor) -> None:
    """Tell every dropout layer which samples are in the batch."""
    for module in model.modules():
        if isinstance(module, CounterDropout):
            module.rows = rows


def normalisation(kind: str, channels: int) -> nn.Module:
    """The layer that a recipe's `normalisation` stands for."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(n for n in (8, 4, 2, 1) if channels % n == 0), channels)
    return nn.Identity()


def convolution(before: int, after: int, size: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps height and width (divided by the stride), its weights drawn for ReLU.

    He et al. 2015, "Delving Deep into Rectifiers": normal, of variance 2 / (after * size**2).
    """
    layer = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class SpatialMean(nn.Module):
    """The mean over height and width, [B, C, H, W] to [B, C]; unlike adaptive pooling it is deterministic on a GPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))
