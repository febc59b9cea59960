"""Several models as one program: each is what it would be alone, whoever its mates are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from memleak.designs import Coins, Complements, Rounds, Task
from memleak.models.stacked import NotStackable
from memleak.params import Recipe
from memleak.training import devices, ensemble, loop
from memleak.training.loop import TrainingDiverged

CPU = torch.device("cpu")
CNN = {"architecture": "small_cnn", "channels": (4, 8), "hidden": (16,), "epochs": 3, "batch_size": 17, "learning_rate": 0.05}
MLP = {"architecture": "mlp", "hidden": (24,), "epochs": 4, "batch_size": 17, "learning_rate": 0.1}
RECIPES = {
    "cnn": CNN,
    "cnn, groups normalised": CNN | {"normalisation": "group"},
    "cnn, nothing normalised": CNN | {"normalisation": "none"},
    "cnn, augmented": CNN | {"dropout": 0.3, "shift": 1, "flip": True, "cutout": 3, "label_smoothing": 0.1},
    "cnn, adamw": CNN | {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.05, "schedule": "one_cycle", "gradient_clip": 0.5},
    "cnn, averaged": CNN | {"ema": 0.9, "weight_decay": 1e-3, "schedule": "cosine", "warmup": 0.2, "gradient_clip": 0.5},
    "mlp": MLP | {"dropout": 0.2, "label_smoothing": 0.2, "shift": 1, "cutout": 2},
    "mlp, averaged": MLP | {"optimizer": "adamw", "learning_rate": 0.01, "gradient_clip": 0.1, "ema": 0.8, "momentum": 0.0},
    "fast": {"architecture": "fast_cnn", "channels": (6, 8), "dropout": 0.2, "epochs": 2, "batch_size": 17, "learning_rate": 0.05},
}
DEEP = {
    "resnet18": {"architecture": "resnet18", "dropout": 0.2, "epochs": 1, "batch_size": 10, "learning_rate": 0.02},
    "wide_resnet28_2": {"architecture": "wide_resnet28_2", "dropout": 0.2, "epochs": 1, "batch_size": 10, "learning_rate": 0.02},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


def _recipe(fields: dict, **changed) -> Recipe:
    return Recipe(**{"precision": "float64"} | fields | changed)


def _designs(digits) -> dict[str, list[Task]]:
    """Tasks whose batches differ in size: the last of a pair is its OUT arm, halves and canaries are of unequal sizes."""
    inside = Rounds("atypical00", 40, 0, "fit", 0, 2)
    out = replace(inside.tasks(digits)[0], model_id="out", arm="out")
    halves = [task for task in Complements(0, 0, 6, pool=71).tasks(digits) if len(task.members) > 34]
    coins = [task for task in Coins(0, 0, 8, 12, 38, mislabelled=True).tasks(digits) if 34 < len(task.members) <= 51]
    return {
        "pairs": [*inside.tasks(digits)[:2], out],
        "replaced": Rounds("mislabelled00", 40, 0, "fit", 0, 3, neighbour="replace").tasks(digits)[:3],
        "halves": halves[:3],
        "canaries": coins[:3],
    }


def _largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two models' weights and statistics."""
    assert one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and one[name].shape == other[name].shape for name in one)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _check_equal(tasks: list[Task], digits, recipe: Recipe, tolerance: float) -> None:
    """Weights, statistics, curves and accuracies of a stack are those of trainings one by one."""
    together = ensemble.train(tasks, digits, recipe, CPU)
    assert len(together) == len(tasks)
    for task, found in zip(tasks, together, strict=True):
        alone = loop.train(task, digits, recipe, CPU)
        assert _largest(alone.weights, found.weights) <= tolerance
        assert found.facts["loss_curve"] == pytest.approx(alone.facts["loss_curve"], rel=tolerance, abs=tolerance)
        assert found.facts["accuracy_curve"] == alone.facts["accuracy_curve"]
        assert (alone.facts["engine"], found.facts["engine"], found.facts["stack"]) == ("sequential", "ensemble", len(tasks))
        for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "n_train", "n_test"):
            assert found.facts[name] == pytest.approx(alone.facts[name], rel=10 * tolerance, abs=10 * tolerance)


# -- the same models ---------------------------------------------------------------------------------------------


def test_the_designs_of_these_tests_have_uneven_batches(digits):
    sizes = {name: [[len(part) for part in task.batches(0, 17)] for task in tasks] for name, tasks in _designs(digits).items()}

    assert all(len({len(task) for task in tasks}) == 1 for tasks in sizes.values())  # equally many steps
    assert {name for name, tasks in sizes.items() if len({tuple(task) for task in tasks}) > 1} == {"pairs", "halves", "canaries"}


@pytest.mark.parametrize("design", ["pairs", "replaced", "halves", "canaries"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_whole_training_in_float64_ends_with_the_same_weights(digits, name, design):
    _check_equal(_designs(digits)[design], digits, _recipe(RECIPES[name]), 1e-10)


@pytest.mark.parametrize("name", DEEP)
def test_deep_networks_in_float64_end_with_the_same_weights(digits, name):
    tasks = [replace(task, members=task.members[:20]) for task in _designs(digits)["pairs"][1:]]

    assert _trained_alike(tasks, digits, _recipe(DEEP[name])) <= 1e-8


@pytest.mark.parametrize("name", RECIPES)
def test_five_steps_in_float32_agree_to_the_fifth_digit(digits, name):
    _check_five_steps(digits, _recipe(RECIPES[name], precision="float32", epochs=1, batch_size=10), seed=0)


@pytest.mark.parametrize("name", DEEP)
def test_five_steps_of_deep_networks_in_float32_agree_to_the_fifth_digit(digits, name):
    """At a small rate: with 0.02 resnet18 on 8 x 8 pixels carries rounding to the second digit, sequential float32 against float64 too."""
    _check_five_steps(digits, _recipe(DEEP[name], precision="float32", batch_size=16, learning_rate=0.001, dropout=0.0), seed=2)


def _check_five_steps(digits, recipe: Recipe, seed: int) -> None:
    tasks = Rounds("atypical00", 5 * recipe.batch_size, seed, "fit", 0, 2).tasks(digits)[:2]

    assert all(len(list(task.batches(0, recipe.batch_size))) == 5 for task in tasks)
    assert _trained_alike(tasks, digits, recipe) <= 1e-5


def _trained_alike(tasks: list[Task], digits, recipe: Recipe) -> float:
    """The largest difference after trainings together and alone, without the evaluations after them, which for deep networks take longer."""
    networks = [loop.initial(task, digits, recipe, CPU) for task in tasks]
    together = ensemble.Stack(networks)
    loop.fit(together, tasks, digits, recipe, CPU)
    differences = []
    for task, network, weights in zip(tasks, networks, together.weights(), strict=True):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        alone = loop.Single(network)
        loop.fit(alone, [task], digits, recipe, CPU)
        assert _largest(before, weights) > 1e-4
        differences.append(_largest(alone.weights()[0], weights))
    return max(differences)


def test_tables_are_stacked_too(table):
    tasks = Rounds("random00", 40, 0, "fit", 0, 3).tasks(table)[:3]

    _check_equal(tasks, table, _recipe(MLP), 1e-10)


def test_a_sample_seen_beside_large_numbers_is_normalised_as_well_as_alone(digits):
    """Statistics of unequal batches come from a difference of sums, and lose at most a digit or two in float32."""
    from memleak.models.stacked import BatchNorm

    layers = [torch.nn.BatchNorm2d(3) for _ in range(2)]
    stacked = BatchNorm(layers)
    x = torch.randn(9, 6, 4, 4, generator=torch.Generator().manual_seed(0)) + 30
    stacked.counts, stacked.fewest = torch.tensor([9, 8]), 8

    y = stacked(x)

    assert torch.allclose(y[:, :3], layers[0](x[:, :3]), atol=2e-3)
    assert torch.allclose(y[:8, 3:], layers[1](x[:8, 3:]), atol=2e-3)


@pytest.mark.parametrize("shape", [(3, 5, 2), (4, 2, 1), (6,)])
def test_samples_of_models_in_turn_come_to_stand_side_by_side(shape):
    """Sample b of model m is row b * M + m of what was drawn."""
    inputs = torch.arange(4 * 3 * math.prod(shape), dtype=torch.float32).view(4, 3, *shape)  # [B, M, H, W, C] or [B, M, F]
    given = inputs.flatten(0, 1)
    program = ensemble.Stack([torch.nn.Linear(2, 2) for _ in range(3)])

    found = program.arrange(given if len(shape) == 1 else given.permute(0, 3, 1, 2))

    for model in range(3):
        if len(shape) == 1:
            assert torch.equal(found[model], inputs[:, model])
        else:
            own = found[:, shape[2] * model : shape[2] * (model + 1)]
            assert torch.equal(own, inputs[:, model].permute(0, 3, 1, 2))
            assert shape[2] == 1 or found.is_contiguous(memory_format=torch.channels_last)


# -- nobody sees anybody -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "cnn, augmented", "cnn, averaged", "mlp", "fast"])
def test_what_a_mate_trains_on_changes_no_bit_of_the_others(digits, name):
    recipe = _recipe(RECIPES[name], precision="float32")
    first, second, third, stranger = Rounds(None, 40, 0, "fit", 0, 4).tasks(digits)

    among = ensemble.train([first, second, third], digits, recipe, CPU)
    other = ensemble.train([first, stranger, third], digits, recipe, CPU)

    assert not _equal(among[1].weights, other[1].weights)
    assert _equal(among[0].weights, other[0].weights)
    assert _equal(among[2].weights, other[2].weights)


@pytest.mark.parametrize("name", RECIPES)
def test_a_mates_additional_sample_changes_nothing_in_the_others(digits, name):
    """With it all others have a row more that counts for nobody: other sums of the library's, and no other numbers.

    Where nothing is normalised over the batch they are the same bits.
    """
    recipe = _recipe(RECIPES[name])
    base = Rounds(None, 40, 0, "fit", 0, 2).tasks(digits)
    inside = Rounds("atypical00", 40, 0, "fit", 0, 2).tasks(digits)[0]
    assert inside.is_in and np.array_equal(inside.members, base[0].members)

    with_it = ensemble.train([inside, base[1]], digits, recipe, CPU)
    without = ensemble.train([base[0], base[1]], digits, recipe, CPU)

    assert _largest(with_it[0].weights, without[0].weights) > 1e-6
    assert _largest(with_it[1].weights, without[1].weights) <= 1e-12
    if name in ("mlp", "cnn, groups normalised", "cnn, nothing normalised"):
        assert _equal(with_it[1].weights, without[1].weights)


@pytest.mark.parametrize("name", ["cnn", "cnn, groups normalised", "cnn, adamw", "mlp", "fast"])
def test_a_model_that_is_no_number_leaves_its_mates_alone(digits, name):
    """Not one bit of them changes, and the error names the model that broke."""
    recipe = _recipe(RECIPES[name], precision="float32", epochs=1)
    tasks = Rounds(None, 40, 0, "fit", 0, 3).tasks(digits)
    networks = [loop.initial(task, digits, recipe, CPU) for task in tasks]
    healthy = ensemble.Stack(networks)
    loop.fit(healthy, tasks, digits, recipe, CPU)
    with torch.no_grad():
        next(networks[1].parameters()).fill_(math.nan)
    broken = ensemble.Stack(networks)

    with pytest.raises(TrainingDiverged, match=r"^base-n40-s0-m0001: the loss is nan in epoch 1 of 1; lower learning_rate"):
        loop.fit(broken, tasks, digits, recipe, CPU)

    assert not torch.isfinite(next(iter(broken.weights()[1].values()))).any()
    assert all(_equal(broken.weights()[i], healthy.weights()[i]) for i in (0, 2))


@pytest.mark.parametrize("name", ["cnn", "cnn, groups normalised", "fast"])
def test_a_samples_logits_never_depend_on_its_batch_mates(digits, name):
    """Nor on what stood beside the model while it was trained in a stack."""
    recipe = _recipe(RECIPES[name], precision="float32")
    tasks = _designs(digits)["halves"]
    network = loop.initial(tasks[1], digits, recipe, CPU)
    network.load_state_dict(ensemble.train(tasks, digits, recipe, CPU)[1].weights)

    among = loop.predict(network, digits, np.arange(300), None, recipe, CPU)
    alone = loop.predict(network, digits, np.array([7]), None, recipe, CPU)
    between = loop.predict(network, digits, np.array([900, 7, 901]), None, recipe, CPU)

    assert torch.equal(alone[0], among[7])
    assert torch.equal(between[1], among[7])


def test_gradients_are_clipped_model_by_model(digits):
    """One model has gradients a thousand times as long; the others' are not shortened for it."""
    recipe = _recipe(CNN, gradient_clip=0.5, epochs=1)
    tasks = Rounds(None, 40, 0, "fit", 0, 2).tasks(digits)
    networks = [loop.initial(task, digits, recipe, CPU) for task in tasks]
    with torch.no_grad():
        list(networks[1].parameters())[-2].mul_(1000)
    program = ensemble.Stack(networks)
    loop.fit(program, tasks, digits, recipe, CPU)

    for task, network, together in zip(tasks, networks, program.weights(), strict=True):
        single = loop.Single(network)
        loop.fit(single, [task], digits, recipe, CPU)
        assert _largest(single.weights()[0], together) <= 1e-10


# -- the same bits -----------------------------------------------------------------------------------------------


def test_the_same_group_gives_the_same_bits(digits):
    recipe = _recipe(RECIPES["cnn, augmented"], precision="float32")
    tasks = _designs(digits)["pairs"]

    one, again = (ensemble.train(tasks, digits, recipe, CPU) for _ in range(2))

    assert all(_equal(a.weights, b.weights) for a, b in zip(one, again, strict=True))
    assert [a.facts["loss_curve"] for a in one] == [b.facts["loss_curve"] for b in again]


def test_a_weight_of_a_stack_is_a_tensor_of_its_own(digits):
    """Files hold each model's tensors: none is a view of all models' memory."""
    recipe = _recipe(CNN, precision="float32")
    for trained in ensemble.train(_designs(digits)["halves"], digits, recipe, CPU):
        assert all(tensor.is_contiguous() for tensor in trained.weights.values())
        assert trained.weights["0.weight"].shape == (4, 1, 3, 3)
        assert trained.weights["1.num_batches_tracked"].dtype == torch.int64
        assert int(trained.weights["1.num_batches_tracked"]) == 9  # 3 epochs of 3 steps


# -- a user's own architecture -----------------------------------------------------------------------------------

HEAD = """
import torch
from torch import nn
from torch.nn import functional

class Network(nn.Module):
    def __init__(self, shape, n_classes):
        super().__init__()
        self.first, self.norm = nn.Conv2d(shape[2], 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.flat, self.head = nn.Flatten(), nn.Linear(4 * shape[0] * shape[1], n_classes)
        self.extra(n_classes)

    def extra(self, n_classes):
        pass

    def features(self, x):
        return functional.relu(self.norm(self.first(x)))

    def forward(self, x):
        x = self.features(x)
        return self.head(self.flat(torch.tanh(self.second(x)) + x))

def build(shape, n_classes, recipe):
    return Network(shape, n_classes)
"""
OWN = {  # what a user may write; none of it is what the stack takes it for
    "the mean over places": ("pooled", "return self.small(self.features(x).mean(dim=(2, 3)))"),
    "a view": ("", "return self.head(self.features(x).reshape(x.size(0), -1))"),
    "channels that are joined": ("wide", "x = self.features(x); return self.head(self.flat(self.joined(torch.cat([x, self.second(x)], dim=1))))"),
    "channels that are normalised together": ("", "return self.head(self.flat(functional.normalize(self.features(x), dim=1)))"),
    "a softmax over channels": ("", "return self.head(self.flat(self.features(x).softmax(dim=1)))"),
    "channels that are cut": ("", "x = self.features(x); a, b = x.chunk(2, 1); return self.head(self.flat(torch.cat([b, a], 1)))"),
    "torch's own dropout": ("dropout", "return self.head(self.drop(self.flat(self.features(x))))"),
    "dropout as a function": ("", "return self.head(self.flat(functional.dropout(self.features(x), 0.5, self.training)))"),
    "a weight of its own": ("weight", "return self.head(self.flat(self.features(x))) * self.temperature"),
    "a recurrence": ("lstm", "return self.head(self.flat(self.lstm(self.features(x).flatten(2).mean(1))[0]))"),
    "a layer used twice by two names": ("twice", "return self.head(self.flat(self.again(torch.relu(self.second(self.features(x))))))"),
    "a weight shared by two layers": ("tied", "return self.head(self.flat(self.again(torch.relu(self.second(self.features(x))))))"),
    "a head that begins at zero": ("zero", "return self.head(self.flat(functional.normalize(self.features(x), dim=1)))"),
    "a branch that begins at zero": ("branch", "x = self.features(x); return self.head(self.flat(x + self.second(functional.normalize(x, dim=1))))"),
    "a norm of weights": ("weight norm", "return self.head(self.flat(self.second(self.features(x))))"),
    "a gradient that is changed on its way": ("", "return self.head(self.flat(Shorten.apply(self.features(x))))"),
    "a mean over the batch": ("", "x = self.features(x); return self.head(self.flat(x - x.mean(0, keepdim=True)))"),
    "a hook": ("hook", "return self.head(self.flat(self.second(self.features(x))))"),
}
EXTRA = {
    "": "pass",
    "pooled": "self.small = nn.Linear(4, n_classes)",
    "wide": "self.joined = nn.Conv2d(8, 4, 1)",
    "dropout": "self.drop = nn.Dropout(0.5)",
    "weight": "self.temperature = nn.Parameter(torch.ones(1))",
    "lstm": "self.lstm = nn.LSTM(64, 256, batch_first=True)",
    "twice": "self.again = self.second",
    "tied": "self.again = nn.Conv2d(4, 4, 3, padding=1); self.again.weight = self.second.weight",
    "zero": "nn.init.zeros_(self.head.weight); nn.init.zeros_(self.head.bias)",
    "branch": "nn.init.zeros_(self.second.weight); nn.init.zeros_(self.second.bias)",
    "weight norm": "self.second = torch.nn.utils.parametrizations.weight_norm(self.second)",
    "hook": "self.second.register_forward_hook(lambda module, inputs, output: output / output.norm(dim=1, keepdim=True))",
}
SHORTEN = """
class Shorten(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / gradient.norm()
"""


def _own(folder: Path, extra: str, forward: str, shape=(8, 8, 1)) -> Recipe:
    """A recipe with a user's architecture."""
    code = HEAD.replace("        pass\n", f"        {EXTRA[extra]}\n").replace("class Network", f"{SHORTEN}\nclass Network")
    start = code.index("        x = self.features(x)\n        return self.head")
    end = code.index("def build")
    (folder / "mine.py").write_text(f"{code[:start]}        {forward}\n\n{code[end:]}")
    return Recipe(architecture=f"{folder / 'mine.py'}:build", epochs=2, batch_size=16, learning_rate=0.02)


def test_a_users_network_of_known_layers_is_stacked(tmp_path, digits):
    (tmp_path / "mine.py").write_text(HEAD)
    recipe = Recipe(architecture=f"{tmp_path / 'mine.py'}:build", epochs=2, batch_size=16, learning_rate=0.02, precision="float64")

    _check_equal(_designs(digits)["pairs"], digits, recipe, 1e-10)


@pytest.mark.parametrize("name", OWN)
def test_a_users_network_that_cannot_be_stacked_never_trains_wrongly(tmp_path, digits, name):
    """It is refused, and the stage then trains one after another."""
    recipe = _own(tmp_path, *OWN[name])
    tasks = _designs(digits)["pairs"][:2]
    loop.train(tasks[0], digits, recipe, CPU)  # it is a network: alone it trains

    with pytest.raises(NotStackable):
        ensemble.train(tasks, digits, recipe, CPU)


@pytest.mark.parametrize("name", ["cnn, augmented", "cnn, groups normalised", "cnn, nothing normalised", "mlp", "fast", "wide_resnet28_2"])
def test_networks_that_can_be_stacked_are_not_refused(digits, name):
    """Ours would pass the test that a user's network is put to, in either precision."""
    for precision in ("float32", "float64"):
        recipe = _recipe(RECIPES.get(name) or DEEP[name], precision=precision)
        networks = [loop.initial(task, digits, recipe, CPU) for task in Rounds(None, 40, 0, "fit", 0, 3).tasks(digits)]
        before = [weight.clone() for network in networks for weight in network.parameters()]

        ensemble.check_alike(networks, digits.shape)

        assert all(torch.equal(a, b) for a, b in zip(before, (weight for network in networks for weight in network.parameters()), strict=True))


def test_a_stack_without_room_is_not_taken_for_one_that_cannot_be(tmp_path, digits, monkeypatch):
    """Out of memory while a user's network is tried: the stage halves the stack, and does not give it up."""
    recipe = _own(tmp_path, *OWN["the mean over places"])
    networks = [loop.initial(task, digits, recipe, CPU) for task in _designs(digits)["pairs"][:2]]

    def without_room(self, inputs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(ensemble.Stack, "arrange", without_room)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        ensemble.check_alike(networks, digits.shape)
