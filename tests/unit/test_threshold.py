"""One signal as a score, and thresholds of best balanced accuracy, global or per class."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pytest import approx
from worlds import gaussian_world, perfect_memory_world

from memleak.attacks import AttackError, Evidence, Turn, threshold
from memleak.attacks.threshold import Options, best_threshold
from memleak.metrics import roc

SIGNALS = ["loss", "confidence", "margin", "entropy", "modified_entropy", "correctness"]


def of_one(signal: str, values: list[list[float]]) -> Evidence:
    return Evidence({signal: np.array(values)}, {}, np.zeros((0, len(values)), dtype=bool))


@pytest.mark.parametrize(
    ("signal", "sign"), [("loss", -1), ("confidence", 1), ("margin", 1), ("entropy", -1), ("modified_entropy", -1), ("correctness", 1)]
)
def test_the_score_is_the_signal_turned_with_views_averaged(signal, sign):
    column = "is_correct" if signal == "correctness" else signal
    scores = threshold.score(of_one(column, [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), Options(signal=signal))

    assert scores == approx(sign * np.array([0.5, 1.0, 0.0])) and scores.dtype == np.float64


def test_any_column_is_a_score_higher_for_members_but_for_the_gradient_norm():
    mine, norm = (threshold.score(of_one(name, [[1.0], [3.0]]), Options(signal=name)) for name in ("one_of_mine", "gradient_norm"))

    assert mine.tolist() == [1.0, 3.0] and norm.tolist() == [-1.0, -3.0]
    assert Options(signal="one_of_mine", thresholds="global").needs.signals == ("one_of_mine",)


@pytest.mark.parametrize("signal", SIGNALS)
def test_members_score_higher_in_a_world_that_leaks(signal):
    world = gaussian_world(separation=3.0, models=6, samples=3000, seed=0)
    by_threshold = [roc.auc(threshold.score(world.evidence, Options(signal=signal, thresholds=t)), world.is_member) for t in ("none", "global")]

    assert by_threshold[0] > 0.55
    assert by_threshold[1] == by_threshold[0]  # one threshold for all changes no order


def slow_threshold(values: np.ndarray, is_in: np.ndarray) -> float:
    """The largest of the best cuts between distinct values, by trying them all; the largest value where none is better than nothing."""
    distinct = np.unique(values)
    cuts = [*((low + high) / 2 for low, high in pairwise(distinct)), distinct[-1]]
    gains = [round((values[is_in] > cut).mean() - (values[~is_in] > cut).mean(), 12) for cut in cuts]
    return cuts[max(i for i, gain in enumerate(gains) if gain == max(gains))]


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_one_that_trying_all_finds(seed):
    draw = np.random.default_rng(seed)
    is_in = draw.random(60) < 0.3
    values = np.round(draw.normal(size=60) + 0.7 * is_in, seed % 3)
    order = np.argsort(values, kind="stable")

    assert best_threshold(values[order], is_in[order]) == approx(slow_threshold(values, is_in))


def test_a_threshold_that_tells_nothing_accuses_nobody():
    assert best_threshold(np.array([1.0, 1.0, 2.0, 2.0]), np.array([True, False, True, False])) == 2.0
    assert best_threshold(np.array([1.0, 2.0]), np.array([True, False])) == 2.0


def test_neighbouring_numbers_are_told_apart():
    low = 1.0
    high = np.nextafter(low, 2)
    cut = best_threshold(np.array([low, high]), np.array([False, True]))

    assert low - cut <= 0 < high - cut


def test_zero_is_the_boundary_of_best_balanced_accuracy():
    world = perfect_memory_world(models=6, samples=200, seed=0)

    assert ((threshold.score(world.evidence, Options(thresholds="global")) > 0) == world.is_member).all()


def classes_world() -> Evidence:
    """Class 1 has losses ten nats above class 0; class 2 has OUT references only."""
    draw = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], 40)
    is_in = np.concatenate([half := draw.random((3, 120)) < 0.5, ~half])
    is_in[:, label == 2] = False
    loss = np.where(label == 1, 10.0, 0.0) + np.where(is_in, 0.5, 1.5) + 0.1 * draw.random((6, 120))
    target = np.where(label == 1, 10.0, 0.0) + np.tile([0.5, 1.5], 60)
    return Evidence({"loss": target[:, None]}, {"loss": loss[:, :, None]}, is_in, label=label)


def test_each_class_has_its_threshold_and_a_class_without_in_takes_the_global_one():
    evidence = classes_world()
    scores = threshold.score(evidence, Options(thresholds="per_class"))
    whole = threshold.score(evidence, Options(thresholds="global"))

    assert ((scores[:80] > 0) == np.tile([True, False], 40)).all()
    assert np.array_equal(scores[80:], whole[80:])
    assert not ((whole[:80] > 0) == np.tile([True, False], 40)).all()


@pytest.mark.parametrize("thresholds", ["none", "global", "per_class"])
@pytest.mark.parametrize("signal", ["loss", "correctness"])
def test_all_targets_at_once_have_the_scores_of_each_alone(thresholds, signal):
    world = gaussian_world(separation=1.0, models=8, samples=60, seed=5, views=2)
    options = Options(signal=signal, thresholds=thresholds)
    alone = np.stack([threshold.score(world.pool.evidence(turn), options) for turn in world.turns])

    assert np.array_equal(threshold.score_all(world.pool, world.turns, options), alone)


@pytest.mark.parametrize("thresholds", ["global", "per_class"])
def test_who_is_no_reference_has_no_part_in_the_threshold(thresholds):
    world = gaussian_world(separation=1.0, models=8, samples=60, seed=5)
    changed = world.pool.is_in.copy()
    changed[:2] ^= np.random.default_rng(0).random((2, 60)) < 0.5
    signals = {"loss": world.pool.signals["loss"].copy()}
    signals["loss"][1] += 3  # the complement

    options = Options(thresholds=thresholds)
    before = threshold.score_all(world.pool, world.turns[:1], options)

    assert np.array_equal(threshold.score_all(replace(world.pool, is_in=changed, signals=signals), world.turns[:1], options), before)


def test_many_samples_are_fitted_on_a_random_part_of_them(monkeypatch):
    world = gaussian_world(separation=1.0, models=6, samples=4000, seed=5)
    whole = threshold.score(world.evidence, Options(thresholds="global"))
    monkeypatch.setattr(threshold, "N_FITTED", 1000)
    part = threshold.score(world.evidence, Options(thresholds="global"))

    assert np.ptp(part - whole) < 1e-12 and 0 < abs(part[0] - whole[0]) < 0.5
    assert np.array_equal(threshold.score_all(world.pool, world.turns[:1], Options(thresholds="global"))[0], part)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"label": None}, Options(thresholds="per_class"), "per_class needs the labels"),
        ({"is_in": np.zeros((6, 120), dtype=bool)}, Options(thresholds="global"), "the 6 references have OUT samples only"),
        ({"is_in": np.ones((6, 120), dtype=bool)}, Options(thresholds="per_class"), "the 6 references have IN samples only"),
        ({"target": {"loss": np.full((120, 1), 2.5)}}, Options(), "loss is 2.5 for all 120 samples"),
        ({"target": {"loss": np.full((120, 1), np.inf)}}, Options(), "120 of 120 values are not finite"),
        ({}, Options(signal="entropy"), "'entropy' is asked for, the evidence holds loss"),
    ],
)
def test_evidence_that_cannot_be_used_is_refused_in_a_sentence(changed, options, message):
    with pytest.raises(AttackError, match=message):
        threshold.score(replace(classes_world(), **changed), options)


def test_no_references_at_all_leave_no_threshold():
    world = gaussian_world(separation=1.0, models=4, samples=20, seed=0)

    with pytest.raises(AttackError, match="the 0 references"):
        threshold.score_all(world.pool, [Turn(0, np.array([], dtype=int))], Options(thresholds="global"))


def test_a_model_that_is_right_about_everything_is_no_error():
    for name in ("correctness", "is_correct"):
        assert threshold.score(of_one("is_correct", [[1.0], [1.0]]), Options(signal=name)).tolist() == [1.0, 1.0]
