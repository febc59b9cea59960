"""ResNet-18 for small images: a 3 x 3 stem without pooling, then four stages of two blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from memleak.models import ModelError
from memleak.models.layers import CounterDropout, SpatialMean, convolution, normalisation
from memleak.params import Recipe

_WIDTHS = (64, 128, 256, 512)  # of the stages; each but the first halves height and width
_SMALLEST = 2 ** (len(_WIDTHS) - 1)


class Block(nn.Module):
    """Two convolutions beside a shortcut. A block begins as its shortcut alone: its last scale (or, without
    normalisation, its last convolution) is zero (Goyal et al. 2017, "Accurate, Large Minibatch SGD")."""

    def __init__(self, before: int, after: int, stride: int, kind: str) -> None:
        super().__init__()
        bias = kind == "none"
        self.first, self.first_norm = convolution(before, after, 3, stride, bias=bias), normalisation(kind, after)
        self.second, self.second_norm = convolution(after, after, 3, bias=bias), normalisation(kind, after)
        nn.init.zeros_(self.second.weight if kind == "none" else self.second_norm.weight)  # type: ignore[arg-type]
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(convolution(before, after, 1, stride, bias=bias), normalisation(kind, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inside)) + self.shortcut(x))


def build(shape: tuple[int, ...], n_classes: int, recipe: Recipe) -> nn.Module:
    """11.17 million weights for 10 classes. Of the recipe it reads `normalisation`, and `dropout` before the classifier.

    He et al. 2016, "Deep Residual Learning for Image Recognition", with the stem that is usual for CIFAR.
    Needs images of at least 8 pixels a side.
    """
    if len(shape) != 3:
        raise ModelError(f"resnet18: the data has shape {shape}, expected images (H, W, C); use `architecture: mlp` for tables")
    if min(shape[:2]) < _SMALLEST:
        raise ModelError(f"resnet18: images of {shape[0]} x {shape[1]} are too small, at least {_SMALLEST} pixels a side are needed; use small_cnn")
    kind, before = recipe.normalisation, _WIDTHS[0]
    layers: list[nn.Module] = [convolution(shape[2], before, 3, bias=kind == "none"), normalisation(kind, before), nn.ReLU(inplace=True)]
    for stage, after in enumerate(_WIDTHS):
        layers += [Block(before, after, 1 if stage == 0 else 2, kind), Block(after, after, 1, kind)]
        before = after
    return nn.Sequential(*layers, SpatialMean(), CounterDropout(recipe.dropout, layer=0), nn.Linear(before, n_classes))
