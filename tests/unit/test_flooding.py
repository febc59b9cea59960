"""Losses that are not let fall: flooding, and RelaxLoss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from trainings import AUGMENTED, CNN, CPU, MLP, check_alike, check_resumes, recipe_of, tasks_of, train

from memleak.params import Recipe
from memleak.training import devices, ensemble, loop
from memleak.training.steps import Steps, flattened

N_ROWS, N_STEPS = 6, 40  # of an epoch of 10 steps each
ALWAYS, NEVER = 50.0, 1e-9  # nats: any loss of these tests is below the one and above the other
ONE_STEP = {"architecture": "mlp", "hidden": (), "epochs": 4, "batch_size": N_ROWS, "learning_rate": 0.1, "precision": "float64"}
RECIPES = {
    "flooding": MLP | {"flooding": 0.8},
    "flooding, augmented": CNN | AUGMENTED | {"flooding": 1.5, "label_smoothing": 0.1, "mixup": 0.2, "gradient_clip": 1.0},
    "relaxed": MLP | {"relaxed_loss": 1.2},
    "relaxed, augmented": CNN | AUGMENTED | {"relaxed_loss": 1.8, "label_smoothing": 0.1, "ema": 0.9},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


def _gradient(step: int = 0, **defence: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.nn.Module]:
    """The gradient of one step, [C, F], of a network that is one layer; and its inputs, labels and network, whose weights stay as they were."""
    draw = torch.Generator().manual_seed(1)
    network = torch.nn.Linear(3, 4).double()
    with torch.no_grad():
        network.weight.copy_(torch.randn(4, 3, generator=draw))
        network.bias.zero_()
    inputs, labels = torch.randn(N_ROWS, 3, generator=draw, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    steps = Steps(loop.Single(network), Recipe(**(ONE_STEP | {"learning_rate": 1e-12} | defence)), CPU)
    steps.take(inputs, labels, torch.arange(N_ROWS), np.array([N_ROWS]), step, N_STEPS)
    assert network.weight.grad is not None
    return network.weight.grad.clone(), inputs, labels, network


def test_flooding_turns_the_gradient_round_below_its_level():
    plain = _gradient()[0]

    assert torch.allclose(_gradient(flooding=NEVER)[0], plain)
    assert torch.allclose(_gradient(flooding=ALWAYS)[0], -plain)


@pytest.mark.parametrize(("step", "is_odd"), [(0, False), (9, False), (10, True), (19, True), (20, False), (39, True)])
def test_a_relaxed_loss_climbs_in_even_epochs_and_flattens_in_odd_ones(step, is_odd):
    """Below alpha; the gradient of a flat target is (p - t) x, and leaves the true class alone."""
    plain = _gradient(step)[0]
    found, inputs, labels, network = _gradient(step, relaxed_loss=ALWAYS)

    p = network(inputs).detach().softmax(1)
    is_true = functional.one_hot(labels, 4).bool()
    target = torch.where(is_true, p, (1 - p[is_true])[:, None] / 3)

    assert torch.allclose(_gradient(step, relaxed_loss=NEVER)[0], plain)
    assert torch.allclose(found, (p - target).T @ inputs / N_ROWS if is_odd else -plain, atol=1e-9)


def test_flat_targets_are_probabilities_that_keep_the_true_class():
    logits, labels = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(20) % 5

    target = flattened(logits, labels)

    assert torch.allclose(target.sum(1), torch.ones(20, dtype=torch.float64))
    assert torch.allclose(target[torch.arange(20), labels], logits.softmax(1)[torch.arange(20), labels])
    others = target[torch.arange(5) != labels[:, None]].view(20, 4)
    assert float((others.amax(1) - others.amin(1)).max()) < 1e-12
    assert torch.equal(flattened(logits, functional.one_hot(labels, 5).double()), target)


@pytest.mark.parametrize(("defence", "level"), [("flooding", 0.4), ("relaxed_loss", 0.4)])
def test_the_training_loss_stays_near_the_level(defence, level, digits):
    """The curve is the loss itself, and not what a step descends."""
    recipe = recipe_of(MLP, epochs=60)
    task = tasks_of("pairs", digits, recipe)[0]
    plain = train([task], digits, recipe)[0].facts["loss_curve"]

    held = train([task], digits, recipe.model_copy(update={defence: level}))[0].facts["loss_curve"]

    assert np.mean(plain[-10:]) < 0.02
    assert 0.5 * level < np.mean(held[-10:]) < 1.5 * level


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_learns_what_one_model_learns(name, design, digits):
    """Each model goes by its own loss: some are above the level while others are below."""
    recipe = recipe_of(RECIPES[name], epochs=5)

    check_alike(tasks_of(design, digits, recipe), digits, recipe, 1e-8)


def test_models_of_a_stack_are_on_either_side_of_the_level():
    stack = ensemble.Stack([torch.nn.Linear(2, 3).double() for _ in range(2)])
    stack.set_counts(np.array([4, 3]), 4)
    logits = torch.stack([torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]] * scale for scale in (9.0, 0.1)])
    labels = torch.tensor([0, 1, 2, 0]).repeat_interleave(2)
    steps = Steps(stack, Recipe(**(ONE_STEP | {"flooding": 0.5})), CPU)

    losses, _ = stack.losses(logits, labels, 0.0)
    aims = steps._aims(losses, logits, labels)

    assert losses[0] < 0.5 < losses[1]
    assert aims.tolist() == pytest.approx([1.0 - float(losses[0]), float(losses[1])])


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_tasks_give_the_same_bits_also_after_a_kill(name, digits, tmp_path):
    recipe = recipe_of(RECIPES[name], precision="float32")

    check_resumes(tasks_of("pairs", digits, recipe)[:2], digits, recipe, tmp_path / "m0.state", (1, 4, 8))
