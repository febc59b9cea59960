"""DP-SGD: the noise that is stated, no gradient longer than clip, everybody drawn by a coin of their own, the same bits again."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy.stats import binom, chi2, kstest, norm
from torch.nn import functional
from trainings import FACTS, Killed, KilledAfter

from memleak import artefacts, models
from memleak.designs import Coins, Complements, Rounds
from memleak.models.stacked import NotStackable
from memleak.params import ParamsError, Recipe, Training
from memleak.training import devices, dpsgd, engines, ensemble, gradients, loop, poisson, stage
from memleak.training.checkpoints import Checkpoint
from memleak.training.steps import Single, Steps, build
from memleak.training.store import weights_sha256

CPU = torch.device("cpu")
MLP = {"architecture": "mlp", "hidden": (16,), "epochs": 2, "batch_size": 16, "learning_rate": 0.1, "dp": {"noise_multiplier": 1.0}}
CNN = MLP | {"architecture": "small_cnn", "channels": (4, 8)}
FULL = CNN | {
    "dropout": 0.3,
    "shift": 1,
    "cutout": 2,
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "ema": 0.9,
    "schedule": "cosine",
}
KINDS = {  # of networks that can be stacked, on images of 16 x 16
    "small_cnn": {"architecture": "small_cnn", "channels": (4, 8), "hidden": (6,)},
    "small_cnn without normalisation": {"architecture": "small_cnn", "channels": (4, 8), "normalisation": "none"},
    "fast_cnn": {"architecture": "fast_cnn", "channels": (4, 8)},
    "mlp": {"architecture": "mlp", "hidden": (12,)},
    "wide_resnet28_2": {"architecture": "wide_resnet28_2"},
}


@pytest.fixture(autouse=True)
def _one_thread():
    devices.prepare_torch("cpu")


@pytest.fixture
def tasks(digits):
    """Three models on halves of 160 records: 80 members each."""
    return Complements(0, 0, 4, pool=160).tasks(digits)[:3]


def recipe_of(fields, **changed):
    return Recipe(**fields | changed)


def steps_of(tasks, dataset, recipe):
    networks = [loop.initial(task, dataset, recipe, CPU) for task in tasks]
    program = Single(networks[0]) if len(tasks) == 1 else ensemble.Stack(networks)
    return build(program, tasks, recipe, CPU)


def a_batch(n_rows, n_models, shape=(1, 8, 8), seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows * n_models, *shape, generator=draw), torch.randint(10, (n_rows * n_models,), generator=draw)


def by_hand(network, inputs, labels, clip):
    """The sum of clipped gradients, one sample after another, [P]."""
    weights = list(network.parameters())
    total = torch.zeros(sum(weight.numel() for weight in weights), dtype=weights[0].dtype)
    for record, label in zip(inputs, labels, strict=True):
        found = torch.autograd.grad(functional.cross_entropy(network(record[None]), label[None]), weights)
        gradient = torch.cat([part.reshape(-1) for part in found])
        total += gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))
    return total


# the noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_standard_deviation_that_is_stated(dtype):
    n, deviation = 200_000, 2.5

    found = dpsgd.noise(n, deviation, key=7, step=3, device=CPU, dtype=dtype).double().numpy() / deviation

    assert 0.001 < chi2.cdf((found**2).sum(), n) < 0.999
    assert kstest(found[:20_000], norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("n_models", [1, 3])
def test_a_step_without_samples_releases_noise_alone(n_models, tasks, digits):
    """Weights then move by learning_rate * noise_multiplier * clip / batch_size times a unit Gaussian in each coordinate."""
    recipe = recipe_of(MLP, hidden=(128,), momentum=0.0, learning_rate=0.5, dp={"noise_multiplier": 3.0, "clip": 0.2})
    steps = steps_of(tasks[:n_models], digits, recipe)
    before = torch.cat([weight.detach().flatten() for weight in steps.weights]).double()

    steps.take(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), np.zeros(n_models, dtype=int), 0, 10)

    moved = torch.cat([weight.detach().flatten() for weight in steps.weights]).double() - before
    unit = moved.numpy() / (0.5 * 3.0 * 0.2 / 16)
    assert 0.001 < chi2.cdf((unit**2).sum(), len(unit)) < 0.999


def test_models_and_steps_have_noise_of_their_own():
    drawn = np.stack([dpsgd.noise(20_000, 1.0, key, step, CPU, torch.float64).numpy() for key in (1, 2) for step in (0, 1)])

    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 5 / np.sqrt(20_000)


def test_the_noise_added_is_what_the_promise_says(tasks, digits, monkeypatch):
    recipe = recipe_of(MLP, epochs=1, dp={"noise_multiplier": 1.5, "clip": 0.4})
    asked = []

    def seen(n_weights, deviation, *_):
        asked.append(deviation)
        return torch.zeros(n_weights)

    monkeypatch.setattr(dpsgd, "noise", seen)

    loop.train(tasks[0], digits, recipe, CPU)

    assert asked == [1.5 * 0.4] * 5


# clipping


def test_no_factor_leaves_a_gradient_longer_than_clip():
    norms = torch.logspace(-12, 18, 300, dtype=torch.float64)

    factors = dpsgd.clip_factors(norms, 0.7)

    assert ((norms * factors) <= 0.7 * (1 + 1e-12)).all() and (factors[norms < 0.69] == 1).all() and (factors >= 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e12])
@pytest.mark.parametrize("n_models", [1, 3])
def test_a_sample_moves_the_sum_by_clip_at_most_however_large_its_loss(n_models, scale, tasks, digits):
    recipe = recipe_of(CNN, dp={"noise_multiplier": 1.0, "clip": 0.3})
    steps = steps_of(tasks[:n_models], digits, recipe)
    with torch.no_grad():
        steps.weights[-2].mul_(scale)
    inputs, labels = a_batch(1, n_models)

    sums = steps._sums(inputs, labels, labels, np.ones(n_models, dtype=int))

    assert torch.isfinite(sums).all() and (sums.norm(dim=1) <= 0.3 * (1 + 1e-5)).all()


@pytest.mark.parametrize("fields", KINDS.values(), ids=list(KINDS))
def test_sums_are_those_of_gradients_taken_and_clipped_one_by_one(fields, tasks, digits):
    """By Opacus for one network, and for a stack of which one model has fewer samples; images come in channels-last order."""
    recipe = Recipe(
        **{key: value for key, value in MLP.items() if key != "hidden"}
        | fields
        | {"precision": "float64", "dp": {"noise_multiplier": 1.0, "clip": 0.5}}
    )
    networks = [models.build(recipe, (16, 16, 1), 10, seed, CPU) for seed in range(3)]
    inputs, labels = a_batch(5, 3, (1, 16, 16))
    inputs = inputs.double().to(memory_format=torch.channels_last)
    counts = np.array([5, 3, 5])
    clip = recipe.dp.clip
    expected = [by_hand(network, inputs[m::3][:n], labels[m::3][:n], clip) for m, (network, n) in enumerate(zip(networks, counts, strict=True))]

    together = build(ensemble.Stack(networks), tasks, recipe, CPU)._sums(inputs, labels, labels, counts)
    alone = [
        build(Single(network), tasks[:1], recipe, CPU)._sums(inputs[m::3][:n], labels[m::3][:n], labels[m::3][:n], np.array([n]))
        for m, (network, n) in enumerate(zip(networks, counts, strict=True))
    ]

    for m in range(3):
        assert float((alone[m][0] - expected[m]).abs().max()) < 1e-9
        assert float((together[m] - expected[m]).abs().max()) < 1e-9


def test_a_step_is_that_of_opacus_own_optimiser(tasks, digits, monkeypatch):
    """The same clipping, scale and update, the noise put aside."""
    monkeypatch.setattr(dpsgd, "noise", lambda n_weights, *_: torch.zeros(n_weights, dtype=torch.float64))
    recipe = recipe_of(CNN, precision="float64", dp={"noise_multiplier": 1.0, "clip": 0.2})
    steps, network = steps_of(tasks[:1], digits, recipe), loop.initial(tasks[0], digits, recipe, CPU)
    hooked, plain = GradSampleModule(network, loss_reduction="mean"), torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    theirs = DPOptimizer(plain, noise_multiplier=0.0, max_grad_norm=0.2, expected_batch_size=16)

    for step in range(3):
        inputs, labels = a_batch(11 + step, 1, seed=step)
        steps.take(inputs.double(), labels, labels, np.array([11 + step]), step, 10)
        theirs.zero_grad()
        functional.cross_entropy(hooked(inputs.double()), labels).backward()
        theirs.step()

    ours = steps.program.network.state_dict()
    assert all(torch.allclose(ours[name], tensor, atol=1e-12) for name, tensor in network.state_dict().items())


def test_a_batch_whose_gradients_fill_the_memory_is_taken_in_parts(tasks, digits, monkeypatch):
    recipe = recipe_of(CNN, precision="float64", dropout=0.4)
    whole = loop.train(tasks[0], digits, recipe, CPU)
    monkeypatch.setattr(gradients, "_AT_ONCE", 3000)  # about four samples

    parts = loop.train(tasks[0], digits, recipe, CPU)

    assert all(torch.allclose(whole.weights[name], parts.weights[name], atol=1e-10) for name in whole.weights)
    assert parts.facts["accuracy_curve"] == whole.facts["accuracy_curve"]


# sampling


def test_everybody_takes_part_at_the_stated_rate_each_by_itself():
    n, n_steps, rate = 400, 500, 0.13

    drawn = poisson.is_drawn(5, 2, np.arange(n_steps), np.arange(1000, 1000 + n), rate)

    assert 0.001 < binom.cdf(drawn.sum(), n * n_steps, rate) < 0.999
    for axis, size in ((0, n_steps), (1, n)):  # of each sample over steps, and of each step over samples
        variance = drawn.sum(axis).var() / (size * rate * (1 - rate))
        assert 0.7 < variance < 1.3
    assert np.abs(np.corrcoef(drawn[:, :50].T) - np.eye(50)).max() < 0.25


def test_a_record_more_leaves_the_draws_of_the_others_alone():
    ids = np.arange(300)

    without = poisson.poisson_batches(3, 1, 40, ids, 0.2)
    with_it = poisson.poisson_batches(3, 1, 40, np.append(ids, 777), 0.2)

    assert all(np.array_equal(batch[batch != 777], other) for batch, other in zip(with_it, without, strict=True))
    assert 0 < sum(777 in batch for batch in with_it) < 40


def test_draws_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    whole = poisson.poisson_batches(3, 1, 40, np.arange(50), 0.2)
    monkeypatch.setattr(poisson, "_DRAWN_AT_ONCE", 120)

    assert all(np.array_equal(a, b) for a, b in zip(poisson.poisson_batches(3, 1, 40, np.arange(50), 0.2), whole, strict=True))


@pytest.mark.parametrize("neighbour", ["add", "replace"])
def test_both_arms_of_a_pair_draw_alike_for_the_samples_that_they_share(neighbour, digits):
    into = next(task for task in Rounds("atypical00", 64, 0, "fit", 0, 3).tasks(digits) if task.is_in and task.replaced is None)
    out = replace(into, arm="out", target=None)
    if neighbour == "replace":
        into = replace(into, replaced=int(into.members[3]))
    recipe = recipe_of(MLP)
    target = into.target.sample_id

    plans = [steps_of([task], digits, recipe).planned([task], 1) for task in (out, into)]

    assert len(plans[0]) == len(plans[1]) == 4
    for (without, _), (with_it, _) in zip(*plans, strict=True):
        kept = without[without != into.replaced] if neighbour == "replace" else without.ravel()
        assert np.array_equal(with_it[with_it != target], kept)


def test_models_with_fewer_samples_in_a_step_have_some_twice_and_those_do_not_count():
    found = poisson.together(
        [[np.array([4, 7]), np.empty(0, dtype=int)], [np.empty(0, dtype=int), np.empty(0, dtype=int)], [np.array([1]), np.array([9])]]
    )

    (first, first_counts), (second, second_counts) = found
    assert first.tolist() == [[4, 4, 1], [7, 7, 1]] and first_counts.tolist() == [2, 0, 1]
    assert second.tolist() == [[9, 9, 9]] and second_counts.tolist() == [0, 0, 1]


# training


@pytest.mark.parametrize("fields", [MLP, CNN, FULL], ids=["mlp", "cnn", "everything"])
def test_a_stack_learns_what_each_model_learns_alone(fields, tasks, digits):
    recipe = recipe_of(fields, precision="float64")

    together = ensemble.train(tasks, digits, recipe, CPU)
    alone = [loop.train(task, digits, recipe, CPU) for task in tasks]

    for stacked, single in zip(together, alone, strict=True):
        assert all(torch.allclose(stacked.weights[name], single.weights[name], atol=1e-8) for name in single.weights)
        assert stacked.facts["accuracy_curve"] == single.facts["accuracy_curve"] and stacked.facts["dp"] == single.facts["dp"]
        assert stacked.facts["loss_curve"] == pytest.approx(single.facts["loss_curve"], abs=1e-8)


def test_steps_to_which_nobody_comes_are_taken_all_the_same(tasks, digits):
    """One sample in expectation: about every third step has none."""
    recipe = recipe_of(CNN, batch_size=1, epochs=1)
    counts = [count[0] for _, count in steps_of(tasks[:1], digits, recipe).planned(tasks[:1], 0)]

    trained = [*ensemble.train(tasks, digits, recipe, CPU), loop.train(tasks[0], digits, recipe, CPU)]

    assert len(counts) == 80 and 0 in counts
    assert all(np.isfinite(model.facts["train_loss"]) and model.facts["dp"]["steps"] == 80 for model in trained)


def told(trained):
    return [
        (weights_sha256(model.weights), model.facts["loss_curve"], model.facts["accuracy_curve"], model.facts.get("alignment")) for model in trained
    ]


@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize("step", [1, 5, 7])
def test_a_training_that_goes_on_gives_the_same_bits(step, n_models, digits, tmp_path):
    """The state holds what the canaries have seen, too."""
    own = Coins(0, 0, n_models, canaries=40, subset_size=80, space="gradient").tasks(digits)
    recipe = recipe_of(FULL)
    whole = told(ensemble.train(own, digits, recipe, CPU))
    with pytest.raises(Killed):
        ensemble.train(own, digits, recipe, CPU, KilledAfter.steps(tmp_path / "c.state", step))

    assert told(ensemble.train(own, digits, recipe, CPU, Checkpoint(tmp_path / "c.state", FACTS, 10))) == whole


def test_private_training_on_digits_learns_and_says_what_it_promises(digits_path, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / "store"))
    shard = Complements(0, 0, 2, pool=1400)
    recipe = recipe_of(CNN, channels=(16, 32), hidden=(64,), epochs=3, batch_size=64, learning_rate=0.2, dp={"epsilon": 8.0, "accountant": "rdp"})

    stage.train(digits_path, "r", recipe, shard, tmp_path / "m.safetensors", "cpu")

    facts = artefacts.read_shard_facts(tmp_path / "m.safetensors")["models"]
    for model, task in zip(facts, shard.tasks(digits), strict=True):
        assert 7.8 <= model["dp"]["epsilon"] <= 8 and model["dp"]["steps"] == 33 and model["dp"]["batch_norm_replaced"] == 2
        assert model["dp"]["sample_rate"] == pytest.approx(64 / len(task.members))
        assert model["test_accuracy"] > 0.5 and model["engine"] == "ensemble"


def test_a_batch_larger_than_the_training_set_is_refused(digits, digits_path, tmp_path):
    with pytest.raises(ParamsError, match="batch_size: 100 is larger than a training set of 80 records"):
        stage.train(digits_path, "r", recipe_of(MLP, batch_size=100), Complements(0, 0, 2, pool=160), tmp_path / "m.safetensors", "cpu")


def test_a_delta_that_is_no_promise_is_warned_of_once(digits, capsys):
    recipe = recipe_of(MLP, dp={"noise_multiplier": 1.0, "delta": 0.5})

    for _ in range(2):
        stage.check_recipe(recipe, digits, 81)

    assert capsys.readouterr().err.count("delta 0.5 is not below 1 / 81 training records") == 1


def test_private_models_of_another_number_of_members_do_not_train_together(tasks):
    """Their rates, and so their promises, differ; the number of canaries whose coin fell so does not count."""
    more = replace(tasks[2], members=np.append(tasks[2].members, 1700))
    lucky = replace(tasks[1], members=np.append(tasks[1].members, [1700, 1701]), n_expected=80)

    assert [len(group) for group in engines.groups([tasks[0], lucky, more], 8, 16, is_private=True)] == [2, 1]


# networks


def test_batch_norm_is_replaced_by_the_group_norm_of_the_same_recipe(digits):
    """Weights and names are those of `normalisation: group`."""
    replaced, declared = (models.build(recipe_of(CNN, normalisation=kind), (8, 8, 1), 10, 3, CPU) for kind in ("batch", "group"))

    assert replaced.batch_norm_replaced == 2 and declared.batch_norm_replaced == 0
    assert str(replaced) == str(declared) and not any(isinstance(module, torch.nn.BatchNorm2d) for module in replaced.modules())
    ours, theirs = replaced.state_dict(), declared.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_kept_has_the_names_of_the_network_itself(tasks, digits):
    recipe = recipe_of(CNN)

    for trained in (loop.train(tasks[0], digits, recipe, CPU), ensemble.train(tasks[:2], digits, recipe, CPU)[0]):
        models.build(recipe, (8, 8, 1), 10, 9, CPU).load_state_dict(trained.weights)
        assert trained.facts["dp"]["batch_norm_replaced"] == 2


def test_opacus_is_not_loaded_for_a_recipe_without_dp():
    code = (
        "import sys, torch\nfrom memleak import models\nfrom memleak.params import Recipe\nfrom memleak.training import stage\n"
        "r = Recipe(architecture='small_cnn', epochs=1, batch_size=8, learning_rate=0.1)\n"
        "n = models.build(r, (8, 8, 1), 10, 0, torch.device('cpu'))\n"
        "print('opacus' in sys.modules, type(n[1]).__name__, n[3].inplace)"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "BatchNorm2d", "True"]


USERS = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, inner, before=None, after=None):
        super().__init__()
        self.flat, self.inner, self.last = nn.Flatten(), inner, nn.Linear(64, 10)
        self.before, self.after = before, after

    def forward(self, x):
        x = self.flat(x)
        x = self.inner(x) if self.before is None else self.before(self, x)
        return self.last(x)

class MyNorm(nn.BatchNorm1d):
    pass

class Counted(nn.Linear):
    def __init__(self, n, m):
        super().__init__(n, m)
        self.register_buffer("seen", torch.zeros(()))

def subclass(): return Own(MyNorm(64))
def buffered(): return Own(Counted(64, 64))
def recurrent(): return Own(nn.RNN(64, 64))
def instance(): return Own(nn.InstanceNorm1d(64, affine=True, track_running_stats=True))
def mixed(): return Own(nn.Linear(64, 64), lambda net, x: net.inner(x - x.mean(0)))
def functional(): return Own(nn.Linear(64, 64), lambda net, x: nn.functional.linear(x, net.inner.weight))
def not_affine(): return Own(nn.BatchNorm1d(64, affine=False))
def fine(): return Own(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(inplace=True)))
def twice(): return Own(nn.Linear(64, 64), lambda net, x: net.inner(net.inner(x).tanh()))
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "nets.py").write_text(USERS)
    return lambda name: recipe_of({key: value for key, value in MLP.items() if key != "hidden"}, architecture=f"{tmp_path / 'nets.py'}:{name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("subclass", r"dp: the module 'inner' \(MyNorm\) mixes the records of a batch.*use torch.nn.GroupNorm"),
        ("buffered", r"dp: the module 'inner' \(Counted\) has weights and buffers.*keep the buffer in a module of its own"),
        ("recurrent", r"dp: the module 'inner' \(RNN\) gives no gradients of single records; use .*opacus.layers"),
        ("instance", r"dp: the module 'inner' \(InstanceNorm1d\) keeps statistics.*track_running_stats=False"),
        ("mixed", r"dp: the gradient of one record in 'inner' \(Linear\) depends on the others of its batch.*every record alone"),
        ("functional", r"dp: .*'inner' \(Linear\).*"),
    ],
)
def test_a_module_that_cannot_be_private_is_named_with_the_fix(name, said, mine, digits):
    with pytest.raises(models.ModelError, match=said):
        dpsgd.check(mine(name), digits, 80)


def test_a_batch_norm_without_weights_is_replaced_too(mine, digits):
    """It mixes records as any other does, though Opacus passes over it."""
    dpsgd.check(mine("not_affine"), digits, 80)

    network = models.build(mine("not_affine"), (8, 8, 1), 10, 0, CPU)
    assert isinstance(network.inner, torch.nn.GroupNorm) and network.batch_norm_replaced == 1


def test_layers_that_no_stack_knows_train_one_after_another(mine, digits, tasks):
    for name in ("fine", "twice"):
        recipe = mine(name)
        dpsgd.check(recipe, digits, 80)
        with pytest.raises(NotStackable):
            ensemble.train(tasks, digits, recipe, CPU)

        trained = [model for group in stage.train_all(list(tasks), 3, digits, recipe, CPU, lambda group: None) for _, model in group]

        assert [model.facts["engine"] for model in trained] == ["sequential"] * 3


def test_the_features_of_a_table_do_not_lose_their_values_in_groups_of_one(mine):
    from memleak.models.private import group_norm

    assert [group_norm(torch.nn.BatchNorm1d(n)).num_groups for n in (8, 16, 2, 5)] == [4, 8, 1, 1]
    assert [group_norm(torch.nn.BatchNorm2d(n)).num_groups for n in (8, 16, 2, 5)] == [8, 8, 2, 1]


# canaries that are gradients


def aligned(digits, recipe, n_models, n=200):
    own = Coins(0, 0, n_models, canaries=n, subset_size=160, space="gradient").tasks(digits)
    trained = ensemble.train(own, digits, recipe, CPU)
    alignment = np.array([model.facts["alignment"] for model in trained])
    return alignment, np.stack([np.isin(task.all_directions, task.directions) for task in own]), trained[0].facts["dp"]


@pytest.mark.parametrize("n_models", [1, 4])
def test_alignment_tells_canaries_apart_as_theory_says(n_models, digits, monkeypatch):
    """In: on average steps * rate; beside the noise, sqrt(steps) * noise_multiplier, the draws vary. Records are put aside."""
    monkeypatch.setattr(gradients.ByOpacus, "sums", lambda self, *_: [torch.zeros_like(weight) for weight in self.weights])
    monkeypatch.setattr(gradients.OfStack, "sums", lambda self, *_: [torch.zeros_like(weight) for weight in self.weights])
    recipe = recipe_of(MLP, epochs=4, dp={"noise_multiplier": 0.8, "clip": 0.3})

    alignment, is_in, dp = aligned(digits, recipe, n_models)

    steps, rate = dp["steps"], dp["sample_rate"]
    error = np.sqrt(steps * 0.8**2)
    assert alignment[~is_in].mean() == pytest.approx(0, abs=4 * error / np.sqrt((~is_in).sum()))
    assert 0.001 < chi2.cdf((alignment[~is_in] ** 2).sum() / error**2, (~is_in).sum()) < 0.999
    spread = np.sqrt(error**2 + steps * rate * (1 - rate))
    assert alignment[is_in].mean() == pytest.approx(steps * rate, abs=4 * spread / np.sqrt(is_in.sum()))
    assert alignment[is_in].std() == pytest.approx(spread, rel=0.25)


def test_canaries_are_told_apart_beside_real_records(digits):
    alignment, is_in, dp = aligned(digits, recipe_of(CNN, epochs=6, dp={"noise_multiplier": 0.6}), 2)

    assert alignment[is_in].mean() - alignment[~is_in].mean() > 0.5 * dp["steps"] * dp["sample_rate"]


def test_a_canary_takes_part_as_a_record_does(digits, monkeypatch):
    """Without noise and records, alignment counts the steps in which its coin fell so."""
    monkeypatch.setattr(dpsgd, "noise", lambda n_weights, *_: torch.zeros(n_weights))
    monkeypatch.setattr(gradients.ByOpacus, "sums", lambda self, *_: [torch.zeros_like(weight) for weight in self.weights])
    (task,) = Coins(0, 0, 1, canaries=30, subset_size=160, space="gradient").tasks(digits)
    recipe = recipe_of(MLP)

    found = loop.train(task, digits, recipe, CPU).facts["alignment"]

    rate = dpsgd.sampling_rate(recipe, task)
    counts = sum(
        np.isin(task.all_directions, batch)
        for epoch in range(2)
        for batch in poisson.poisson_batches(dpsgd.key_of(recipe, task), epoch, 10, task.directions, rate)
    )
    assert np.allclose(found, counts, atol=1e-4) and counts.sum() > 20


@pytest.mark.parametrize(
    ("broken", "by"),
    [("clip_factors", lambda norms, clip: torch.ones_like(norms)), ("sampling_rate", lambda recipe, task: 1.0)],
)
def test_what_is_broken_is_seen_in_alignment_and_not_in_the_promise(broken, by, digits, monkeypatch):
    monkeypatch.setattr(gradients.ByOpacus, "sums", lambda self, *_: [torch.zeros_like(weight) for weight in self.weights])
    recipe = recipe_of(MLP, dp={"noise_multiplier": 1.0})
    before, is_in, promise = aligned(digits, recipe, 1)

    monkeypatch.setattr(dpsgd, broken, by)
    after, _, still = aligned(digits, recipe, 1)

    factor = dpsgd.LARGE if broken == "clip_factors" else 10.0
    assert still == promise
    assert after[is_in].mean() == pytest.approx(factor * promise["steps"] * promise["sample_rate"], rel=0.15)
    assert after[is_in].mean() > 5 * before[is_in].mean()


def test_more_canaries_than_weights_are_refused(digits):
    (task,) = Coins(0, 0, 1, canaries=1300, subset_size=160, space="gradient").tasks(digits)

    with pytest.raises(ParamsError, match="1300 gradients need a weight each, mlp has 1210; ask for fewer canaries, or a larger network"):
        loop.train(task, digits, recipe_of(MLP), CPU)


def test_a_student_of_a_private_teacher_is_asked_as_any_model_of_the_recipe(digits, digits_path, tmp_path, monkeypatch):
    """It trains without noise, on public records, in the network that the recipe builds; the promise is its teacher's."""
    monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / "store"))
    recipe = recipe_of(CNN, dp={"noise_multiplier": 1.0, "accountant": "rdp"}, distillation={"records": 100})

    stage.train(digits_path, "r", recipe, Complements(0, 0, 2, pool=160), tmp_path / "m.safetensors", "cpu")

    facts = artefacts.read_shard_facts(tmp_path / "m.safetensors")
    from memleak.training.store import read_model

    models.build(recipe, (8, 8, 1), 10, 0, CPU).load_state_dict(read_model(tmp_path / "m.safetensors", 0, facts))
    assert facts["models"][0]["dp"]["noise_multiplier"] == 1.0


def test_steps_of_other_recipes_stay_what_they_were(tasks, digits):
    plain = recipe_of(MLP, dp=None)

    assert type(build(Single(loop.initial(tasks[0], digits, plain, CPU)), tasks[:1], plain, CPU)) is Steps


def test_private_models_train_as_a_stack_unless_params_say_otherwise():
    """The table of engines was measured without gradients of single samples, whose stack is the faster by far."""
    private, plain = recipe_of(CNN), recipe_of(CNN, dp=None)

    def stacked(recipe, **how):
        return engines.stack_of(Training(**how), recipe, (8, 8, 1), 10, CPU, 24)

    assert stacked(private) >= max(8, stacked(plain))
    assert stacked(private, engine="sequential") == 1 and stacked(private, engine="ensemble", stack=3) == 3
