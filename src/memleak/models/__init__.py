"""Networks: a function `build(shape, n_classes, recipe) -> torch.nn.Module` each; one of the user's may take nothing, or shape and classes.

`shape` is that of one sample, (H, W, C) or (F,); the network takes [B, C, H, W] or [B, F] and returns logits
[B, C].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from memleak import plugins
from memleak.params import Recipe

if TYPE_CHECKING:
    from memleak.data import Dataset


class ModelError(ValueError):
    """An architecture that does not fit the data; the text says what it expects."""


def build_for(dataset: Dataset, recipe: Recipe, seed: int, device: torch.device) -> torch.nn.Module:
    """A network for a data set: of its shape and classes, or for its texts."""
    if not recipe.reads_texts:
        return build(recipe, dataset.shape, dataset.n_classes, seed, device)
    from memleak.models import language  # it needs what stands here

    return language.build(recipe, dataset, seed, device)


def build(recipe: Recipe, shape: tuple[int, ...], n_classes: int, seed: int, device: torch.device) -> torch.nn.Module:
    """A network on `device` in the recipe's type of weights, its weights drawn on the CPU from `seed` alone."""
    from memleak.models.given import arguments_of  # it needs what stands here
    from memleak.models.stacking import Stacked

    function = plugins.function_of("architectures", recipe.architecture)
    arguments = arguments_of(function, recipe.architecture, shape, n_classes, recipe)  # one of the user's may take fewer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = function(*arguments)
        if recipe.stacking is not None:
            model = Stacked(model, function(*arguments), n_classes, recipe.stacking.hidden)
        if recipe.dp is not None:
            from memleak.models.private import made_private  # Opacus takes its time to load

            model = made_private(model, recipe.architecture)
    is_faster = len(shape) == 3 and recipe.dp is None  # Opacus wants the other layout (training/gradients.py)
    layout = torch.channels_last if is_faster else torch.contiguous_format  # convolutions on a CPU are faster so
    return model.to(device, getattr(torch, recipe.weight_dtype), memory_format=layout)
