"""Boundary distance: what is counted, kept and refused, by a search of our own; and HopSkipJump, where it is installed."""

from __future__ import annotations

import builtins
from collections.abc import Callable

import numpy as np
import pydantic
import pytest

from memleak.signals import Asked, SignalError, boundary
from memleak.signals.boundary import Options


class Half:
    """A model whose class 1 is where the mean of the values is below a limit; it remembers what it was asked."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seen: list[np.ndarray] = []

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        value = self.limit - inputs.astype(np.float64).mean(axis=tuple(range(1, inputs.ndim)))
        return np.stack([0 * value, value], axis=1)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        self.seen.append(inputs)
        return self.logits(inputs)

    def asked(self, inputs: np.ndarray, sample_id: np.ndarray | None = None) -> Asked:
        ids = np.arange(len(inputs)) if sample_id is None else sample_id
        return Asked(inputs, np.ones(len(inputs), np.int64), ids, self.logits(inputs), self.answer, None, None)


def images_of(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])


def halving(found: boundary._Searched) -> None:
    """A search in the library's place: from the start towards the sample, then noise from NumPy's global state for ever."""
    near, far = 0.0, 1.0
    while far - near > 1e-4:
        middle = (near + far) / 2
        if found((found.inside + middle * (found.start - found.inside))[None])[0]:
            far = middle
        else:
            near = middle
    while True:
        noise = np.random.standard_normal((3, *found.inside.shape))  # noqa: NPY002
        found(found.inside + 10 * noise.astype(np.float32))


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Half, np.ndarray, Options], np.ndarray]:
    monkeypatch.setattr(boundary, "_library", lambda: halving)
    return lambda model, inputs, options: boundary.measure(model.asked(inputs), options)


def test_the_distance_is_that_of_the_nearest_wrong_answer_in_units_of_the_full_range(searched):
    """The negative lies straight beyond the boundary: from level 51 to the limit 102 are 0.2 in each of 48 values."""
    distance = searched(Half(102), images_of(51, 80), Options())

    assert distance.dtype == np.float32
    assert distance == pytest.approx([0.2 * np.sqrt(48), 22 / 255 * np.sqrt(48)], rel=1e-3)
    assert (distance >= [0.2 * np.sqrt(48), 22 / 255 * np.sqrt(48)]).all()  # never nearer than the boundary is


def test_a_wrong_answer_is_at_distance_zero_and_costs_no_query(searched):
    model = Half(102)

    distance = searched(model, images_of(51, 200), Options(queries=60))

    assert distance[1] == 0 < distance[0]
    assert sum(map(len, model.seen)) <= 60


@pytest.mark.parametrize("queries", [50, 101, 200])
def test_no_more_is_asked_than_the_options_allow(searched, queries):
    model = Half(102)

    searched(model, images_of(51, 80, 90), Options(queries=queries))

    n_asked = sum(map(len, model.seen))
    assert 3 * queries - 9 < n_asked <= 3 * queries  # three at a time, and the last three only where they are still free


def test_where_nothing_is_wrong_the_farthest_place_that_was_tried_is_the_distance(searched):
    model = Half(1000)

    distance = searched(model, images_of(51), Options())

    assert sum(map(len, model.seen)) == boundary.N_STARTS
    assert distance[0] == pytest.approx(max(np.linalg.norm(place - 51) / 255 for place in np.concatenate(model.seen)), rel=1e-5)


def test_global_randomness_is_left_as_it_was_and_changes_nothing(searched):
    values = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        values.append(searched(Half(102), images_of(51, 80), Options()))
        assert np.random.random() == np.random.RandomState(seed).random()  # noqa: NPY002

    assert np.array_equal(*values)


def test_a_value_depends_on_the_sample_and_not_on_who_is_asked_with_it(searched):
    inputs, ids = images_of(51, 60, 70), np.array([7, 3, 5])
    models = [Half(102), Half(102)]

    together = boundary.measure(models[0].asked(inputs, ids), Options())
    alone = boundary.measure(models[1].asked(inputs[2:], ids[2:]), Options())

    assert alone[0] == together[2]
    assert np.array_equal(np.concatenate(models[0].seen)[-sum(map(len, models[1].seen)) :], np.concatenate(models[1].seen))


def test_a_place_that_is_no_number_ends_the_search_of_its_sample(monkeypatch):
    def broken(found: boundary._Searched) -> None:
        found(np.full((1, *found.inside.shape), np.nan, np.float32))
        raise AssertionError("the model was asked about NaN")

    monkeypatch.setattr(boundary, "_library", lambda: broken)
    model = Half(102)

    distance = boundary.measure(model.asked(images_of(51)), Options())

    assert np.isfinite(distance).all() and np.isfinite(np.concatenate(model.seen)).all()


def test_tables_have_a_range_and_a_distance_in_stored_units(searched):
    table = np.full((1, 4), -1.0, np.float32)

    distance = searched(Half(0.5), table, Options(range=(-5, 5)))

    assert distance == pytest.approx([1.5 * np.sqrt(4)], rel=1e-3)
    with pytest.raises(SignalError, match=r"give range: \[least, largest\], in stored units"):
        searched(Half(0.5), table, Options())
    with pytest.raises(SignalError, match="a record goes from -1 to -1, range says 0 to 5; widen it"):
        searched(Half(0.5), table, Options(range=(0, 5)))


def test_records_of_zeros_and_ones_lie_between_them(searched):
    model = Half(0.4)

    distance = searched(model, np.zeros((1, 9), np.float32), Options())

    assert distance == pytest.approx([0.4 * 3], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"queries": 20}, "greater than or equal to 50"), ({"queries": 20_000}, "less than or equal to 10000"), ({"range": (1, 0)}, "range: 1 to 0")],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        Options(**options)


def test_without_the_library_the_error_says_how_to_get_it_and_what_to_measure_instead(monkeypatch):
    original = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == "art":
            raise ModuleNotFoundError("No module named 'art'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(SignalError, match=r"pip install memleak\[boundary\], or measure noise_robustness"):
        boundary.measure(Half(102).asked(images_of(51)), Options())


@pytest.fixture
def library(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the library writes its settings when it is imported
    pytest.importorskip("art", reason="the adversarial-robustness-toolbox is not installed: pip install memleak[boundary]")


def test_hop_skip_jump_comes_near_to_a_plane_and_keeps_to_its_queries(library):
    """To the plane are 0.2 in each of 48 values; the noise it starts with is not straight beyond."""
    direction = np.linspace(0.2, 1.8, 48)
    model = Half(102)
    model.logits = lambda x: np.stack([np.zeros(len(x)), 102 - (x.reshape(len(x), -1) * direction).mean(axis=1)], axis=1)
    nearest = np.array([51, 30]) / 255 * 48 / np.linalg.norm(direction)

    distance = boundary.measure(model.asked(images_of(51, 72)), Options(queries=400))

    assert (distance > 0.999 * nearest).all()
    assert distance == pytest.approx(nearest, rel=0.15)
    assert sum(map(len, model.seen)) <= 2 * 400


def test_hop_skip_jump_is_drawn_from_the_sample_alone(library):
    values = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        values.append(boundary.measure(Half(102).asked(images_of(51, 80, 200)), Options()))
        assert np.random.random() == np.random.RandomState(seed).random()  # noqa: NPY002

    assert np.array_equal(*values)
    assert values[0][2] == 0


def test_more_queries_come_nearer(library, rng):
    weights = rng.normal(size=48)
    model = Half(0)
    model.logits = lambda x: np.stack([np.zeros(len(x)), 300 + (x.reshape(len(x), -1) - 100) @ weights], axis=1)
    inputs = images_of(*[100] * 20)

    few, many = (boundary.measure(model.asked(inputs), Options(queries=n)) for n in (60, 600))

    assert many.mean() < 0.9 * few.mean()
    assert (many <= few + 1e-6).all()
