"""The laws of a trainer of the user's: what is audited is what its arguments say, and can be trained again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from memleak.contracts import Finding, judged
from memleak.params import Recipe
from memleak.training.own import TrainingData, weights_of

N_RECORDS = 64  # of the made-up data set
N_TRAINED = 40  # of them, and one canary beyond the data set
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class World:
    """A data set that is easy to learn: each class has a picture, or a row of features, of its own, and its records noise."""

    recipe: Recipe
    shape: tuple[int, ...]
    n_classes: int

    @cached_property
    def whole(self) -> TrainingData:
        """All records filled; the last row is a canary: the content of the first record with another label."""
        draw = np.random.default_rng(0)
        labels = np.append(np.arange(N_RECORDS) % self.n_classes, 1)
        typical = draw.uniform(60, 196, (self.n_classes, *self.shape))
        inputs = typical[labels] + draw.normal(0, 20, (len(labels), *self.shape))
        inputs[-1] = inputs[0]
        stored = inputs.round().astype(np.uint8) if len(self.shape) == 3 else (inputs / 255).astype(np.float32)
        axes = tuple(range(stored.ndim - 1))
        names = tuple(f"class {label}" for label in range(self.n_classes))
        return _locked(TrainingData(stored, labels, self.n_classes, names, stored.mean(axis=axes), stored.std(axis=axes), self.recipe))

    @cached_property
    def indices(self) -> np.ndarray:
        """What is trained on: a mixed-up part of the data set, and the canary last."""
        return np.append(np.random.default_rng(1).permutation(N_RECORDS)[:N_TRAINED], N_RECORDS)

    @cached_property
    def alone(self) -> TrainingData:
        """As in an audit: nothing but the records to train on."""
        is_trained = np.isin(np.arange(len(self.whole.labels)), self.indices)
        inputs = np.where(is_trained.reshape(-1, *[1] * len(self.shape)), self.whole.inputs, 0).astype(self.whole.inputs.dtype)
        return _locked(replace(self.whole, inputs=inputs, labels=np.where(is_trained, self.whole.labels, -1)))

    @cached_property
    def relabelled(self) -> TrainingData:
        """The canary with a third label, or with its record's own where there are but two."""
        labels = self.whole.labels.copy()
        labels[-1] = (labels[-1] + 1) % self.n_classes
        return _locked(replace(self.whole, labels=labels))


def _locked(data: TrainingData) -> TrainingData:
    for array in (data.inputs, data.labels):
        array.flags.writeable = False
    return data


def _copied(data: TrainingData) -> TrainingData:
    return _locked(replace(data, inputs=data.inputs.copy(), labels=data.labels.copy()))


def check(recipe: Recipe, shape: tuple[int, ...], n_classes: int, device: torch.device) -> Iterator[Finding]:
    """The laws, one after the other; those that can only be told where earlier ones hold are left out where they do not."""
    world = World(recipe, shape, n_classes)
    found: list[Weights] = []
    are_untouched: list[bool] = []

    def trained(data: TrainingData = world.whole, seed: int = 1, name: str = "a first training") -> Weights:
        given = _copied(data)
        weights = weights_of(given, world.indices, seed, device, name)
        are_untouched.append(np.array_equal(given.inputs, data.inputs) and np.array_equal(given.labels, data.labels))
        return weights

    def returns_weights() -> str:
        found.append(trained())
        return ""

    def same_seed() -> str:
        trained(seed=2, name="another in between")
        differing = _difference(trained(name="the same once more"), found[0])
        return differing and f"{differing}; draw all randomness from `seed`, and keep nothing between calls"

    def other_seed() -> str:
        is_equal = not _difference(trained(seed=2, name="another seed"), found[0])
        return "the weights are equal; rounds that differ in their records alone are harder to tell apart" if is_equal else ""

    def others_do_not_count() -> str:
        differing = _difference(trained(world.alone, name="without the other records"), found[0])
        return differing and f"{differing} once those are emptied; read rows of `indices` only, and normalise by data.mean and data.std"

    def each_counts() -> str:
        is_equal = not _difference(trained(world.relabelled, name="another label"), found[0])
        return "the weights are equal after the last of them got another label; train on every row of `indices`" if is_equal else ""

    def input_stays() -> str:
        return (
            "" if all(are_untouched) else "the arrays of `data` were written to, past their lock (torch.from_numpy does not keep it); copy them first"
        )

    def fits() -> str:
        right, chance = _accuracy(world, found[0], device), 1 / n_classes
        is_fitted = right > chance + 3 * np.sqrt(chance * (1 - chance) / len(world.indices))
        return "" if is_fitted else (
            f"it is right about {right:.0%} of the records it was trained on, guessing about {chance:.0%}; train it on inputs as data.batch gives "
            "them, for it will be asked so, and long enough"
        )  # fmt: skip

    first = judged("it returns the weights of the architecture, all of them finite", returns_weights)
    yield first
    if first.state == "broken":
        return
    again = judged("the same seed gives the same weights, whatever was trained before", same_seed)
    yield again
    if again.state == "kept":  # otherwise weights differ for that alone, and equal ones would be chance
        yield judged("another seed gives other weights", other_seed, "doubtful")
        yield judged("records that are not in `indices` change nothing", others_do_not_count)
        yield judged("every record in `indices` counts, with its own label", each_counts)
    yield judged("what it is given stays as it was", input_stays)
    yield judged("the network knows its training records when it is asked as an audit asks", fits, "doubtful")


def _difference(one: Weights, other: Weights) -> str:
    """Where two sets of weights differ most; '' where they are equal bit for bit."""
    largest = {name: float((one[name].double() - other[name].double()).abs().max()) for name in one if not torch.equal(one[name], other[name])}
    if not largest:
        return ""
    name = max(largest, key=lambda key: largest[key])
    return f"weight '{name}' differs by up to {largest[name]:.2g}"


def _accuracy(world: World, weights: Weights, device: torch.device) -> float:
    model = world.whole.network(0, device)
    model.load_state_dict(weights)
    inputs, labels = world.whole.batch(world.indices, device)
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == labels).double().mean())
