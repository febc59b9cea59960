"""A test of the pairing itself: where the audited record changes nothing, the two arms are exchangeable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from memleak import data, randomness
from memleak.designs import Target, Task
from memleak.metrics.paired import sign_flip_test
from memleak.params import Recipe
from memleak.signals.classifier import margin
from memleak.training import devices, loop

RECIPE = Recipe(architecture="mlp", hidden=(16,), dropout=0.3, epochs=2, batch_size=8, learning_rate=0.1, shift=1)
N_ROUNDS, SUBSET = 6, 32


def difference(digits: data.Dataset, world: int, round_: int, broken: bool) -> float:
    """Margin of IN less OUT, trained by the real code, where x takes the place of a record of the very same content.

    Augmentation and dropout are keyed by sample id, so the arms are exchangeable without being equal. `broken`
    gives the IN arm more epochs.
    """
    key = randomness.derive(world, "pairing", round_)
    order = randomness.generator(world, "pairing", round_).permutation(len(digits.labels) - 1)
    members, source = order[:SUBSET], int(order[0])
    twin = Target("index0", len(digits.labels) + 5, source, int(digits.labels[source]))  # the content of `source`, an id of its own
    task = Task("out", round_, "fit", "out", key, members, twin, None, order[SUBSET : SUBSET + 2])
    device, found = torch.device("cpu"), []
    for one in (replace(task, model_id="in", arm="in", replaced=source), task):
        recipe = RECIPE.model_copy(update={"epochs": 6}) if broken and one.arm == "in" else RECIPE
        model = loop.models.build(recipe, digits.shape, digits.n_classes, randomness.derive(key, "weights"), device)
        loop.fit(loop.Single(model), [one], digits, recipe, device)
        logits = loop.predict(model, digits, np.array([source]), None, recipe, device, rows=1)
        found.append(margin(logits, np.array([twin.label])).item())
    return found[0] - found[1]


def p_values(digits: data.Dataset, n_worlds: int, broken: bool = False) -> np.ndarray:
    return np.array([sign_flip_test(np.array([difference(digits, world, r, broken) for r in range(N_ROUNDS)])) for world in range(n_worlds)])


def distance_to_uniform(p: np.ndarray) -> float:
    """Kolmogorov's distance. Without ties a p-value of six rounds is one of 1/64 ... 64/64, each as likely as the other."""
    steps = np.arange(1, 65) / 64
    return np.abs((p[:, None] <= steps + 1e-9).mean(axis=0) - steps).max()


@pytest.mark.slow
def test_where_x_replaces_its_own_twin_the_p_values_are_uniform(digits):
    """1.63 is Kolmogorov's 1 % bound, conservative for discrete values."""
    devices.prepare_torch("cpu")
    p = p_values(digits, 120)

    assert len(np.unique(p)) > 30  # the arms are not equal: dropout and augmentation know the ids
    assert distance_to_uniform(p) < 1.63 / np.sqrt(120)


@pytest.mark.slow
def test_the_test_of_the_pairing_would_notice_an_arm_that_trains_longer(digits):
    devices.prepare_torch("cpu")
    p = p_values(digits, 60, broken=True)

    assert distance_to_uniform(p) > 1.63 / np.sqrt(60)
