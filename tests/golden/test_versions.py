"""Numbers that change only with TRAINING_VERSION and SIGNALS_VERSION.

A tiny network of each kind is trained by the real code on digits; committed summaries are compared within what
other processors and releases of torch may change (sums in another order), far less than a change of recipe,
batch order, augmentation or initial weights makes. Where a test fails for a reason that was meant: raise the version in
params.py, then write the new numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx

from memleak.designs import Rounds
from memleak.params import SIGNALS_VERSION, TRAINING_VERSION, Recipe
from memleak.signals.classifier import all_signals
from memleak.training import devices, loop

RECIPES = {
    "mlp": Recipe(architecture="mlp", hidden=(16,), dropout=0.2, epochs=2, batch_size=16, learning_rate=0.05, weight_decay=1e-3, precision="float64"),
    "small_cnn": Recipe(
        architecture="small_cnn", channels=(4, 8), hidden=(16,), epochs=2, batch_size=16, optimizer="adamw", learning_rate=0.01,
        schedule="cosine", warmup=0.1, label_smoothing=0.05, gradient_clip=1.0, flip=True, shift=1, precision="float64",
    ),
}  # fmt: skip

# of TRAINING_VERSION 1: train loss, test loss (nats), margins of five records after training
TRAINED = {
    "mlp": [1.691352, 1.958980, -2.033698, -0.934355, -1.638734, -1.787835, -2.502900],
    "small_cnn": [2.274002, 2.297799, -2.252253, -2.105632, -2.030748, -2.418878, -2.145628],
}


@pytest.mark.parametrize("name", RECIPES)
def test_training_gives_the_numbers_of_its_version(name, digits):
    """float64, so that two epochs amplify rounding to no more than about 1e-9; the IN arm of a canary, so that all paths are walked."""
    assert TRAINING_VERSION == 1, "write the numbers of the new version here"
    trained, margins = outcome(name, digits)

    assert [trained["train_loss"], trained["test_loss"], *margins] == approx(TRAINED[name], rel=1e-4, abs=1e-4), (
        "the same recipe now gives other weights: raise TRAINING_VERSION in params.py and write the new numbers"
    )


def outcome(name, digits):
    task = next(task for task in Rounds("mislabelled00", 64, 0, "fit", 0, 1).tasks(digits) if task.arm == "in")
    device = devices.prepare_torch("cpu")
    trained = loop.train(task, digits, RECIPES[name], device)
    model = loop.models.build(RECIPES[name], digits.shape, digits.n_classes, 0, device)
    model.load_state_dict(trained.weights)
    ids = np.arange(5)
    logits = loop.predict(model, digits, ids, None, RECIPES[name], device)
    return trained.facts, all_signals(logits, digits.labels[ids])["margin"].tolist()


def test_signals_are_the_numbers_of_their_version():
    """Logits 2, 1, 0 and label 1: log-sum-exp of the others is log(e^2 + 1) = 2.126928, and so on by hand."""
    assert SIGNALS_VERSION == 1, "write the numbers of the new version here"
    found = all_signals(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
    p = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    expected = {
        "margin": -1.126928, "loss": 1.407606, "confidence": 0.665241, "entropy": 0.832396,
        "modified_entropy": (1 - p[1]) * 1.407606 - p[0] * np.log(1 - p[0]) - p[2] * np.log(1 - p[2]), "is_correct": 0.0,
    }  # fmt: skip

    assert {name: float(values[0]) for name, values in found.items()} == approx(expected, rel=1e-5), (
        "the same logits now give other signals: raise SIGNALS_VERSION in params.py and write the new numbers"
    )
