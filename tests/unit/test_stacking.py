"""Model stacking: two networks and a top, each of its own third of the records, as one network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from trainings import AUGMENTED, CNN, CPU, FACTS, MLP, Killed, KilledAfter, check_alike, check_resumes, equal, recipe_of, tasks_of, train

from memleak import artefacts, models
from memleak.designs import Complements
from memleak.models.stacking import Stacked
from memleak.params import ParamsError
from memleak.training import devices, ensemble, loop, stage, store, taught
from memleak.training.batches import Pick
from memleak.training.checkpoints import Checkpoint

STACKING = {"stacking": {"hidden": 8}, "batch_size": 8}
RECIPES = {
    "mlp": MLP | STACKING,
    "cnn": CNN | AUGMENTED | STACKING | {"ema": 0.8, "weight_decay": 0.01, "gradient_clip": 0.5},
    "stopped": CNN | STACKING | {"early_stopping": {"records": 30, "patience": 1}, "epochs": 6, "learning_rate": 0.2},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


def _network(digits, recipe, weights: dict[str, torch.Tensor] | None = None) -> torch.nn.Module:
    network = models.build(recipe, digits.shape, digits.n_classes, 0, CPU)
    if weights is not None:
        network.load_state_dict(weights)
    return network


def test_it_is_one_network_whose_top_is_given_both_answers(digits):
    recipe = recipe_of(RECIPES["cnn"])
    network, inputs = _network(digits, recipe).eval(), torch.randn(5, 1, 8, 8, dtype=torch.float64)

    said = [part(inputs).softmax(1) for part in (network.first, network.second)]

    assert torch.equal(network(inputs), network.top(torch.cat(said, 1)))
    assert not torch.allclose(*said)
    assert network.top[0].weight.shape == (8, 20)
    assert {name.partition(".")[0] for name in network.state_dict()} == {"first", "second", "top"}
    assert equal(network.state_dict(), _network(digits, recipe).state_dict())  # drawn from the seed alone


def test_recipes_without_stacking_have_the_network_that_they_had(digits):
    recipe = recipe_of(RECIPES["cnn"])
    plain = _network(digits, recipe.model_copy(update={"stacking": None}))

    assert not isinstance(plain, Stacked)
    assert equal(plain.state_dict(), _network(digits, recipe).first.state_dict())


def test_each_sample_is_of_one_third_that_is_drawn_for_it_alone():
    third = taught.thirds_of(7, np.arange(3000))

    assert stats.chisquare(np.bincount(third, minlength=3)).pvalue > 0.001
    assert set(third) == {0, 1, 2}
    assert np.array_equal(taught.thirds_of(7, np.array([2999, 4])), third[[2999, 4]])


@pytest.mark.parametrize("name", RECIPES)
def test_the_networks_are_those_of_their_thirds_and_the_top_leaves_them_so(name, digits, monkeypatch):
    """Bit for bit, statistics of batch norm among it, as the plain recipe trains them on a third; nobody trains on another's third."""
    recipe = recipe_of(RECIPES[name], precision="float32")
    task = tasks_of("halves", digits, recipe)[0]
    seen, fit = [], loop.fit
    monkeypatch.setattr(loop, "fit", lambda program, tasks, *rest: seen.append(tasks[0]) or fit(program, tasks, *rest))

    (found,) = train([task], digits, recipe)
    plain = recipe.model_copy(update={"stacking": None})
    alone = [ensemble.train([part], digits, plain, CPU)[0].weights for part in seen[:2]]

    for name_of, expected in zip(("first", "second"), alone, strict=True):
        kept = {key.removeprefix(f"{name_of}."): value for key, value in found.weights.items() if key.startswith(f"{name_of}.")}
        assert equal(kept, expected)
    assert sorted(np.concatenate([part.sample_ids for part in seen[:3]])) == sorted(task.sample_ids)
    assert len({part.key for part in seen[:3]}) == 3
    untrained = loop.initial(seen[2], digits, recipe, CPU).state_dict()
    assert not torch.equal(found.weights["top.0.weight"], untrained["top.0.weight"])


def test_the_top_learns_what_frozen_networks_say(digits):
    """No dropout and no statistics of the batch in them: in training mode the whole answers a sample as in evaluation."""
    recipe = recipe_of(RECIPES["cnn"])
    network = _network(digits, recipe)
    inputs, _, _ = next(Pick(digits, np.arange(9), None, recipe, CPU, augmented=False).batches([np.arange(9)]))

    network.freeze()
    training = network.train()(inputs)

    assert network.training
    assert network.top.training
    assert torch.equal(training, network.eval()(inputs))
    training.sum().backward()
    assert {name.partition(".")[0] for name, weight in network.named_parameters() if weight.grad is not None} == {"top"}


def test_what_is_released_is_judged_by_all_members(digits):
    recipe = recipe_of(RECIPES["mlp"])
    task = tasks_of("pairs", digits, recipe)[0]

    (found,) = train([task], digits, recipe)
    loss, accuracy = loop.evaluate(_network(digits, recipe, found.weights), digits, task.sample_ids, task.own, recipe, CPU)

    assert found.facts["train_loss"] == pytest.approx(loss)
    assert (found.facts["train_accuracy"], found.facts["n_train"]) == (accuracy, len(task.sample_ids))
    assert sum(found.facts["parts"]["n_train"]) < len(task.sample_ids)


@pytest.mark.parametrize("design", ["pairs", "replaced"])
def test_both_arms_differ_in_the_parts_that_the_target_touches(design, digits):
    """A target in the third of one network changes that network, and the top that learns from it, but never the other network."""
    recipe = recipe_of(RECIPES["mlp"], precision="float32")
    inside, _, out = tasks_of(design, digits, recipe)
    lot = inside.replaced if inside.replaced is not None else inside.target.sample_id
    third = int(taught.thirds_of(inside.key, np.array([lot]))[0])

    one, other = (train([task], digits, recipe)[0].weights for task in (inside, out))

    for i, name in enumerate(("first", "second")):
        own = [{key: value for key, value in weights.items() if key.startswith(name)} for weights in (one, other)]
        assert equal(*own) == (i != third)
    assert not torch.equal(one["top.0.weight"], other["top.0.weight"])


@pytest.mark.parametrize("name", RECIPES)
def test_models_of_a_group_are_what_they_are_alone(name, digits):
    recipe = recipe_of(RECIPES[name])

    check_alike(tasks_of("halves", digits, recipe), digits, recipe, 0.0)


@pytest.mark.parametrize("n", [1, 2])
def test_a_kill_in_any_part_costs_no_bit(n, digits, tmp_path):
    recipe = recipe_of(RECIPES["mlp"], precision="float32")

    check_resumes(tasks_of("halves", digits, recipe)[:n], digits, recipe, tmp_path / "m0.state", (1, 4, 8, 12, 16, 20))


def test_networks_that_are_done_are_not_trained_again(digits, tmp_path, monkeypatch):
    recipe = recipe_of(RECIPES["mlp"], batch_size=40)  # one step an epoch
    tasks, path, trained, original = tasks_of("halves", digits, recipe)[:1], tmp_path / "m0.state", [], ensemble.train
    with pytest.raises(Killed):
        train(tasks, digits, recipe, KilledAfter.steps(path, 6))  # in the second network
    monkeypatch.setattr(ensemble, "train", lambda *given: trained.append(given[0][0].model_id) or original(*given))

    train(tasks, digits, recipe, Checkpoint(path, FACTS, 10))

    assert trained == [f"{tasks[0].model_id} (second)"]


def test_thirds_of_less_than_a_batch_are_refused(digits):
    with pytest.raises(ParamsError, match="each part trains on about 17 of 50 records, batch_size is 30"):
        stage.check_recipe(recipe_of(RECIPES["mlp"], batch_size=30), digits, 50)


def test_a_shard_of_stacked_models_can_be_read_and_asked(digits, digits_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, path = recipe_of(RECIPES["stopped"]), tmp_path / "out/shard.safetensors"

    shard = Complements(0, 0, 3, pool=300)
    stage.train(digits_path, "r", recipe, shard, path, "cpu")

    tasks = shard.tasks(digits)
    facts = artefacts.read_shard_facts(path)
    for i, model in enumerate(facts["models"]):
        network = _network(digits, recipe, store.read_model(path, i, facts))
        assert loop.evaluate(network, digits, tasks[i].members, None, recipe, CPU)[0] == pytest.approx(model["train_loss"])
        assert model["best_epoch"] <= model["stopped_epoch"]
    assert not list((artefacts.store_folder() / "r").glob("*.state*"))
