"""Mixup: each sample is blended with the next of its model's batch, by a share that belongs to the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional
from trainings import AUGMENTED, CNN, CPU, MLP, check_alike, check_resumes, equal, largest, recipe_of, tasks_of, train

from memleak.training import devices, ensemble, loop
from memleak.training.augment import Mixup, partners

RECIPES = {
    "mlp": MLP | {"mixup": 0.4, "label_smoothing": 0.1},
    "cnn": CNN | {"mixup": 1.0},
    "augmented": CNN | AUGMENTED | {"mixup": 0.2, "optimizer": "adamw", "learning_rate": 0.01, "gradient_clip": 0.5, "ema": 0.9},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.mark.parametrize("strength", [0.2, 1.0, 3.0])
def test_shares_are_drawn_from_their_beta_distribution(strength):
    shares = Mixup(strength, 10, CPU).shares(np.array([123456789012345, 7]), np.arange(4000).reshape(2000, 2)).ravel()

    assert stats.kstest(shares, stats.beta(strength, strength).cdf).pvalue > 0.001
    assert len(np.unique(shares)) > 3900


def test_a_share_belongs_to_the_sample_wherever_it_stands():
    mixup, ids = Mixup(0.5, 10, CPU), np.arange(30).reshape(10, 3)
    keys = np.array([5, 6, 5])

    drawn = mixup.shares(keys, ids)

    assert np.array_equal(mixup.shares(keys[:1], ids[::-1, :1]), drawn[::-1, :1])
    assert np.array_equal(mixup.shares(keys[2:], ids[:, :1]), drawn[:, :1])  # the same key, the same draws
    assert not np.allclose(mixup.shares(keys[1:2], ids[:, :1]), drawn[:, :1])


def test_shares_are_drawn_anew_for_each_model_and_epoch_and_alike_in_both_arms(digits, monkeypatch):
    recipe = recipe_of(MLP, mixup=0.4, epochs=3, batch_size=50)
    inside, other, out = tasks_of("pairs", digits, recipe)
    seen, blend = [], Mixup.blend
    monkeypatch.setattr(
        Mixup, "blend", lambda mixup, inputs, labels, keys, *rest: seen.append(keys.tolist()) or blend(mixup, inputs, labels, keys, *rest)
    )

    train([inside, other, out], digits, recipe)

    assert len(seen) == 3
    assert all(keys[0] == keys[2] for keys in seen)
    assert len({key for keys in seen for key in keys}) == 6


def test_the_partner_is_the_next_sample_of_the_same_model():
    """Five rows of three models in turn: the first model has 5 samples, the second 4, the third 1."""
    found = partners(5, np.array([5, 4, 1])).reshape(5, 3)

    assert found[:, 0].tolist() == [3, 6, 9, 12, 0]
    assert found[:4, 1].tolist() == [4, 7, 10, 1]
    assert found[0, 2] == 2
    assert partners(2, np.array([2, 0])).max() < 4  # a batch may hold nothing of a model


def test_inputs_and_targets_are_blended_by_the_same_share(monkeypatch):
    share = np.array([[0.75], [1.0], [0.0]])
    monkeypatch.setattr(Mixup, "shares", lambda *_: share)
    inputs, labels = torch.tensor([[[[8.0]]], [[[4.0]]], [[[2.0]]]], dtype=torch.float64), torch.tensor([0, 1, 2])

    blended, targets = Mixup(1.0, 3, CPU).blend(inputs, labels, np.array([1]), np.array([[7], [8], [9]]), np.array([3]))

    assert blended.flatten().tolist() == [7.0, 4.0, 8.0]
    assert targets.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", RECIPES)
def test_with_a_share_of_one_it_is_none(name, digits, monkeypatch):
    recipe = recipe_of(RECIPES[name])
    tasks = tasks_of("pairs", digits, recipe)
    plain = train(tasks, digits, recipe.model_copy(update={"mixup": 0.0}))
    monkeypatch.setattr(Mixup, "shares", lambda _, keys, ids: np.ones(ids.shape))

    found = train(tasks, digits, recipe)

    for one, other in zip(found, plain, strict=True):
        assert largest(one.weights, other.weights) < 1e-10
        assert one.facts["accuracy_curve"] == other.facts["accuracy_curve"]


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_learns_what_one_model_learns(name, design, digits):
    recipe = recipe_of(RECIPES[name])
    tasks = tasks_of(design, digits, recipe)

    together = check_alike(tasks, digits, recipe)

    plain = train(tasks, digits, recipe.model_copy(update={"mixup": 0.0}))
    assert all(largest(one.weights, other.weights) > 1e-3 for one, other in zip(together, plain, strict=True))


@pytest.mark.parametrize("n", [1, 3])
def test_the_same_tasks_give_the_same_bits_also_after_a_kill(n, digits, tmp_path):
    recipe = recipe_of(RECIPES["augmented"], precision="float32")
    tasks = tasks_of("pairs", digits, recipe)[:n]

    assert equal(train(tasks, digits, recipe)[0].weights, train(tasks, digits, recipe)[0].weights)
    check_resumes(tasks, digits, recipe, tmp_path / "m0.state", (1, 3, 8))


# -- targets that are probabilities ------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_program_takes_probabilities_as_it_takes_classes(smoothing):
    """For one model and for three, uneven; of probabilities the likeliest class counts."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=draw, dtype=torch.float64)  # [M, B, C]
    labels = torch.randint(4, (15,), generator=draw)
    certain, soft = functional.one_hot(labels, 4).double(), torch.rand(15, 4, generator=draw, dtype=torch.float64).softmax(1)
    stack = ensemble.Stack([torch.nn.Linear(2, 4).double() for _ in range(3)])
    stack.set_counts(np.array([5, 4, 5]), 5)

    for model in range(3):
        single, rows = loop.Single(torch.nn.Linear(2, 4)), slice(model, model + 3 * (4 if model == 1 else 5), 3)
        own = logits[model, : 4 if model == 1 else 5]
        for given in (labels, certain, soft):
            alone, right = single.losses(own, given[rows], smoothing)
            together, all_right = stack.losses(logits, given, smoothing)
            assert torch.allclose(together[model], alone[0])
            assert all_right[model] == right[0]
        assert torch.allclose(single.losses(own, labels[rows], smoothing)[0], single.losses(own, certain[rows], smoothing)[0])
        assert torch.equal(stack.in_turn(logits)[rows], own)
