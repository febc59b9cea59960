"""WideResNet-28-2: residual blocks that normalise first, twice as wide as a ResNet for CIFAR."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from memleak.models import ModelError
from memleak.models.layers import CounterDropout, SpatialMean, convolution, normalisation
from memleak.params import Recipe

_STEM, _WIDTHS = 16, (32, 64, 128)  # channels; each stage but the first halves height and width
_BLOCKS = 4  # a stage: 28 = 6 * 4 + 4 layers
_SMALLEST = 2 ** (len(_WIDTHS) - 1)


class Block(nn.Module):
    """Normalise, ReLU, convolve, twice, beside a shortcut. A block begins as its shortcut alone: its last
    convolution is zero. (A zero scale here would stand before the ReLU, and no gradient would ever pass it.)"""

    def __init__(self, before: int, after: int, stride: int, kind: str, dropout: CounterDropout) -> None:
        super().__init__()
        bias = kind == "none"
        self.first_norm, self.first = normalisation(kind, before), convolution(before, after, 3, stride, bias=bias)
        self.second_norm, self.second = normalisation(kind, after), convolution(after, after, 3, bias=bias)
        nn.init.zeros_(self.second.weight)
        self.dropout = dropout
        self.shortcut = convolution(before, after, 1, stride, bias=bias) if stride != 1 or before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.first_norm(x))
        inside = self.dropout(functional.relu(self.second_norm(self.first(active))))
        return self.second(inside) + (x if self.shortcut is None else self.shortcut(active))


def build(shape: tuple[int, ...], n_classes: int, recipe: Recipe) -> nn.Module:
    """1.47 million weights for 10 classes. Of the recipe it reads `normalisation`, and `dropout` inside the blocks.

    Zagoruyko and Komodakis 2016, "Wide Residual Networks". Needs images of at least 4 pixels a side.
    """
    if len(shape) != 3:
        raise ModelError(f"wide_resnet28_2: the data has shape {shape}, expected images (H, W, C); use `architecture: mlp` for tables")
    if min(shape[:2]) < _SMALLEST:
        raise ModelError(f"wide_resnet28_2: images of {shape[0]} x {shape[1]} are too small, at least {_SMALLEST} pixels a side are needed")
    kind, before = recipe.normalisation, _STEM
    layers: list[nn.Module] = [convolution(shape[2], before, 3, bias=kind == "none")]
    for stage, after in enumerate(_WIDTHS):
        for block in range(_BLOCKS):
            stride = 2 if stage and not block else 1
            layers.append(Block(before, after, stride, kind, CounterDropout(recipe.dropout, layer=stage * _BLOCKS + block)))
            before = after
    return nn.Sequential(*layers, normalisation(kind, before), nn.ReLU(inplace=True), SpatialMean(), nn.Linear(before, n_classes))
