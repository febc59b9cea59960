"""A small convolutional network: blocks of convolution, normalisation, ReLU and pooling, then a classifier."""

from __future__ import annotations

from torch import nn

from memleak.models import ModelError
from memleak.models.layers import CounterDropout, normalisation
from memleak.params import Recipe


def build(shape: tuple[int, ...], n_classes: int, recipe: Recipe) -> nn.Module:
    """About 300,000 weights for CIFAR with the default widths. Needs images of at least 2**blocks pixels a side."""
    if len(shape) != 3:
        raise ModelError(f"small_cnn: the data has shape {shape}, expected images (H, W, C); use `architecture: mlp` for tables")
    height, width, channels = shape
    smallest = 2 ** len(recipe.channels)
    if min(height, width) < smallest:
        raise ModelError(
            f"small_cnn: images of {height} x {width} are too small for {len(recipe.channels)} poolings (at least {smallest}); give fewer `channels`"
        )
    layers: list[nn.Module] = []
    for after in recipe.channels:
        convolution = nn.Conv2d(channels, after, 3, padding=1, bias=recipe.normalisation == "none")
        # pooling before the activation: the same result (both are monotone) on a quarter of the values
        layers += [convolution, normalisation(recipe.normalisation, after), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        channels, height, width = after, height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    for i, hidden in enumerate(recipe.hidden):
        layers += [nn.Linear(features, hidden), nn.ReLU(inplace=True), CounterDropout(recipe.dropout, layer=i)]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, n_classes))
