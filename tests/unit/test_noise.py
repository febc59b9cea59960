"""Noise robustness: linear models, whose answer under noise is known in closed form, and what may be asked how often."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pydantic
import pytest
from scipy.stats import norm

from memleak.signals import Asked, SignalError, noise
from memleak.signals.noise import Options


class Box:
    """A model that remembers what it was asked; [n] values above 0 are class 1."""

    def __init__(self, value: Callable[[np.ndarray], np.ndarray]) -> None:
        self.value = value
        self.seen: list[np.ndarray] = []

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        value = self.value(inputs.reshape(len(inputs), math.prod(inputs.shape[1:])).astype(np.float64))
        return np.stack([0 * value, value], axis=1)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        self.seen.append(inputs)
        return self.logits(inputs)

    def asked(self, inputs: np.ndarray, label: np.ndarray | None = None, sample_id: np.ndarray | None = None) -> Asked:
        label = np.ones(len(inputs), np.int64) if label is None else label
        sample_id = np.arange(len(inputs)) if sample_id is None else sample_id
        return Asked(inputs, label, sample_id, self.logits(inputs), self.answer, None, None)


@pytest.fixture
def first_column() -> Box:
    """Class 1 where the first value is above 0: the distance to the boundary is that value."""
    return Box(lambda x: x[:, 0])


def table_at(distance: float, n: int, n_features: int = 5) -> np.ndarray:
    inputs = np.full((n, n_features), 0.5, np.float32)
    inputs[:, 0] = distance
    return inputs


def test_the_share_is_that_of_the_normal_distribution(first_column):
    """Noise of deviation s leaves a record at distance d on its side with probability Phi(d / s)."""
    options = Options(queries=100, levels=(0.1, 10))
    levels = np.geomspace(0.1, 10, 100)

    for distance in (0.3, 1.0, 3.0):
        share = noise.measure(first_column.asked(table_at(distance, 400)), options)
        expected = (1 + norm.cdf(distance / levels).sum()) / 101
        assert share.mean() == pytest.approx(expected, abs=4 * share.std() / np.sqrt(400))
        assert share.std() < 0.05


def test_who_is_farther_from_the_boundary_stands_higher(first_column):
    inputs = np.concatenate([table_at(distance, 1) for distance in (0.02, 0.2, 2, 20, 200)])

    share = noise.measure(first_column.asked(inputs), Options())

    assert (np.diff(share[:4]) > 0).all()
    assert share.dtype == np.float32
    assert share[4] == 1


def test_a_wrong_answer_is_lowest_and_costs_no_query(first_column):
    inputs = np.concatenate([table_at(1, 3), table_at(-1, 2)])

    share = noise.measure(first_column.asked(inputs), Options(queries=30))

    assert (share[3:] == 0).all() and (share[:3] > 0).all()
    assert sum(map(len, first_column.seen)) == 3 * 30


def test_who_falls_at_the_first_noise_stands_above_who_is_wrong_already():
    fragile = Box(lambda x: np.where((x == 0.5).all(axis=1), 1.0, -1.0))

    assert noise.measure(fragile.asked(table_at(0.5, 2)), Options(queries=40)) == pytest.approx([1 / 41, 1 / 41])


@pytest.mark.parametrize("queries", [1, 7, 200, 2500])
def test_each_sample_is_asked_about_as_often_as_the_options_say(first_column, queries):
    noise.measure(first_column.asked(table_at(1, 3)), Options(queries=queries))

    assert sum(map(len, first_column.seen)) == 3 * queries
    assert max(map(len, first_column.seen)) <= 1024


def test_labels_alone_tell_the_same(first_column):
    inputs = np.concatenate([table_at(distance, 1) for distance in (0.1, 0.5, 1, -1)])
    asked = first_column.asked(inputs)

    def label_alone(logits: np.ndarray) -> np.ndarray:
        return np.where(logits == logits.max(axis=1, keepdims=True), 0.0, -np.inf)

    labels = Asked(inputs, asked.label, asked.sample_id, label_alone(asked.logits), lambda x: label_alone(first_column.logits(x)), None, None)

    assert np.array_equal(noise.measure(labels, Options()), noise.measure(asked, Options()))


def test_a_value_depends_on_the_sample_and_not_on_who_is_asked_with_it(first_column):
    inputs, ids = table_at(0.4, 8), np.array([3, 9, 4, 1, 70, 5, 12, 8])

    together = noise.measure(first_column.asked(inputs, sample_id=ids), Options())
    alone = noise.measure(first_column.asked(inputs[5:6], sample_id=ids[5:6]), Options())
    reversed_ = noise.measure(first_column.asked(inputs[::-1], sample_id=ids[::-1]), Options())

    assert alone[0] == together[5]
    assert np.array_equal(reversed_[::-1], together)
    assert len(np.unique(together)) > 3  # every sample has noise of its own


def test_every_model_sees_the_same_noise(first_column):
    other = Box(lambda x: x[:, 1])

    for box in (first_column, other):
        noise.measure(box.asked(table_at(1, 3)), Options(queries=20))

    assert np.array_equal(np.concatenate(first_column.seen), np.concatenate(other.seen))


def test_parts_of_a_ladder_change_no_draw(first_column, monkeypatch):
    at_once = noise.measure(first_column.asked(table_at(0.4, 3)), Options(queries=50))
    whole = np.concatenate(first_column.seen)
    first_column.seen.clear()
    monkeypatch.setattr(noise, "_VALUES_AT_ONCE", 5 * 7)

    assert np.array_equal(noise.measure(first_column.asked(table_at(0.4, 3)), Options(queries=50)), at_once)
    assert max(map(len, first_column.seen)) == 7
    assert np.array_equal(np.concatenate(first_column.seen), whole)


def test_noise_leaves_pixels_in_their_range_and_grows(rng):
    box = Box(lambda x: np.ones(len(x)))
    images = rng.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)

    noise.measure(box.asked(images), Options(queries=64, grain=1, levels=(1, 100)))

    seen = np.concatenate(box.seen).reshape(4, 64, 6, 9, 3)
    moved = np.sqrt(((seen - images[:, None]) ** 2).mean(axis=(0, 2, 3, 4)))
    assert seen.dtype == np.float32
    assert seen.min() == 0 and seen.max() == 255
    assert moved[0] == pytest.approx(1, rel=0.1)
    assert moved[60:].mean() > 20 * moved[:4].mean()


@pytest.mark.parametrize(("grain", "side"), [(None, 2), (1, 1), (3, 3), (50, 50)])
def test_pixels_of_a_square_share_their_noise(grain, side):
    box = Box(lambda x: np.ones(len(x)))
    images = np.full((1, 8, 10, 3), 100, np.uint8)

    noise.measure(box.asked(images), Options(queries=5, grain=grain, levels=(1, 10)))

    (seen,) = box.seen
    rows, columns = np.arange(8) // side, np.arange(10) // side
    n_squares = len(np.unique(rows)) * len(np.unique(columns))
    assert seen.shape == (5, 8, 10, 3)
    assert all(len(np.unique(image[..., c])) == n_squares for image in seen for c in range(3))
    assert np.array_equal(seen, seen[:, rows * side][:, :, columns * side])


def test_zeros_and_ones_are_flipped_with_the_probability_of_the_level(rng):
    box = Box(lambda x: np.ones(len(x)))
    records = rng.integers(0, 2, (20, 300)).astype(np.float32)

    noise.measure(box.asked(records), Options(queries=40, levels=(0.01, 0.5)))

    seen = np.concatenate(box.seen).reshape(20, 40, 300)
    assert set(np.unique(seen)) == {0, 1}
    share = (seen != records[:, None]).mean(axis=(0, 2))
    assert share == pytest.approx(np.geomspace(0.01, 0.5, 40), abs=4 * np.sqrt(0.25 / 6000))


def test_a_record_of_zeros_and_ones_gets_gaussian_noise_where_asked(first_column):
    noise.measure(first_column.asked(np.ones((1, 4), np.float32)), Options(queries=3, kind="gaussian"))

    (seen,) = first_column.seen
    assert not np.isin(seen, (0, 1)).any()


def test_what_does_not_suit_the_data_is_refused(first_column):
    with pytest.raises(SignalError, match="kind: flips is for tables of 0 and 1, and a record holds other values; write kind: gaussian"):
        noise.measure(first_column.asked(table_at(1, 1)), Options(kind="flips"))
    with pytest.raises(SignalError, match="kind: flips is for tables of 0 and 1, the data are images"):
        noise.measure(first_column.asked(np.ones((1, 4, 4, 1), np.uint8)), Options(kind="flips"))
    with pytest.raises(SignalError, match="levels: up to 24 is the probability of a flip"):
        noise.measure(first_column.asked(np.ones((1, 4), np.float32)), Options(levels=(4, 24)))
    with pytest.raises(SignalError, match="grain is for images, the data is a table"):
        noise.measure(first_column.asked(table_at(1, 1)), Options(grain=2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"levels": (5, 2)}, "levels: 5 to 2; noise grows"),
        ({"levels": (0, 2)}, "levels: 0 to 2; noise grows"),
        ({"levels": (0.1, 0.6), "kind": "flips"}, "up to 0.6 is the probability of a flip"),
        ({"queries": 0}, "greater than 0"),
        ({"queries": 20_000}, "less than or equal to 10000"),
        ({"query": 5}, r"unknown key 'query' \(did you mean 'queries'\?\)"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        Options(**options)


def test_nobody_asked_nothing_measured(first_column):
    assert noise.measure(first_column.asked(table_at(1, 0)), Options()).shape == (0,)
