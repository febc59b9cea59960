"""A wide and shallow network for short trainings on images of CIFAR's size."""

from __future__ import annotations

import torch
from torch import nn

from memleak.models import ModelError
from memleak.models.layers import CounterDropout, normalisation
from memleak.params import Recipe

_SCALE = 1 / 8  # of the logits (Page 2018)


def _convolution(before: int, after: int, bias: bool) -> nn.Conv2d:
    """A convolution whose first channels begin as copies of its input (Jordan 2024); the others small, as torch draws them:
    before a normalisation smaller weights turn faster, and few steps are all they have."""
    layer = nn.Conv2d(before, after, 3, padding=1, bias=bias)
    nn.init.dirac_(layer.weight[:before])
    return layer


class Stage(nn.Module):
    """A convolution that halves height and width by pooling, then one beside a shortcut."""

    def __init__(self, before: int, after: int, kind: str) -> None:
        super().__init__()
        bias = kind == "none"
        self.first, self.first_norm = _convolution(before, after, bias), normalisation(kind, after)
        self.second, self.second_norm = _convolution(after, after, bias), normalisation(kind, after)
        self.pool, self.active = nn.MaxPool2d(2), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # pooling first: what follows has a quarter of the values
        halved = self.active(self.first_norm(self.pool(self.first(x))))
        return halved + self.active(self.second_norm(self.second(halved)))


class Head(nn.Module):
    """A linear classifier without bias, its logits scaled."""

    def __init__(self, features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, n_classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * _SCALE


def build(shape: tuple[int, ...], n_classes: int, recipe: Recipe) -> nn.Module:
    """A stage for each of the recipe's `channels`, then the largest value of each channel and a linear classifier.

    Of the recipe it reads `normalisation` too, and `dropout` before the classifier. 1.96 million weights for CIFAR-10 with
    the widths 64, 256, 256. After Page 2018, "How to train your ResNet" (convolution and pooling, short residual
    branches, scaled logits) and Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (pooling before normalisation,
    widths, first weights), without the whitening of patches, which needs the data. Needs images of at least 2**stages pixels a side.
    """
    if len(shape) != 3:
        raise ModelError(f"fast_cnn: the data has shape {shape}, expected images (H, W, C); use `architecture: mlp` for tables")
    height, width, before = shape
    n_stages = len(recipe.channels)
    if min(height, width) < 2**n_stages:
        raise ModelError(
            f"fast_cnn: images of {height} x {width} are too small for {n_stages} poolings (at least {2**n_stages}); give fewer `channels`"
        )
    stages: list[nn.Module] = []
    for after in recipe.channels:
        stages.append(Stage(before, after, recipe.normalisation))
        before = after
    left = (height >> n_stages, width >> n_stages)
    return nn.Sequential(*stages, nn.MaxPool2d(left), nn.Flatten(), CounterDropout(recipe.dropout, layer=0), Head(before, n_classes))
