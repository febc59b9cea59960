"""A fully connected network for tables (and, flattened, for images)."""

from __future__ import annotations

import math

from torch import nn

from memleak.models.layers import CounterDropout
from memleak.params import Recipe


def build(shape: tuple[int, ...], n_classes: int, recipe: Recipe) -> nn.Module:
    """Linear layers of the recipe's `hidden` widths with ReLU and dropout."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape)
    for i, hidden in enumerate(recipe.hidden):
        layers += [nn.Linear(features, hidden), nn.ReLU(inplace=True), CounterDropout(recipe.dropout, layer=i)]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, n_classes))
