"""Full float32 trainings one by one and in stacks: rounding makes them other models, of the same distribution.

Run with -s to see the p-values.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from memleak.designs import Complements
from memleak.params import Recipe
from memleak.signals import classifier
from memleak.training import devices, ensemble, loop

pytestmark = pytest.mark.long
CPU = torch.device("cpu")
N_MODELS, N_SAMPLES, STACK = 200, 60, 8
RECIPES = {
    "mlp": Recipe(preset="digits-mlp"),
    "cnn": Recipe(
        architecture="small_cnn",
        channels=(8, 16),
        hidden=(32,),
        dropout=0.1,
        shift=1,
        epochs=15,
        batch_size=32,
        learning_rate=0.05,
        schedule="cosine",
    ),
}
POOLS = {"mlp": None, "cnn": 600}


def _margins(digits, recipe: Recipe, pool: int | None, part: int, stack: int) -> np.ndarray:
    """Margins of fixed samples by models of independent halves, [N_MODELS, N_SAMPLES] nats."""
    devices.prepare_torch("cpu")
    tasks = Complements(0, 2 * N_MODELS * part, 2 * N_MODELS * (part + 1), pool=pool).tasks(digits)[::2]  # without twins, which are not independent
    tasks = [task for task in tasks if -(-len(task.members) // recipe.batch_size) == -(-len(tasks[0].members) // recipe.batch_size)]
    asked = np.arange(0, len(digits.labels), len(digits.labels) // N_SAMPLES)[:N_SAMPLES]
    network = loop.initial(tasks[0], digits, recipe, CPU)
    found = []
    for first in range(0, len(tasks), stack):
        group = tasks[first : first + stack]
        trained = [loop.train(group[0], digits, recipe, CPU)] if stack == 1 else ensemble.train(group, digits, recipe, CPU)
        for model in trained:
            network.load_state_dict(model.weights)
            found.append(loop.predict(network, digits, asked, None, recipe, CPU).numpy())
    return classifier.margin(np.stack(found), np.tile(digits.labels[asked], (len(found), 1)))


def _smallest_p(one: np.ndarray, other: np.ndarray) -> float:
    """The smallest of the samples' two-sample Kolmogorov-Smirnov p-values, by Holm."""
    return min(1.0, one.shape[1] * min(ks_2samp(one[:, i], other[:, i]).pvalue for i in range(one.shape[1])))


@pytest.mark.parametrize("name", RECIPES)
def test_margins_of_200_models_have_one_distribution_whatever_the_engine(digits, name):
    """Models of one pool, each with a seed and a half of its own."""
    recipe, pool = RECIPES[name], POOLS[name]
    sequential = _margins(digits, recipe, pool, 0, 1)
    together = _margins(digits, recipe, pool, 1, STACK)
    changed = _margins(digits, recipe.model_copy(update={"label_smoothing": 0.05}), pool, 2, STACK)

    print(
        f"{name}: {len(sequential)} and {len(together)} models; p {_smallest_p(sequential, together):.3g}, control {_smallest_p(sequential, changed):.3g}"
    )
    assert min(len(sequential), len(together)) > 0.9 * N_MODELS
    assert _smallest_p(sequential, together) > 0.001
    assert _smallest_p(sequential, changed) < 0.001  # the test sees a changed recipe
